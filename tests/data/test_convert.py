import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ocr.data import convert, labels
from ocr.data.convert_config import ConvertConfig
from ocr.images import exif, preprocess, record_images
from tfrecords import manifest, reader, schema
from tfrecords.errors import InputError


def draw(path: pathlib.Path, width: int = 100, height: int = 32, **options) -> None:
    seed = int.from_bytes(path.name.encode(), "big") % 2**32
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    Image.fromarray(pixels).save(path, **options)


def pack(folder: pathlib.Path, lines: list[str] | bytes, **fields) -> dict:
    content = lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode()
    (folder / "labels.txt").write_bytes(content)
    values = {
        "images": str(folder),
        "labels": str(folder / "labels.txt"),
        "charset": "alnum",
        "output": str(folder / "records"),
    }
    return convert.convert(ConvertConfig(**{**values, **fields}))


def records(folder: pathlib.Path) -> dict[str, dict]:
    """Returns the records by file name."""
    by_name = {}
    for serialized in reader.records(*reader.find(str(folder / "records"), "train")).unbatch():
        parsed = {key: value.numpy()[0] for key, value in schema.parse(serialized[tf.newaxis]).items()}
        by_name[parsed["filename"].decode()] = parsed
    return by_name


def rejects(folder: pathlib.Path) -> list[list[str]]:
    text = (folder / "records" / "lines-train.rejects.tsv").read_text("utf-8")
    return [line.split("\t") for line in text.splitlines()]


def test_png_and_jpeg_files_are_kept_unchanged_and_others_become_png(tmp_path: pathlib.Path):
    for name in ("a.png", "b.jpg", "c.bmp", "d.gif"):
        draw(tmp_path / name, 77, 40)
    pack(tmp_path, [f"{name}\tabc" for name in ("a.png", "b.jpg", "c.bmp", "d.gif")])
    packed = records(tmp_path)
    assert {name: r["format"].decode() for name, r in packed.items()} == {
        "a.png": "png",
        "b.jpg": "jpeg",
        "c.bmp": "png",
        "d.gif": "png",
    }
    files = []
    for name, record in packed.items():
        assert (record["height"], record["width"], record["text"]) == (40, 77, b"abc")
        original = (tmp_path / name).read_bytes()
        if name in ("a.png", "b.jpg"):
            assert record["encoded"] == original
        files += [record["encoded"], original]
    pixels = preprocess.read_rows(tf.constant(files), 32)[0].numpy()
    np.testing.assert_array_equal(pixels[::2], pixels[1::2])


@pytest.mark.parametrize("image_format", ["png", "raw"])
def test_all_image_formats_hold_the_same_line(tmp_path: pathlib.Path, image_format: str):
    draw(tmp_path / "a.jpg", 90, 48, quality=80)
    pack(tmp_path, ["a.jpg\tabc"], image_format=image_format)
    record = records(tmp_path)["a.jpg"]
    line = preprocess.read_rows(tf.constant([(tmp_path / "a.jpg").read_bytes()]), 32)[0].numpy()[0]
    if image_format == "raw":
        assert (record["height"], record["width"]) == (32, 60)
        stored = np.frombuffer(record["encoded"], np.uint8).reshape(32, 60)
    else:
        assert (record["format"], record["height"], record["width"]) == (b"png", 48, 90)
        stored = preprocess.read_rows(tf.constant([record["encoded"]]), 32)[0].numpy()[0]
    np.testing.assert_array_equal(stored, line)


def test_records_hold_images_as_viewers_show_them(tmp_path: pathlib.Path):
    names = [f"{orientation}.{kind}" for orientation in range(1, 9) for kind in ("png", "jpg")]
    for name in names:
        data = Image.Exif()
        data[exif.TAG] = int(name[0])
        draw(tmp_path / name, *((48, 90) if int(name[0]) in exif.SIDEWAYS else (90, 48)), exif=data)
    files = [(tmp_path / name).read_bytes() for name in names]
    lines = preprocess.read_rows(tf.constant(files), 32)[0].numpy()
    assert lines.shape == (16, 32, 60)
    for fields in ({}, {"check": "header"}, {"image_format": "png"}, {"image_format": "raw"}):
        output = tmp_path / "-".join(fields.values()) / "records"
        pack(tmp_path, [f"{name}\tabc" for name in names], output=str(output), **fields)
        (serialized,) = tf.data.TFRecordDataset([str(path) for path in output.glob("*.tfrecord-*")]).batch(16)
        record = schema.parse(serialized)
        size = {(32, 60)} if fields.get("image_format") == "raw" else {(48, 90)}
        assert set(zip(record["height"].numpy(), record["width"].numpy(), strict=True)) == size
        np.testing.assert_array_equal(record_images.read(record, 32)[0], lines)
        if "image_format" not in fields:
            assert record["encoded"].numpy().tolist() == files


