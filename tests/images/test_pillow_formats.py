import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

from ocr.images import exif, header, header_graph, pillow_formats, preprocess

LINE = Image.new("L", (160, 32), 255)
ImageDraw.Draw(LINE).text((4, 4), "Formats 123", 0, ImageFont.load_default(22))
SHARP = LINE.point(lambda value: 255 * (value > 127))  # black and white alone
RGB, SIXTEEN = LINE.convert("RGB"), Image.fromarray(np.asarray(LINE).astype(np.uint16) * 257)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


FILES = {
    "TIFF": (encode(LINE, "TIFF"), "TIFF", LINE),
    "TIFF, LZW": (encode(RGB, "TIFF", compression="tiff_lzw"), "TIFF", LINE),
    "TIFF, Deflate": (encode(RGB, "TIFF", compression="tiff_adobe_deflate"), "TIFF", LINE),
    "TIFF, fax": (encode(SHARP.convert("1"), "TIFF", compression="group4"), "TIFF", SHARP),
    "TIFF of 16 bits": (encode(SIXTEEN, "TIFF"), "TIFF", LINE),
    "TIFF, CMYK": (encode(RGB.convert("CMYK"), "TIFF"), "TIFF", LINE),
    "TIFF with a palette": (encode(SHARP.convert("RGB").quantize(2), "TIFF"), "TIFF", SHARP),
    "TIFF of two pages": (encode(LINE, "TIFF", save_all=True, append_images=[SHARP]), "TIFF", LINE),
    "WebP": (encode(RGB, "WEBP", lossless=True), "WebP", LINE),
    "WebP with alpha": (encode(RGB.convert("RGBA"), "WEBP", lossless=True), "WebP", LINE),
    "BMP with a palette": (encode(SHARP.convert("RGB").quantize(2), "BMP"), "BMP", SHARP),
    "BMP of 1 bit": (encode(SHARP.convert("1"), "BMP"), "BMP", SHARP),
    "JPEG 2000": (encode(LINE, "JPEG2000"), "JPEG 2000", LINE),
    "PGM": (encode(LINE, "PPM"), "PNM", LINE),
    "PGM of 16 bits": (encode(SIXTEEN, "PPM"), "PNM", LINE),
    "PBM": (encode(SHARP.convert("1"), "PPM"), "PNM", SHARP),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_tensorflow_does_not_decode_becomes_a_png_of_the_same_pixels(name: str):
    encoded, kind, truth = FILES[name]
    assert header.foreign_format(encoded) == kind
    assert header.read(encoded) is None or kind == "BMP"
    png = pillow_formats.to_png(encoded)
    assert header.foreign_format(png) == ""
    assert header_graph.size(tf.constant(encoded)).numpy().tolist() == [0, 0]  # undecodable where it is read in the graph
    decoded = preprocess.to_line(preprocess.decode_image(tf.constant(png)), 32)
    np.testing.assert_array_equal(decoded, np.asarray(truth))


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_turned_file_is_stored_upright(orientation: int):
    data = Image.Exif()
    data[exif.TAG] = orientation
    png = pillow_formats.to_png(encode(RGB, "WEBP", lossless=True, exif=data))
    method = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}[orientation]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png)).convert("L")), np.asarray(LINE.transpose(method)))
    assert header.read(png).orientation == exif.UPRIGHT


@pytest.mark.parametrize(
    "encoded",
    [
        *(FILES[name][0][:60] for name in ("TIFF, LZW", "WebP", "BMP with a palette", "PGM")),
        encode(LINE.convert("F"), "TIFF"),
        encode(RGB, "PDF"),
        encode(RGB, "EPS"),
        b"II*\0junk",
        b"",
    ],
)
def test_what_cannot_be_decoded_is_refused(encoded: bytes):
    with pytest.raises(pillow_formats.DamagedError) as refused:
        pillow_formats.to_png(encoded)
    assert "\n" not in str(refused.value)


def test_an_image_that_is_too_large_is_not_decoded():
    for size in (b"9000 9000", b"100000 100000"):
        with pytest.raises(pillow_formats.TooLargeError, match="pixels"):
            pillow_formats.to_png(b"P5 " + size + b" 255\n")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_python_and_graph_know_the_same_bmp_files(mode: str):
    encoded = encode(RGB.quantize(16) if mode == "P" else LINE.convert(mode), "BMP")
    packing, used = slice(30, 31), slice(46, 47)
    for place, octet in ((packing, encoded[packing]), (packing, b"\1"), (packing, b"\3"), (used, b"\7")):
        changed = encoded[: place.start] + octet + encoded[place.stop :]
        in_graph = header_graph.size(tf.constant(changed)).numpy().tolist() == [32, 160]
        assert header.is_supported_bmp(changed) == in_graph
    assert header.is_supported_bmp(encoded) == (mode in ("L", "RGB", "RGBA"))
