import pathlib

import numpy as np
import tensorflow as tf

from ocr.data import dummy
from tfrecords import reader, schema


def test_records_are_determined_by_seed_and_number(tmp_path: pathlib.Path):
    dummy.convert(str(tmp_path / "few"), 20, 3000)
    dummy.convert(str(tmp_path / "many"), 40, 3000)
    dummy.convert(str(tmp_path / "other"), 20, 3000, seed=1)
    few, many, other = (
        [r.numpy() for r in reader.records(*reader.find(str(tmp_path / name), "train")).unbatch()]
        for name in ("few", "many", "other")
    )
    assert few == many[:20]
    assert len({*few, *other}) == 40
    _, manifest = reader.find(str(tmp_path / "many"), "train")
    assert manifest.dummy == {"num_classes": 3000, "max_label_length": 10, "seed": 0}
    assert manifest.widths == {280: 40}
    assert set(manifest.lengths) <= set(range(1, 11))
    alphabet = (tmp_path / "few" / "charset.txt").read_text("utf-8").split()
    assert (alphabet[0], len(alphabet)) == ("一", 2999)


def test_labels_and_pixels_are_uniform(tmp_path: pathlib.Path):
    dummy.convert(str(tmp_path), 500, 11, max_label_length=4)
    _, manifest = reader.find(str(tmp_path), "train")
    assert all(90 < count < 160 for count in manifest.lengths.values())
    total = sum(manifest.characters.values())
    assert all(abs(count / total - 0.1) < 0.03 for count in manifest.characters.values())
    for serialized in reader.records(*reader.find(str(tmp_path), "train")).unbatch().take(1):
        pixels = np.frombuffer(schema.parse(serialized[tf.newaxis])["encoded"].numpy()[0], np.uint8)
        assert abs(pixels.mean() - 127.5) < 5