def test_records_without_an_orientation_are_read_as_they_were_written(tmp_path: pathlib.Path):
    data = Image.Exif()
    data[exif.TAG] = 6
    draw(tmp_path / "a.png", 50, 40, exif=data)
    encoded = (tmp_path / "a.png").read_bytes()
    record = schema.parse(tf.constant([schema.Record(encoded, "png", 40, 50, 1, "a", "a.png").serialize()]))
    pixels, width = record_images.read(record, 32)
    assert width.numpy().tolist() == [40]
    np.testing.assert_array_equal(pixels[0], preprocess.to_line(preprocess.decode_image(tf.constant(encoded)), 32))


def test_a_blank_image_becomes_a_record(tmp_path: pathlib.Path):
    Image.new("L", (100, 32), 255).save(tmp_path / "a.png")
    assert pack(tmp_path, ["a.png\tabc"])["records"] == 1


def test_every_line_becomes_a_record_or_a_reject_with_its_reason(tmp_path: pathlib.Path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("good.png", "again.png", "other.png", "short.png", "label.png", "wide.png"):
        draw(folder / name, 2001 * 4 if name == "wide.png" else 20 if name == "short.png" else 100)
    draw(tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "junk.png").write_bytes(b"junk")
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:200])
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "fifo.png")
    lines = {
        b"good.png\tabc": None,
        b"": "bad_line",
        b"no tab in it": "bad_line",
        b"\tabc": "bad_line",
        b"bad\xff.png\tabc": "bad_line",
        b"nul\0.png\tabc": "bad_line",
        b"nowhere.png\tabc": "missing_file",
        b"folder.png\tabc": "missing_file",
        b"fifo.png\tabc": "missing_file",
        b"../secret.png\tabc": "outside_images",
        str(tmp_path / "secret.png").encode() + b"\tabc": "outside_images",
        b"link.png\tabc": "outside_images",
        b"junk.png\tabc": "undecodable",
        b"empty.png\tabc": "undecodable",
        b"cut.png\tabc": "undecodable",
        b"wide.png\tabc": "too_large",
        b"label.png\t": "empty_label",
        "other.png\ta中c".encode(): "not_in_charset",
        b"short.png\taabb": "too_long",  # needs 6 frames, blanks between equal characters included; there are 5
        b"good.png\txyz": "duplicate_name",
        b"again.png\ta b": "not_in_charset",
    }
    summary = pack(folder, b"\n".join(lines) + b"\n")
    expected = [(str(i), reason) for i, reason in enumerate(lines.values(), 1) if reason]
    assert [(row[0], row[2]) for row in rejects(folder)] == expected
    assert (summary["records"], summary["rejects"]) == (1, len(lines) - 1)
    assert [r["text"] for r in records(folder).values()] == [b"abc"]
    assert all(len(row) == 4 for row in rejects(folder))


def test_of_several_lines_with_one_name_the_first_usable_is_packed(tmp_path: pathlib.Path):
    draw(tmp_path / "a.png")
    pack(tmp_path, ["a.png\ta b", "a.png\tgood", "a.png\tlate"])
    assert [r["text"] for r in records(tmp_path).values()] == [b"good"]
    assert [row[2] for row in rejects(tmp_path)] == ["not_in_charset", "duplicate_name"]


def test_a_labels_file_that_changes_meanwhile_is_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    draw(tmp_path / "a.png")
    index = labels.index

    def and_then_lose_a_line(path: pathlib.Path, *args) -> labels.LabelsIndex:
        indexed = index(path, *args)
        path.write_bytes(b"a.png\tabc\n")
        return indexed

    monkeypatch.setattr(labels, "index", and_then_lose_a_line)
    with pytest.raises(InputError, match="had 2 lines, then 1"):
        pack(tmp_path, ["a.png\tabc", "b.png\tabc"])
    assert not list((tmp_path / "records").iterdir())


def test_a_gif_has_the_size_of_its_first_frame(tmp_path: pathlib.Path):
    draw(tmp_path / "a.gif", 77, 40)
    gif = bytearray((tmp_path / "a.gif").read_bytes())
    gif[6:10] = b"\xff\x00\xff\x00"  # what the whole animation would take
    (tmp_path / "a.gif").write_bytes(gif)
    pack(tmp_path, ["a.gif\tabc"])
    (record,) = records(tmp_path).values()
    assert (record["height"], record["width"]) == (40, 77)


