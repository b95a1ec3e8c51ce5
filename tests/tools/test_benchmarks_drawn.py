import pathlib

from ocr.synthesis import render
from tools.benchmarks import drawn


def test_lines_are_taken_from_everywhere_in_all_records(tmp_path: pathlib.Path):
    for name, seed in (("a", 1), ("b", 2)):
        render.render(render.RenderConfig(str(tmp_path / name), 10, seed=seed, tfrecords=True, workers=1))
    both = f"{tmp_path}/a,{tmp_path}/b"
    files, texts = drawn.load(both, 30)
    assert len(files) == len(set(files)) == 20
    assert drawn.load(both, 11)[1] == [texts[number] for number in (0, 1, 3, 5, 7, 9, 10, 12, 14, 16, 18)]
