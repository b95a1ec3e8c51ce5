import dataclasses
import pathlib

import numpy as np
import pytest
from PIL import Image

from ocr.data import convert
from ocr.data.convert_config import ConvertConfig
from tfrecords.errors import InputError

pytest.importorskip("apache_beam")


def test_beam_writes_the_same_bytes_as_one_machine(tmp_path: pathlib.Path):
    from ocr.data import convert_beam

    (tmp_path / "images").mkdir()
    rows = []
    for index in range(12):
        name = f"{index}.png"
        Image.fromarray(np.full((32, 60 + index), 20 * index, np.uint8)).save(tmp_path / "images" / name)
        rows.append(f"{name}\t{index}")
    rows += ["0.png\t7", "nowhere.png\t1", "1.png\t?"]  # a duplicate, a missing file, and a character outside the alphabet
    (tmp_path / "labels.txt").write_text("\n".join(rows) + "\n", "utf-8")
    given = {"images": str(tmp_path / "images"), "labels": str(tmp_path / "labels.txt"), "charset": "digits", "num_shards": 3}
    local = ConvertConfig(**given, output=str(tmp_path / "local"), workers=1)
    beam = ConvertConfig(**given, output=str(tmp_path / "beam"), engine="beam", beam_options="--runner=BundleBasedDirectRunner")
    expected = convert.convert(local)
    assert expected == {**expected, "records": 12, "rejects": 3, "shards": 3}
    assert convert_beam.run(beam) == expected
    assert {path.name: path.read_bytes() for path in (tmp_path / "beam").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "local").iterdir()
    }
    with pytest.raises(InputError, match="already there"):
        convert_beam.run(dataclasses.replace(beam, num_shards=2))
