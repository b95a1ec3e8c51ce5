import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ocr.images import header, header_graph, preprocess


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "I;16"])
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_python_and_graph_read_the_same_headers(tmp_path: pathlib.Path, mode: str, kind: str):
    if kind == "jpeg" and mode not in ("L", "RGB"):
        pytest.skip("JPEG has no such colours")
    path = tmp_path / f"image.{kind}"
    Image.new(mode, (77, 41)).save(path)
    encoded = path.read_bytes()
    parsed = header.read(encoded)
    assert (parsed.kind, parsed.height, parsed.width) == (kind, 41, 77)
    assert header_graph.size(tf.constant(encoded)).numpy().tolist() == [41, 77]
    assert parsed.channels in (0, preprocess.decode_image(tf.constant(encoded)).shape[2])
    assert bool(parsed.channels) == (mode != "P")


def test_a_transparent_colour_leaves_the_number_of_channels_open(tmp_path: pathlib.Path):
    Image.new("L", (77, 41), 9).save(tmp_path / "image.png", transparency=9)
    parsed = header.read((tmp_path / "image.png").read_bytes())
    assert (parsed.height, parsed.width, parsed.channels) == (41, 77, 0)


def test_python_and_graph_scale_alike_and_have_the_same_limits():
    sizes = np.random.default_rng(0).integers(1, (60, 12_000), (500, 2))
    scaled = preprocess.scaled_width(tf.constant(sizes[:, 0]), tf.constant(sizes[:, 1]), 32).numpy().tolist()
    assert [header.scaled_width(int(height), int(width)) for height, width in sizes] == scaled
    too_large = [
        preprocess.status(tf.constant(b"x"), *map(tf.constant, size)).numpy() == preprocess.TOO_LARGE for size in sizes
    ]
    assert [header.is_too_large(int(height), int(width)) for height, width in sizes] == too_large
    assert 0 < sum(too_large) < 500
