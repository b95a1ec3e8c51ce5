import pathlib

from ocr.data import labels


def test_the_chunks_of_a_labels_file_hold_all_its_lines(tmp_path: pathlib.Path):
    path = tmp_path / "labels.txt"
    rows = [f"{number}.png\t{number}" for number in range(2_000)]
    path.write_text("\ufeff" + "\n".join([*rows, "0.png\t0", "7.png\t"]), "utf-8")
    index = labels.index(path, "auto")
    assert (index.count, index.label_format, index.repeated) == (2_002, "text", {"0.png", "7.png"})
    assert len(index.chunks) > 3
    lines = [line for chunk in index.chunks for line in labels.read(path, chunk)]
    assert [line.number for line in lines] == list(range(1, 2_003))
    assert [line.content.decode() for line in lines[:2_000]] == rows