def test_ids_count_from_one_and_invalid_ones_are_rejected(tmp_path: pathlib.Path):
    for name in "abcdefg":
        draw(tmp_path / name, 200, format="PNG")
    pack(tmp_path, ["a 1 2 62", "b 0", "c 63", "d -1", "e 1 x", "f", "g " + "9" * 5000], label_format="ids")
    assert {name: r["text"] for name, r in records(tmp_path).items()} == {"a": b"01Z"}
    reasons = [(row[1], row[2]) for row in rejects(tmp_path)]
    assert reasons == [
        ("b", "id_out_of_range"),
        ("c", "id_out_of_range"),
        ("d", "id_out_of_range"),
        ("e", "bad_line"),
        ("f", "empty_label"),
        ("g", "id_out_of_range"),
    ]


def test_data_of_the_original_is_packed_unchanged(tmp_path: pathlib.Path):
    alphabet = " \n" + "".join(f"{chr(0x4E00 + i)}\n" for i in range(5989))
    (tmp_path / "char_std_5990.txt").write_text(alphabet, "utf-8")
    rng = np.random.default_rng(0)
    lines, truths = [], {}
    for index in range(20):
        ids = rng.integers(1, 5990, 10)
        draw(tmp_path / f"{index}.jpg", 280)
        lines.append(" ".join(map(str, [f"{index}.jpg", *ids])))
        # In the alphabet file id k is on line k + 1.
        truths[f"{index}.jpg"] = "".join(alphabet.split("\n")[k] for k in ids).encode()
    summary = pack(tmp_path, lines, charset=f"chinese_ocr:{tmp_path / 'char_std_5990.txt'}")
    assert summary["records"] == 20
    assert {name: r["text"] for name, r in records(tmp_path).items()} == truths
    assert len((tmp_path / "records" / "charset.txt").read_text("utf-8").splitlines()) == 5989


def test_a_labels_file_may_have_windows_line_ends_and_no_final_newline(tmp_path: pathlib.Path):
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png")
    assert pack(tmp_path, b"\xef\xbb\xbfa.png\tabc\r\nb.png\tdef")["records"] == 2
    assert {r["text"] for r in records(tmp_path).values()} == {b"abc", b"def"}


def test_shards_do_not_depend_on_the_number_of_workers(tmp_path: pathlib.Path):
    lines = []
    for index in range(150):
        draw(tmp_path / f"{index}.png", 60 + index)
        lines.append(f"{index}.png\t{index}")
    for workers in (1, 4):
        pack(tmp_path, lines, workers=workers, num_shards=3, output=str(tmp_path / f"by{workers}"))
    one, four = ({p.name: p.read_bytes() for p in (tmp_path / f"by{w}").iterdir()} for w in (1, 4))
    assert one == four
    assert len(one) == 3 + 5


def test_strict_fails_at_the_first_bad_line_and_leaves_nothing(tmp_path: pathlib.Path):
    draw(tmp_path / "a.png")
    with pytest.raises(InputError, match="line 2: missing_file"):
        pack(tmp_path, ["a.png\tabc", "b.png\tabc"], strict=True)
    assert not list((tmp_path / "records").iterdir())


@pytest.mark.parametrize(
    ("lines", "fields", "message"),
    [
        ([], {}, "has no labels in it"),
        (["nowhere.png\tabc"], {}, "none of its 1 lines is usable .1 missing_file"),
        (["a.png\tabc"], {"images": "/nowhere"}, "--images=/nowhere: no such folder"),
        (["a.png\tabc"], {"labels": "/nowhere"}, "/nowhere: No such file"),
        (["a.png\tabc"], {"charset": "klingon"}, "--charset=klingon"),
        (["a.png\tabc"], {"num_shards": 2}, "--num_shards=2: more than the 1 lines"),
        (["a.png\tabc"], {"split": "a/b"}, "--split=a/b"),
        (["a.png\tabc"], {"image_format": "tiff"}, "--image_format=tiff"),
    ],
)
def test_unusable_input_is_refused_and_nothing_is_written(tmp_path: pathlib.Path, lines, fields, message: str):
    draw(tmp_path / "a.png")
    with pytest.raises(InputError, match=message):
        pack(tmp_path, lines, **fields)
    assert not (tmp_path / "records").exists() or not list((tmp_path / "records").iterdir())


def test_a_second_split_needs_the_alphabet_of_the_first(tmp_path: pathlib.Path):
    draw(tmp_path / "a.png")
    pack(tmp_path, ["a.png\t12"], charset="digits")
    pack(tmp_path, ["a.png\t34"], charset="digits", split="eval")
    assert set(manifest.splits(tmp_path / "records")) == {"train", "eval"}
    with pytest.raises(InputError, match="another alphabet"):
        pack(tmp_path, ["a.png\t34"], charset="alnum", split="test")
