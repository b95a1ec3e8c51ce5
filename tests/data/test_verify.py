import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable

import pytest
import tensorflow as tf

from ocr import charset as charsets
from ocr.config import TrainConfig
from ocr.data import dummy, mixture, pipeline, verify
from ocr.images.network_input import FrameSize
from ocr.training import train
from tfrecords import files, writer
from tfrecords.errors import InputError, IntegrityError
from tfrecords.shards import describe

FLIPPED, SECOND, THIRD = 4000, 1, 2


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns records in four shards of the same size, with labels of one character each."""
    folder = tmp_path_factory.mktemp("intact") / "records"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(writer, "SHARD_BYTES", 40_000)
        dummy.convert(str(folder), 80, 11, width=48, max_label_length=1)
    return folder


def shards(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("*.tfrecord-*"))


def records(shard: pathlib.Path) -> list[bytes]:
    return [record.numpy() for record in tf.data.TFRecordDataset(str(shard))]


def rewrite(shard: pathlib.Path, content: list[bytes]) -> None:
    with tf.io.TFRecordWriter(str(shard)) as out:
        for record in content:
            out.write(record)


def edit(folder: pathlib.Path, change: Callable[[dict], None]) -> None:
    path = next(folder.glob("*.manifest.json"))
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def swap(one: pathlib.Path, other: pathlib.Path) -> None:
    assert one.stat().st_size == other.stat().st_size  # so that sizes do not reveal it
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def flip(shard: pathlib.Path) -> None:
    content = bytearray(shard.read_bytes())
    content[FLIPPED] ^= 4
    shard.write_bytes(content)


def stale(folder: pathlib.Path) -> None:
    """Replaces the shards by those of other data of the same sizes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(writer, "SHARD_BYTES", 40_000)
        dummy.convert(str(folder / "other"), 80, 11, width=48, max_label_length=1, seed=1)
    for shard in shards(folder / "other"):
        shutil.copy(shard, folder)
    shutil.rmtree(folder / "other")


