import functools
import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ocr.images import header, header_graph, network_input, preprocess

READ_ROWS = functools.partial(preprocess.read_rows, line_height=32)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def a_line(width: int = 60, height: int = 32, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8))


def read(*files: bytes) -> tuple[np.ndarray, list[int], list[int]]:
    """Reads files in one batch, and checks that each gives the same alone, which takes another path in the graph."""
    pixels, width, status, given = (value.numpy() for value in READ_ROWS(tf.constant(list(files), tf.string, [len(files)])))
    for row, file in enumerate(files):
        alone = [value.numpy()[0] for value in READ_ROWS(tf.constant([file]))]
        np.testing.assert_array_equal(alone[0], pixels[row, :, : width[row]])
        assert alone[1:] == [width[row], status[row], given[row]]
    return pixels, width.tolist(), status.tolist()


def test_a_grey_png_of_the_right_height_is_unchanged():
    line = a_line()
    pixels, width, status = read(encoded(line, "PNG"))
    assert (width, status) == ([60], [preprocess.READ])
    np.testing.assert_array_equal(pixels[0], np.asarray(line))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
@pytest.mark.parametrize("size", [(60, 32), (100, 64), (33, 20)])
def test_every_kind_of_file_is_scaled_in_proportion(kind: str, size: tuple[int, int]):
    plain = Image.new("RGB", size, (120, 120, 120))
    pixels, width, status = read(encoded(plain, kind))
    assert status == [preprocess.READ]
    assert width == [round(size[0] * 32 / size[1])]
    assert np.abs(pixels[0].astype(int) - 120).max() <= 2


