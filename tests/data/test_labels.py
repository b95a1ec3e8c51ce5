import pathlib

import pytest

from ocr import charset as charsets
from ocr.data import labels
from tfrecords.errors import InputError

DIGITS = charsets.charset_by_name("digits")


def test_the_chunks_of_a_labels_file_hold_all_its_lines(tmp_path: pathlib.Path):
    path = tmp_path / "labels.txt"
    rows = [f"{number}.png\t{number}" for number in range(2_000)]
    path.write_text("\ufeff" + "\n".join([*rows, "0.png\t0", "7.png\t"]), "utf-8")
    index = labels.index(path, "auto", tmp_path, DIGITS)
    assert (index.count, index.label_format, index.repeated.keys()) == (2_002, "text", {"0.png", "7.png"})
    assert len(index.chunks) > 3
    lines = [line for chunk in index.chunks for line in labels.read(path, chunk)]
    assert [line.number for line in lines] == list(range(1, 2_003))
    assert [line.content.decode() for line in lines[:2_000]] == rows


def index_of(
    folder: pathlib.Path, content: str, charset: charsets.Charset, integers_are_ids: bool = False
) -> labels.LabelsIndex:
    (folder / "labels.txt").write_bytes(content.encode())
    return labels.index(folder / "labels.txt", "auto", folder, charset, integers_are_ids)


SPACED = charsets.charset_by_name("ascii")
ALNUM = charsets.charset_by_name("alnum")


@pytest.mark.parametrize(
    ("content", "charset", "label_format"),
    [
        ("0.png\t12\n1.png 34\n", DIGITS, "text"),
        ("\n0.png\t12\n", DIGITS, "text"),
        ("0.png 1 2\n1.png 3 4 5\n", DIGITS, "ids"),
        ("0.png 1 2\n1.png\n2.png 3 x 5\n", DIGITS, "ids"),
        ("0.png 63 1\n1.png 0 5\n", ALNUM, "ids"),
    ],
)
def test_the_format_of_a_labels_file_is_the_only_one_it_can_be(
    tmp_path: pathlib.Path, caplog, content: str, charset: charsets.Charset, label_format: str
):
    caplog.set_level("INFO", "ocr")
    assert index_of(tmp_path, content, charset).label_format == label_format
    assert f"its labels are {label_format.removesuffix('s')}s" in caplog.text


@pytest.mark.parametrize(
    ("content", "charset", "message"),
    [
        ("0.png 12\n1.png 34\n", ALNUM, "none of its 2 lines has a tab, and line 1, '0.png 12', could be a text or an id"),
        ("0.png 1 2\n1.png 34\n", ALNUM, "line 2, '1.png 34', could be a text or an id"),
        ("0.png 1 2\n1.png 3 4\n", SPACED, "line 1, '0.png 1 2', could be a text or an id"),
        ("0.png  5\n", DIGITS, "could be a text or an id: write name<TAB>text, or give --label_format=ids"),
        ("0.png ab\n", ALNUM, "line 1, '0.png ab', has no ids"),
        ("0.png 1 2\n1.png ab\n", ALNUM, "line 2, '1.png ab', has no ids"),
        ("0.png,12\n", ALNUM, "looks like CSV: replace the first ',' by a tab"),
        ("0.png;12\n", ALNUM, "looks like CSV: replace the first ';' by a tab"),
        ("0.png|12\n", ALNUM, "looks like CSV"),
        ("0.png\\t12\n", ALNUM, "a backslash and a t"),
        ('{"0.png": "12"}\n', ALNUM, "looks like JSON"),
        ("0.png\u300012\n", ALNUM, "a blank is in its place"),
        ("0.png\n1.png\n", ALNUM, "none of its 2 lines has a tab or ids"),
        ("0.png 1 2\n1.png\t12\n", DIGITS, "line 1 has no tab, but line 2 has one: .* --label_format=text or ids"),
    ],
)
def test_a_labels_file_of_either_format_or_neither_is_refused(
    tmp_path: pathlib.Path, content: str, charset: charsets.Charset, message: str
):
    with pytest.raises(InputError, match=message.replace("|", r"\|").replace("\\t", r"\\t")):
        index_of(tmp_path, content, charset)


def test_integers_in_data_of_chinese_ocr_are_ids(tmp_path: pathlib.Path):
    assert index_of(tmp_path, "0.png 12\n1.png 34\n", ALNUM, integers_are_ids=True).label_format == "ids"
    with pytest.raises(InputError, match=r"line 2, '1.png ab', has no ids"):
        index_of(tmp_path, "0.png 12\n1.png ab\n", ALNUM, integers_are_ids=True)


@pytest.mark.parametrize(
    ("end", "count"), [("", 2), ("\n", 2), ("\n\n", 2), ("\r\n\r\n", 2), ("\n\r\n", 2), ("\n\n\n", 3), ("\n \n", 3)]
)
def test_one_empty_line_at_the_end_of_a_labels_file_is_no_line(tmp_path: pathlib.Path, end: str, count: int):
    index = index_of(tmp_path, f"0.png\t1\n1.png\t2{end}", DIGITS)
    assert index.count == count
    assert sum(len(list(labels.read(tmp_path / "labels.txt", chunk))) for chunk in index.chunks) == count


def test_texts_with_blanks_at_an_end_or_decomposed_letters_are_counted(tmp_path: pathlib.Path, caplog):
    texts = ["ab", " ab", "ab ", "a b", "ab\u3000", "\u00a0ab", "ab\u200b", "e\u0301", "\u00e9", "\u4e2d"]
    index_of(tmp_path, "".join(f"{number}.png\t{text}\n" for number, text in enumerate(texts)), ALNUM)
    assert "5 texts begin or end with a blank" in caplog.text
    assert "1 texts are not composed (NFC)" in caplog.text
