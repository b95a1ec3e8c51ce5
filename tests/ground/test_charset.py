import pathlib

import numpy as np
import pytest
import tensorflow as tf

from ocr import charset as charsets
from ocr.charset import Charset
from tfrecords.errors import InputError, IntegrityError


def test_built_in_alphabets_have_the_sizes_of_their_definitions():
    sizes = {name: charsets.charset_by_name(name).blank for name in charsets.BUILT_IN}
    # GB2312 has 682 symbols and 6,763 hanzi; 95 printable ASCII; and three that the codec maps to other code points.
    assert sizes == {"digits": 10, "alnum": 62, "ascii": 95, "gb2312": 682 + 6763 + 95 + 3}


def test_gb2312_has_the_characters_of_chinese_texts():
    assert charsets.charset_by_name("gb2312").missing("中国人，“你好”——《书》…·1234 abc 鼾齄") == ""
    assert charsets.charset_by_name("gb2312").missing("東京") == "東"


@pytest.mark.parametrize("name", charsets.BUILT_IN)
def test_built_in_alphabets_have_no_repeated_character(name):
    characters = charsets.BUILT_IN[name]
    assert len(set(characters)) == len(characters)


@pytest.mark.parametrize("characters", ["0123456789", "中 国é…·", "abca", "𠀀😀x"])
def test_python_and_tensorflow_encode_and_decode_alike(characters):
    charset = Charset(characters)
    texts = [characters, characters[::-1], characters[1], "", characters[-1] * 3]
    classes = [[characters.index(c) for c in text] for text in texts]  # by definition the first of equal characters
    assert [charset.encode(text) for text in texts] == classes
    ragged = charset.encode_graph(tf.constant(texts))
    assert ragged.to_list() == classes
    lengths = tf.cast(ragged.row_lengths(), tf.int32)
    assert [b"".join(row).decode() for row in charset.decode_graph(ragged.to_tensor(-7), lengths).numpy()] == texts
    assert [charset.decode(row) for row in classes] == texts


def test_an_unknown_character_is_named_in_python_and_minus_one_in_tensorflow():
    charset = Charset("ab")
    with pytest.raises(InputError, match=r"'中' \(U\+4E2D\)"):
        charset.encode("a中b")
    assert charset.encode_graph(tf.constant(["a中bz"])).to_list() == [[0, -1, 1, -1]]


def test_the_blank_is_the_last_class():
    assert (Charset("abc").blank, Charset("abc").num_classes) == (3, 4)


def test_the_first_line_of_a_chinese_ocr_alphabet_is_skipped_and_repeats_are_kept(tmp_path: pathlib.Path):
    path = tmp_path / "char_std.txt"
    path.write_text(" \n1\n的\n1\n荼\n", "utf-8")
    charset = charsets.charset_by_name(f"chinese_ocr:{path}")
    assert charset.characters == "1的1荼"
    assert charset.encode("1") == [0]
    assert charset.decode([2]) == "1"


def test_saving_and_loading_keeps_an_alphabet_with_repeats_and_spaces(tmp_path: pathlib.Path):
    charset = Charset("1 \u3000\u20281x\u0085")
    (tmp_path / "charset.txt").write_text(charset.file_text(), "utf-8", newline="\n")
    assert charsets.load_charset(tmp_path / "charset.txt", charset.fingerprint) == charset
    with pytest.raises(IntegrityError, match=r"alphabet of .*charset\.txt"):
        charsets.load_charset(tmp_path / "charset.txt", Charset("1").fingerprint)


def test_the_fingerprint_is_sha256_over_the_characters():
    assert Charset("abc").fingerprint == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb\na\n", r"'a' \(U\+0061\) is on line 1 and again on line 3"),
        (b"a\nbc\n", "line 2 is 'bc'"),
        (b"a\n\nb\n", "line 2 is ''"),
        (b"", "line 1 is ''"),
        ("a\ne\u0301\n".encode(), r"line 2 is 'e\u0301', decomposed into 'e' .* write '\u00e9' \(U\+00E9\), the composed form"),
        ("\u1112\u1161\u11ab\n".encode(), r"decomposed into .* write '\ud55c' \(U\+D55C\)"),
        ("\u0915\u094d\u0937\n".encode(), r"which is 3 characters: '\u0915' \(U\+0915\), '\u094d'"),
        ("\U0001f1e9\U0001f1ea\n".encode(), r"which is 2 characters: '\U0001f1e9' \(U\+1F1E9\)"),
        (b"a \n", "line 1 is 'a ', a character with a blank beside it"),
        (b"a\n\xff\n", "not UTF-8 at byte 2"),
    ],
)
def test_an_invalid_charset_file_is_refused(tmp_path: pathlib.Path, content: bytes, message: str):
    path = tmp_path / "charset.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        charsets.charset_by_name(str(path))


def test_a_charset_file_may_have_a_byte_order_mark_and_crlf_line_ends(tmp_path: pathlib.Path):
    path = tmp_path / "charset.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\n \r\nb")
    assert charsets.charset_by_name(str(path)).characters == "a b"


def test_an_unknown_name_is_refused_listing_the_known_ones():
    with pytest.raises(InputError, match="--charset=klingon: neither a file nor one of digits, alnum"):
        charsets.charset_by_name("klingon")


def test_tensorflow_tells_thousands_of_code_points_apart():
    charset = charsets.charset_by_name("gb2312")
    points = np.random.default_rng(0).integers(0x20, 0xD7FF, 5000)
    text = "".join(map(chr, points))
    expected = [charset._classes.get(c, -1) for c in text]
    assert charset.encode_graph(tf.constant([text])).to_list() == [expected]


def test_a_charset_file_round_trips_characters_that_look_like_line_ends_or_marks(tmp_path: pathlib.Path):
    alphabet = Charset("\ufeffa\x85\u2028 b\t")  # line ends to str.splitlines, and a byte order mark
    (tmp_path / "charset.txt").write_bytes(alphabet.file_text().encode("utf-8"))
    assert charsets.charset_by_name(str(tmp_path / "charset.txt")) == alphabet


@pytest.mark.parametrize("character", ["\n", "\r", "\ud800"])
def test_what_a_charset_file_cannot_hold_is_refused_as_a_character(character: str):
    with pytest.raises(InputError, match=r"cannot be a character"):
        Charset("a" + character)


@pytest.mark.parametrize(
    ("characters", "text", "hint"),
    [
        ("e\u00e9", "e\u0301", "the text's letters are decomposed (NFD), those of the alphabet are composed"),
        ("e\u0301", "\u00e9", "the text's letters are composed (NFC), those of the alphabet are decomposed"),
        ("12", "\uff11\uff12", "the alphabet has other forms of these characters"),
        ("12", "12\u3000", ": a blank at an end of the text"),
        ("caf", "cafe\u0301", "decomposed (NFD); composed (NFC), the alphabet lacks '\u00e9' (U+00E9)"),
        ("12", "13", "'3' (U+0033)"),
    ],
)
def test_a_text_that_an_alphabet_cannot_write_is_explained(characters: str, text: str, hint: str):
    assert hint in charsets.Charset(characters).describe_missing(text)
