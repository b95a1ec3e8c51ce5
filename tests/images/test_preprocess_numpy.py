"""The twin without TensorFlow gives what the graph gives."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ocr.images import header, preprocess, preprocess_numpy

SIZES = ((280, 32), (300, 48), (151, 77), (33, 20), (7, 300), (1, 1), (400, 31))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def an_image(mode: str, width: int, height: int) -> Image.Image:
    """Returns strokes with soft edges and noise, as text has."""
    rng = np.random.default_rng(width * height)
    coarse = rng.integers(0, 256, (max(height // 8, 1), max(width // 8, 1), 4), np.uint8)
    image = Image.fromarray(coarse, "RGBA").resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(image).astype(int) + rng.integers(-20, 21, (height, width, 4))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8), "RGBA").convert(mode)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif


def images() -> dict[str, bytes]:
    found = {}
    for width, height in SIZES:
        for mode in ("L", "LA", "RGB", "RGBA", "P", "1"):
            found[f"png {mode} {width}x{height}"] = encoded(an_image(mode, width, height), "PNG")
        for mode in ("L", "RGB"):
            found[f"jpeg {mode} {width}x{height}"] = encoded(an_image(mode, width, height), "JPEG", quality=70)
            found[f"bmp {mode} {width}x{height}"] = encoded(an_image(mode, width, height), "BMP")
        found[f"gif {width}x{height}"] = encoded(an_image("P", width, height), "GIF")
    for orientation in range(1, 9):
        for kind in ("PNG", "JPEG"):
            found[f"{kind} turned {orientation}"] = encoded(an_image("L", 90, 60), kind, exif=turned(orientation))
    grey = np.asarray(an_image("L", 200, 50)).astype(np.uint16) * 257
    found["png of 16 bits"] = encoded(Image.fromarray(grey), "PNG")
    light = an_image("LA", 120, 40)
    light.putalpha(light.getchannel("L").point(lambda value: 255 if value > 180 else 0))
    found["light ink on nothing"] = encoded(light, "PNG")
    found["progressive jpeg"] = encoded(an_image("RGB", 200, 50), "JPEG", progressive=True)
    return found


def bad_files() -> dict[str, bytes]:
    line, photo = encoded(an_image("L", 280, 32), "PNG"), encoded(an_image("RGB", 280, 32), "JPEG")
    bomb = header.PNG_MAGIC + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 50_000, 50_000, 8, 0, 0, 0, 0, 0)
    return {
        "empty": b"",
        "junk": b"no image",
        "zeros": bytes(1000),
        "cut png": line[:-40],
        "cut jpeg": photo[:-40],
        "header alone": header.PNG_MAGIC,
        "bomb": bomb,
        "too many bytes": line + bytes(header.MAX_BYTES),
        "too wide": encoded(Image.new("L", (9_000, 32)), "PNG"),
        "bmp with a palette": encoded(an_image("P", 60, 32), "BMP"),
        "webp": encoded(an_image("RGB", 60, 32), "WEBP"),
        "blank": encoded(Image.new("L", (200, 32), 255), "PNG"),
        "hardly any contrast": encoded(Image.fromarray(np.tile(np.uint8([[100, 102]]), (32, 20))), "PNG"),
    }


@pytest.mark.parametrize("line_height", [32, 48])
def test_lines_are_those_of_the_graph_to_a_grey_level_and_jpeg_to_four(line_height: int):
    files = images()
    pixels, width, status, _ = preprocess.read_rows(tf.constant(list(files.values())), line_height)
    for name, encoded_file, row, columns, code in zip(
        files, files.values(), pixels.numpy(), width.numpy(), status.numpy(), strict=True
    ):
        line, own_code = preprocess_numpy.read(encoded_file, line_height)
        assert code == preprocess.READ, name
        assert own_code in (preprocess.READ, preprocess.NO_CONTRAST), name
        assert line.shape == (line_height, columns), name
        # TensorFlow decodes JPEG files with libjpeg's fast transform, Pillow with the accurate one.
        limit = 4 if encoded_file.startswith(header.JPEG_MAGIC) else 1
        assert np.abs(line.astype(int) - row[:, :columns]).max() <= limit, name


def test_files_that_cannot_be_read_have_the_status_of_the_graph():
    files = bad_files()
    pixels, width, status, _ = preprocess.read_rows(tf.constant(list(files.values())), 32)
    blank = preprocess.contrast_status(pixels, width)
    expected = tf.where(status == preprocess.READ, blank, status).numpy().tolist()
    assert {name: preprocess_numpy.read(file, 32)[1] for name, file in files.items()} == dict(zip(files, expected, strict=True))
    assert sorted(set(expected)) == [preprocess.UNDECODABLE, preprocess.TOO_LARGE, preprocess.NO_CONTRAST]