def cut(path: pathlib.Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def wrong_count(fields: dict) -> None:
    fields["shards"][SECOND]["records"] += 1
    for name in ("lengths", "widths"):
        fields[name][next(iter(fields[name]))] += 1


DAMAGES: dict[str, tuple[Callable[[pathlib.Path], None], str]] = {
    "bit flip": (lambda d: flip(shards(d)[SECOND]), "00001-of"),
    "cut in a record": (lambda d: cut(shards(d)[SECOND], 5000), "00001-of"),
    "cut in the header": (lambda d: cut(shards(d)[SECOND], len(records(shards(d)[SECOND])[0]) + 16 + 7), "00001-of"),
    "cut at a boundary": (lambda d: rewrite(shards(d)[SECOND], records(shards(d)[SECOND])[:-1]), "00001-of"),
    "emptied": (lambda d: cut(shards(d)[SECOND], 0), "00001-of"),
    "swapped": (lambda d: swap(shards(d)[SECOND], shards(d)[THIRD]), "0000[12]-of"),
    "missing": (lambda d: shards(d)[SECOND].unlink(), "00001-of"),
    "extra": (lambda d: shutil.copy(shards(d)[0], d / "lines-train.tfrecord-00009-of-00010") and None, "00009-of"),
    "truncated manifest": (lambda d: cut(next(d.glob("*.manifest.json")), 300), "manifest.json"),
    "stale manifest": (stale, "00000-of"),
    "wrong count": (lambda d: edit(d, wrong_count), "00001-of"),
    "doubled record": (
        lambda d: rewrite(shards(d)[SECOND], [*records(shards(d)[SECOND]), records(shards(d)[0])[0]]),
        "00001-of",
    ),
}


def test_intact_records_pass(intact: pathlib.Path):
    assert len(shards(intact)) == 4
    assert len({shard.stat().st_size for shard in shards(intact)[:3]}) == 1
    for images_too in (False, True):
        assert verify.verify(intact, images_too) == {"records": 80, "shards": 4, "splits": ["train"]}


@pytest.mark.parametrize("name", DAMAGES)
def test_verify_names_the_damaged_file(intact: pathlib.Path, tmp_path: pathlib.Path, name: str):
    damage, named = DAMAGES[name]
    folder = tmp_path / "records"
    shutil.copytree(intact, folder)
    damage(folder)
    with pytest.raises(IntegrityError, match=named):
        verify.verify(folder)


@pytest.mark.parametrize(
    "name", [name if name in ("missing", "swapped") else pytest.param(name, marks=pytest.mark.slow) for name in DAMAGES]
)
def test_damaged_records_are_never_trained_on(intact: pathlib.Path, tmp_path: pathlib.Path, name: str):
    damage, named = DAMAGES[name]
    folder = tmp_path / "records"
    shutil.copytree(intact, folder)
    damage(folder)
    config = {"train_data": str(folder), "eval_data": str(intact), "workdir": str(tmp_path / "run"), "batch_size": 8}
    with pytest.raises(IntegrityError, match=named):
        train.train(TrainConfig(**config, steps=20, learning_rate=0.001))


def test_wrong_counts_in_the_manifest_are_reported(intact: pathlib.Path, tmp_path: pathlib.Path):
    shutil.copytree(intact, tmp_path / "records")

    def change(fields: dict) -> None:
        first, second = list(fields["characters"])[:2]
        fields["characters"][first] += 1
        fields["characters"][second] -= 1

    edit(tmp_path / "records", change)
    with pytest.raises(IntegrityError, match="its characters are not those of its records"):
        verify.verify(tmp_path / "records")


def test_an_undecodable_image_is_reported_on_request(intact: pathlib.Path, tmp_path: pathlib.Path):
    folder = tmp_path / "records"
    shutil.copytree(intact, folder)
    shard = shards(folder)[THIRD]
    content = records(shard)
    content[3] = content[3].replace(b"raw", b"png")  # same length, so the record can still be parsed
    rewrite(shard, content)
    edit(folder, lambda fields: fields["shards"][THIRD].update(dataclasses.asdict(describe(shard, shard.name))))
    verify.verify(folder)
    with pytest.raises(IntegrityError, match="00002-of-00004: record 4: cannot be read"):
        verify.verify(folder, images_too=True)


@pytest.mark.parametrize(
    "replaced",
    [(b"image/text", b"image/tuxt"), (b"raw", b"png"), (b"\x0a", b"\x0b")],
    ids=["missing key", "wrong format", "not a record"],
)
def test_unreadable_records_are_reported_by_number(intact: pathlib.Path, tmp_path: pathlib.Path, replaced: tuple[bytes, bytes]):
    folder = tmp_path / "records"
    shutil.copytree(intact, folder)
    shard = shards(folder)[SECOND]
    rewrite(shard, [record.replace(*replaced) for record in records(shard)])
    edit(folder, lambda fields: fields["shards"][SECOND].update(dataclasses.asdict(describe(shard, shard.name))))
    with pytest.raises(IntegrityError, match="00001-of-00004: record 1"):
        verify.verify(folder, images_too=True)
    config = {"train_data": str(folder), "eval_data": str(intact), "workdir": str(tmp_path / "run"), "batch_size": 8}
    with pytest.raises(IntegrityError, match="00001-of-00004: record 1"):
        train.train(TrainConfig(**config, steps=20, learning_rate=0.001))
    if b"raw" not in replaced:
        with pytest.raises(IntegrityError, match="00001-of-00004: "):
            verify.verify(folder)


def test_every_fault_is_reported(intact: pathlib.Path, tmp_path: pathlib.Path):
    folder = tmp_path / "records"
    shutil.copytree(intact, folder)
    flip(shards(folder)[0])
    shards(folder)[3].unlink()
    with pytest.raises(IntegrityError, match=r"2 faults: .*00003-of-00004: is missing.*00000-of-00004: damaged"):
        verify.verify(folder)


def test_a_folder_without_records_is_refused(tmp_path: pathlib.Path):
    with pytest.raises(InputError, match="no records in it"):
        verify.verify(tmp_path)


def test_damage_that_happens_after_opening_is_reported(intact: pathlib.Path, tmp_path: pathlib.Path):
    shutil.copytree(intact, tmp_path / "records")
    data = mixture.mix(str(tmp_path / "records"), FrameSize(32, 4))
    charset = charsets.load_charset(tmp_path / "records" / "charset.txt", data.parts[0].manifest.charset)
    swap(shards(tmp_path / "records")[0], shards(tmp_path / "records")[1])
    with pytest.raises(IntegrityError, match="00000-of-00004: damaged"), verify.report_damage(*data.parts):
        next(iter(pipeline.training_batches(data, charset, 8, seed=0)))
    assert files.read_json(next((tmp_path / "records").glob("*.manifest.json")))["version"] == 2