def test_scaling_down_and_up_agrees_with_pillow():
    for size in [(400, 64), (90, 20)]:
        smooth = a_line(size[0] // 8, size[1] // 4).resize(size, Image.Resampling.BICUBIC)
        pixels, width, _ = read(encoded(smooth, "PNG"))
        expected = np.asarray(smooth.resize((width[0], 32), Image.Resampling.BILINEAR), int)
        assert np.abs(pixels[0].astype(int) - expected).max() <= 2


@pytest.mark.parametrize(
    ("colour", "mode", "grey"),
    [
        ((255, 0, 0), "RGB", 76),
        ((0, 255, 0), "RGB", 150),
        ((0, 0, 255), "RGB", 29),
        ((0, 0, 0, 0), "RGBA", 255),
        ((0, 0, 0, 255), "RGBA", 0),
        ((0, 0, 0, 51), "RGBA", 204),
        ((100, 0), "LA", 255),
        ((100, 255), "LA", 100),
        (1, "1", 255),
    ],
)
def test_colours_become_grey_and_alpha_is_laid_over_white(colour, mode: str, grey: int):
    pixels, _, _ = read(encoded(Image.new(mode, (40, 32), colour), "PNG"))
    assert np.abs(pixels[0].astype(int) - grey).max() <= 1


@pytest.mark.parametrize("alpha", [(), (255,)])
def test_ink_as_bright_as_its_ground_stands_out_by_its_colour(alpha: tuple[int, ...]):
    mode = "RGBA" if alpha else "RGB"
    red_on_grey = Image.new(mode, (60, 32), (120, 120, 120, *alpha))  # luma 120
    red_on_grey.paste((220, 77, 77, *alpha), (10, 8, 30, 24))  # luma 120
    pixels, *_ = read(encoded(red_on_grey, "PNG"))
    assert abs(int(pixels[0, 12, 20]) - int(pixels[0, 2, 2])) > 50


def test_a_large_image_becomes_the_grey_that_a_small_one_does():
    image = Image.new("RGB", (4000, 1000), (230, 230, 230))
    image.paste((255, 214, 246), (1000, 250, 3000, 750))
    large, small = (read(encoded(one, "PNG"))[0][0] for one in (image, image.resize((400, 100), Image.Resampling.NEAREST)))
    assert np.abs(large[16, [5, 64]].astype(int) - small[16, [5, 64]]).max() <= 1


def test_colours_that_nobody_sees_do_not_count():
    image = Image.new("RGBA", (100, 32), (255, 255, 255, 255))
    image.paste((40, 40, 60, 255), (10, 8, 30, 24))
    alone = read(encoded(image, "PNG"))[0][0]
    image.paste((255, 0, 0, 0), (50, 0, 100, 32))
    np.testing.assert_allclose(read(encoded(image, "PNG"))[0][0, :, :50].astype(int), alone[:, :50], atol=5)


def on_clear(ink: int, text: bool = True) -> Image.Image:
    """Returns a clear image with ink of a grey that covers a fifth of it, and is half opaque at its ends."""
    opacity = np.zeros((32, 50), np.uint8)
    if text:
        opacity[8:24, 10:30], opacity[8:24, 10], opacity[8:24, 29] = 255, 128, 128
    return Image.merge("LA", [Image.new("L", (50, 32), ink), Image.fromarray(opacity)])


@pytest.mark.parametrize(("ink", "ground"), [(0, 255), (90, 255), (170, 0), (255, 0)])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_ink_on_a_clear_ground_is_laid_on_what_it_stands_out_from(ink: int, ground: int, mode: str):
    pixels, _, status = read(encoded(on_clear(ink).convert(mode), "PNG"))
    assert status == [preprocess.READ]
    assert np.abs(pixels[0, 12, [0, 10, 15]] - [ground, (ground + ink) / 2, ink]).max() <= 1


def test_a_light_page_with_clear_margins_stays_on_white():
    page = Image.new("LA", (100, 32), (250, 255))
    page.paste((0, 255), (20, 8, 30, 24))
    page.paste((250, 0), (90, 0, 100, 32))
    white_ink = Image.new("LA", (100, 32), (255, 255))  # covers as much, and has no contrast of its own
    white_ink.paste((255, 0), (90, 0, 100, 32))
    pixels, *_ = read(encoded(page, "PNG"), encoded(white_ink, "PNG"))
    assert pixels[:, 16, 95].tolist() == [255, 0]


def test_lines_without_contrast_have_a_status_of_their_own():
    rng = np.random.default_rng(0)
    flat, nearly_flat, faint, wide = (np.full((32, 40), 200, np.uint8) for _ in range(4))
    nearly_flat += rng.integers(0, 3, nearly_flat.shape, np.uint8)
    faint[10:20, 10:20] -= 3
    wide[:, 30:] = 0  # beyond the width
    status = preprocess.contrast_status(tf.constant([flat, nearly_flat, faint, wide]), tf.constant([40, 40, 40, 30]))
    assert status.numpy().tolist() == [preprocess.NO_CONTRAST] * 2 + [preprocess.READ, preprocess.NO_CONTRAST]


def test_a_cut_jpeg_is_undecodable_without_a_word_on_stderr(capfd: pytest.CaptureFixture[str]):
    thumbnail = b"\xff\xe1\x00\x08" + b"\xff\xda\xff\xd9\xff\xd9"
    for options in ({}, {"progressive": True}):
        whole = encoded(a_line(200), "JPEG", quality=95, **options)
        whole = whole[:2] + thumbnail + whole[2:]
        capfd.readouterr()
        assert read(whole, whole + bytes(100))[2] == [preprocess.READ] * 2
        for length in (20, 300, len(whole) // 2, len(whole) - 2):
            assert read(whole[:length], whole[:length] + bytes(9))[2] == [preprocess.UNDECODABLE] * 2
            assert header.read(whole[:length])[1:4] == (0, 0, 0)
        assert capfd.readouterr().err == ""


def test_palette_sixteen_bit_and_cmyk_images_are_read():
    palette = encoded(Image.new("RGB", (40, 32), (0, 255, 0)).convert("P"), "PNG")
    deep = encoded(Image.fromarray(np.full((32, 40), 0x8000, np.uint16)), "PNG")
    cmyk = encoded(Image.new("CMYK", (40, 32), (0, 0, 0, 0)), "JPEG")
    pixels, _, status = read(palette, deep, cmyk)
    assert status == [preprocess.READ] * 3
    assert np.abs(pixels[:, 0, 0].astype(int) - [150, 128, 255]).max() <= 2


def bomb() -> bytes:
    """A PNG of 50,000 x 50,000 pixels by its header."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + b"\0" * 4


def gif_bomb() -> bytes:
    """A GIF of 10 x 10 pixels by its header, whose one frame has 7,000 x 7,000."""
    gif = bytearray(encoded(Image.new("L", (7000, 7000), 3), "GIF"))
    gif[6:10] = struct.pack("<HH", 10, 10)
    return bytes(gif)


A_FRAME = b",\0\0\0\0<\0 \0\0\x08"  # of 60 x 32 pixels, and what its codes begin with

BAD = {
    "junk": (b"\x00\x01\x02junk", preprocess.UNDECODABLE),
    "empty": (b"", preprocess.UNDECODABLE),
    "text": ("Grüße".encode(), preprocess.UNDECODABLE),
    "cut PNG": (encoded(a_line(), "PNG")[:300], preprocess.UNDECODABLE),
    "cut JPEG": (encoded(a_line(), "JPEG")[:300], preprocess.UNDECODABLE),
    "PNG header alone": (encoded(a_line(), "PNG")[:24], preprocess.UNDECODABLE),
    "no PNG header": (b"\x89PNG\r\n\x1a\n", preprocess.UNDECODABLE),
    "JPEG header alone": (b"\xff\xd8\xff\xe0", preprocess.UNDECODABLE),
    "cut GIF": (encoded(a_line(), "GIF")[:40], preprocess.UNDECODABLE),
    "cut BMP": (encoded(a_line(), "BMP")[:100], preprocess.UNDECODABLE),
    "bomb": (bomb(), preprocess.TOO_LARGE),
    "GIF bomb": (gif_bomb(), preprocess.TOO_LARGE),
    "GIF without a frame": (encoded(a_line(), "GIF")[:13] + b";", preprocess.UNDECODABLE),
    "GIF of endless extensions": (encoded(a_line(), "GIF")[:13] + b"!\xfe\x00" * 5000, preprocess.UNDECODABLE),
    "GIF of endless blocks": (encoded(a_line(), "GIF")[:13] + A_FRAME + b"\x01\x00" * 100_000, preprocess.UNDECODABLE),
    "BMP with a palette": (encoded(a_line().convert("RGB").quantize(16), "BMP"), preprocess.UNDECODABLE),
    "BMP with a header beyond its end": (b"BM\xa5" + b"\0" * 11 + b"\0\0\x10\0" + b"\0" * 100, preprocess.UNDECODABLE),
    "BMP header alone": (encoded(a_line(), "BMP")[:26], preprocess.UNDECODABLE),
    "too wide": (encoded(Image.new("L", (2001, 8), 255), "PNG"), preprocess.TOO_LARGE),
    "WebP": (encoded(a_line(), "WEBP"), preprocess.UNDECODABLE),
}


def test_a_bad_file_gets_its_status_and_does_not_affect_its_neighbours():
    good = [encoded(a_line(width, seed=width), "PNG") for width in (1, 30, 77)]
    alone = [read(file)[0][0] for file in good]
    pixels, width, status = read(good[0], *(file for file, _ in BAD.values()), *good[1:])
    assert status == [preprocess.READ, *(code for _, code in BAD.values()), preprocess.READ, preprocess.READ]
    assert width[1:-2] == [1] * len(BAD)
    for row, line in zip((0, -2, -1), alone, strict=True):
        np.testing.assert_array_equal(pixels[row, :, : line.shape[1]], line)
        assert not pixels[row, :, line.shape[1] :].any()


def test_tall_images_are_also_returned_turned_as_pillow_turns_them():
    def stored_sideways(image: Image.Image) -> bytes:
        exif = Image.Exif()
        exif[0x0112] = 6
        return encoded(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)

    tall = [a_line(20, 90), a_line(30, 45), a_line(32, 100).convert("RGBA")]
    files = [*(encoded(image, "PNG") for image in tall), stored_sideways(tall[0])]
    # Not tall, bad, and so long that it would be too large turned.
    others = [encoded(a_line(30, 44), "PNG"), encoded(a_line(90, 20), "PNG"), b"junk", encoded(a_line(1, 300), "PNG")]
    outputs = [value.numpy() for value in preprocess.read_rows(tf.constant(files + others), 32, on_side=True)]
    for value, expected in zip(outputs, READ_ROWS(tf.constant(files + others)), strict=False):
        np.testing.assert_array_equal(value, expected)
    side, width = outputs[4:]
    turned = [encoded(image.transpose(Image.Transpose.ROTATE_270), "PNG") for image in (*tall, tall[0])]
    pixels, expected_width, *_ = (value.numpy() for value in READ_ROWS(tf.constant(turned)))
    assert width.tolist() == [*expected_width, 0, 0, 0, 0]
    for row, columns in enumerate(expected_width):
        np.testing.assert_array_equal(side[row, :, :columns], pixels[row, :, :columns])
        alone = [value.numpy() for value in preprocess.read_rows(tf.constant([files[row]]), 32, on_side=True)]
        np.testing.assert_array_equal(alone[4][0], pixels[row, :, :columns])


def test_the_largest_image_is_read_and_a_larger_file_is_not():
    at_limit = encoded(Image.new("L", (2000, 8), 255), "PNG")
    _, width, status = read(at_limit)
    assert (width, status) == ([8000], [preprocess.READ])
    heavy = encoded(a_line(), "PNG") + b"\0" * header.MAX_BYTES
    assert read(heavy)[2] == [preprocess.TOO_LARGE]


def test_only_the_first_frame_of_an_animation_is_decoded():
    frames = [Image.new("L", (40, 32), tone) for tone in (10, 200)]
    animation = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], comment=b"long " * 200)
    pixels, width, _ = read(animation)
    assert width == [40]
    assert np.abs(pixels[0].astype(int) - 10).max() <= 1
    alone = header_graph.first_frame(tf.constant(animation)).numpy()
    with Image.open(io.BytesIO(alone)) as image:
        assert getattr(image, "n_frames", 1) == 1
        assert image.size == (40, 32)


def test_the_fourth_channel_of_an_uncompressed_bmp_is_not_alpha():
    line = a_line()
    clear = line.convert("RGBA")
    clear.putalpha(0)
    pixels, _, status = read(encoded(clear, "BMP"))
    assert status == [preprocess.READ]
    assert np.abs(pixels[0].astype(int) - np.asarray(line)).max() <= 1


def test_network_input_is_minus_one_for_black_one_for_white_and_zero_beyond_a_line():
    pixels = tf.fill([2, 32, 10], tf.constant(255, tf.uint8))
    image, mask = network_input.to_network(pixels, tf.constant([10, 3]), 4)
    assert image.shape == (2, 32, 12, 1)
    assert image[0, 0, :, 0].numpy().tolist() == [1.0] * 10 + [0.0] * 2
    assert image[1, 0, :, 0].numpy().tolist() == [1.0] * 3 + [0.0] * 9
    assert mask[:, 0, :, 0].numpy().tolist() == [[1, 1, 1], [1, 0, 0]]
    assert network_input.to_network(tf.zeros([1, 32, 4], tf.uint8), tf.constant([4]), 4)[0].numpy().max() == -1.0
