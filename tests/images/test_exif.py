import functools
import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from ocr.images import exif, exif_graph, header, preprocess

IN_GRAPH = tf.function(exif_graph.orientation, [tf.TensorSpec([], tf.string)], autograph=False)
READ_ROWS = functools.partial(preprocess.read_rows, line_height=32)
PIXELS = np.random.default_rng(0).integers(0, 256, (32, 61), np.uint8)


def tiff(orientation: int, order: str = "<", kind: int = exif.SHORT, count: int = 1) -> bytes:
    """Returns Exif data with an orientation after another entry."""
    value = struct.pack(f"{order}HH", orientation, 0) if kind == exif.SHORT else struct.pack(f"{order}I", orientation)
    entries = struct.pack(f"{order}HHII", 0x10F, 2, 4, 0) + struct.pack(f"{order}HHI", exif.TAG, kind, count) + value
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, 2) + entries + bytes(4)


def stored(kind: str, pixels: np.ndarray = PIXELS, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", 0)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def orientations(encoded: bytes) -> set[int]:
    """Returns what Python and the graph say, a set of one."""
    kind = header.PNG if encoded.startswith(header.PNG_MAGIC) else header.JPEG
    return {exif.orientation(encoded, kind), int(IN_GRAPH(tf.constant(encoded)))}


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_is_read_as_viewers_show_it(kind: str):
    files, given = [], []
    for orientation in range(1, 9):
        data = Image.Exif()
        data[exif.TAG] = orientation
        files.append(stored(kind, exif=data))
        with Image.open(io.BytesIO(files[-1])) as image:
            shown = np.asarray(ImageOps.exif_transpose(image))
        parsed = header.read(files[-1])
        assert (parsed.height, parsed.width, parsed.orientation) == (*shown.shape, orientation)
        pixels, width, status, columns = (value.numpy()[0] for value in READ_ROWS(tf.constant([files[-1]])))
        assert (status, columns) == (preprocess.READ, shown.shape[1])
        expected = preprocess.to_line(tf.constant(shown[..., np.newaxis]), 32).numpy()
        assert np.abs(pixels.astype(int) - expected).max() <= (0 if kind == "PNG" else 4)  # another JPEG decoder
        given.append((pixels, width))
    batch, widths, *_ = READ_ROWS(tf.constant(files))
    for row, (pixels, width) in enumerate(given):
        assert widths[row] == width
        np.testing.assert_array_equal(batch[row, :, :width], pixels)


def test_exif_data_are_found_wherever_they_may_be():
    jpeg, png = stored("JPEG"), stored("PNG")
    app1 = segment(0xE1, exif.MARK + tiff(6))
    icc = segment(0xE2, b"Exif\0\0" + tiff(3))  # of another kind of segment
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0")
    for before in (b"", icc, xmp, segment(0xFE, b"a comment") + b"\xff\xff"):
        assert orientations(jpeg[:2] + before + app1 + jpeg[2:]) == {6}
    frame = jpeg.index(b"\xff\xc0")
    assert orientations(jpeg[:frame] + app1 + jpeg[frame:]) == {6}
    assert orientations(jpeg + app1) == {1}  # after the image's end
    assert orientations(jpeg[:2] + app1 + segment(0xE1, exif.MARK + tiff(3)) + jpeg[2:]) == {6}
    for place in (33, len(png) - 12):  # before and after the data
        assert orientations(png[:place] + chunk(b"eXIf", tiff(8, ">")) + png[place:]) == {8}
        assert orientations(png[:place] + chunk(b"eXIf", exif.MARK + tiff(8)) + png[place:]) == {8}
    assert orientations(png + chunk(b"eXIf", tiff(8))) == {1}
    assert orientations(png[:33] + chunk(b"tEXt", b"Comment\0eXIf" + tiff(8)) + png[33:]) == {1}


@pytest.mark.parametrize(
    ("data", "orientation"),
    [
        pytest.param(tiff(5, ">"), 5, id="most significant byte first"),
        pytest.param(tiff(7, "<", exif.LONG), 7, id="four bytes"),
        pytest.param(tiff(7, ">", exif.LONG), 7, id="four bytes, most significant first"),
        pytest.param(tiff(0), 1, id="0"),
        pytest.param(tiff(9), 1, id="9"),
        pytest.param(tiff(6, count=2), 1, id="two values"),
        pytest.param(tiff(6)[:30], 1, id="cut in its entry"),
        pytest.param(tiff(6)[:9], 1, id="cut in its directory"),
        pytest.param(tiff(6)[:4], 1, id="cut in its header"),
        pytest.param(b"", 1, id="empty"),
        pytest.param(b"XX*\0" + tiff(6)[4:], 1, id="neither order"),
        pytest.param(tiff(6)[:4] + b"\xff" * 4 + tiff(6)[8:], 1, id="directory far outside"),
        pytest.param(tiff(6)[:8] + b"\xff\xff" + tiff(6)[10:], 6, id="too many entries"),
    ],
)
def test_malformed_data_are_ignored(data: bytes, orientation: int):
    jpeg, png = stored("JPEG"), stored("PNG")
    assert orientations(jpeg[:2] + segment(0xE1, exif.MARK + data) + jpeg[2:]) == {orientation}
    assert orientations(png[:33] + chunk(b"eXIf", data) + png[33:]) == {orientation}


def test_mutated_files_are_treated_alike_in_python_and_in_the_graph():
    rng, results = np.random.default_rng(1), set()
    for number in range(300):
        kind, magic = (("JPEG", 2), ("PNG", 8))[number % 2]
        data = Image.Exif()
        data[exif.TAG] = int(rng.integers(2, 9))
        file = bytearray(stored(kind, exif=data))
        for _ in range(rng.integers(1, 4)):
            file[rng.integers(magic, 120)] = rng.choice([0, 255, rng.integers(256)])
        result = orientations(bytes(file[: rng.integers(magic, 200)] if number % 5 == 0 else file))
        assert len(result) == 1, bytes(file)
        results |= result
    assert results == set(range(1, 9))


def test_a_file_of_very_many_parts_is_not_walked_to_its_end():
    many = 2 * exif.MAX_PARTS
    assert orientations(header.PNG_MAGIC + chunk(b"aaaa", b"") * many + chunk(b"eXIf", tiff(6))) == {1}
    assert orientations(b"\xff\xd8" + b"\xff" * many + segment(0xE1, exif.MARK + tiff(6))) == {1}
