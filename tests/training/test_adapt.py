import contextlib
import dataclasses
import os
import pathlib
import signal
import time

import pytest

from ocr.evaluation import evaluate
from ocr.model import frozen
from ocr.saving.workdir import Workdir
from ocr.synthesis import render
from ocr.synthesis.render import RenderConfig
from ocr.training import adapt
from ocr.training.adapt_config import AdaptConfig
from tfrecords import files
from tfrecords.errors import InputError, IntegrityError


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns a folder of lines of digits and `#`, with a text beside each image."""
    folder = tmp_path_factory.mktemp("adapt") / "lines"
    charset = folder.parent / "charset.txt"
    charset.write_text("".join(f"{character}\n" for character in "0123456789#"))
    render.render(RenderConfig(output=str(folder), count=150, charset=str(charset), width=0, min_chars=3, max_chars=6, seed=3))
    for row in (folder / "labels.txt").read_text().splitlines():
        name, text = row.split("\t")
        (folder / name).with_suffix(".gt.txt").write_text(text + "\n")
    (folder / "labels.txt").unlink()
    (folder / "000000.gt.txt").write_bytes(b"1\r2\n")  # is rejected
    return folder


def killed_at(model: pathlib.Path):
    """Returns an evaluation that a kill interrupts if it is of this model."""
    measure = evaluate.evaluate

    def evaluate_or_not(of: pathlib.Path, *rest, **fields) -> dict:
        if of == model:
            raise KeyboardInterrupt
        return measure(of, *rest, **fields)

    return evaluate_or_not


@pytest.mark.parametrize("during", ["ocr.data.convert.convert", "ocr.evaluation.evaluate.evaluate"])
def test_a_signal_stops_an_adaptation_that_is_not_training_at_once(
    trained, lines, invoke, last_json, tmp_path: pathlib.Path, monkeypatch, during: str
):
    def signalled(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr(during, signalled)
    done = invoke("ocr_adapt", f"--lines={lines}", f"--init_from={trained.export}", "--export_dir=export")
    assert (done.returncode, last_json(done)) == (143, {"interrupted": True})
    assert not (tmp_path / "export_work" / "run").exists()


@pytest.mark.slow
def test_a_model_learns_new_lines_and_a_new_character_and_keeps_the_old_ones(
    trained, lines, tmp_path: pathlib.Path, monkeypatch, unchecked_exports
):
    monkeypatch.setattr(adapt, "_MIN_STEPS", 240)  # as many on machines of any speed
    fields = {"lines": str(lines), "init_from": str(trained.export), "minutes": 0.1, "old_data": str(trained.records)}
    config = AdaptConfig(**fields, export_dir=str(tmp_path / "export"), split_by="0.2")
    stopped = adapt.adapt(config, lambda: contextlib.nullcontext(lambda: True))
    assert stopped["interrupted"]
    assert not (tmp_path / "export").exists()
    with pytest.raises(InputError, match=r"has another adaptation: keep: saved 1.0, given 2.0$"):
        adapt.adapt(dataclasses.replace(config, keep=2.0, minutes=0.2))
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "evaluate", killed_at(tmp_path / "export" / "1"))
        with pytest.raises(KeyboardInterrupt):
            adapt.adapt(config)
    result = adapt.adapt(config)
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["1"]  # not exported again
    assert result == files.read_json(tmp_path / "export_work" / "report.json")
    assert result["new_characters"] == "#"
    assert result["before"]["cer"] > 0.05  # every eleventh character is new
    assert result["after"]["cer"] < result["before"]["cer"] / 2
    assert result["old_after"]["cer"] < result["old_before"]["cer"] + 0.01
    assert (tmp_path / "export_work" / "after" / "report.html").exists()
    about = files.read_json(pathlib.Path(result["export"]) / "assets.extra" / "model.json")
    averaged, run = (frozen.fingerprint(Workdir(tmp_path / "export_work" / name).load().model) for name in ("averaged", "run"))
    assert about["weights"] == averaged != run
    assert about["made_of"]["init_from"] == files.read_json(trained.export / "1" / "assets.extra" / "model.json")["weights"]
    with pytest.raises(InputError, match="has a finished adaptation"):
        adapt.adapt(config)


def test_what_was_damaged_beside_an_adaptation_is_named_or_passed_over(trained, tmp_path: pathlib.Path):
    other = tmp_path / "export" / "1"
    (other / "assets.extra").mkdir(parents=True)
    (other / "saved_model.pb").touch()
    (other / "assets.extra" / "model.json").write_text("[]")
    assert adapt._find_export(trained.workdir, tmp_path / "export") == ""
    for content in ("[]", "{}", '{"figures": 1}', '{"figures": {}}'):
        (tmp_path / "report.json").write_text(content)
        with pytest.raises(IntegrityError, match=r"report\.json: damaged"):
            adapt._measure("", "", tmp_path)


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"decoder": "greedy"}, {"decoder": "greedy", "turned_lines": False, "reread": False}),  # before there were these
        (
            {"decoder": "beam", "turned_lines": True, "reread": False},
            {"decoder": "beam", "turned_lines": True, "reread": False},
        ),
        (
            {"decoder": "beam", "turned_lines": True, "reread": True, "language": {}},
            {"decoder": "greedy", "turned_lines": True, "reread": True},
        ),
    ],
)
def test_an_adapted_export_reads_as_before_but_for_a_language_model_which_is_said(
    tmp_path: pathlib.Path, caplog, about: dict, expected: dict
):
    (tmp_path / "1" / "assets.extra").mkdir(parents=True)
    (tmp_path / "1" / "saved_model.pb").touch()
    files.write_json(tmp_path / "1" / "assets.extra" / "model.json", about)
    assert adapt._way_of_reading(str(tmp_path), tmp_path / "run", "export") == expected
    assert ("has a language model, which the adapted one lacks" in caplog.text) == ("language" in about)
    said = (
        "--export_dir=export --decoder=beam --lm=FILE --calibrate=RECORDS --turned_lines --reread"  # all that ocr_export needs
    )
    assert (said in caplog.text) == ("language" in about)


def test_an_adaptation_that_cannot_be_made_is_refused(trained, lines, tmp_path: pathlib.Path):
    fields = {"lines": str(lines), "export_dir": str(tmp_path / "export")}
    with pytest.raises(InputError, match="--init_from=/gone: no such folder"):
        adapt.adapt(AdaptConfig(**fields, init_from="/gone"))
    with pytest.raises(InputError, match="none of the 150 lines is for the split eval"):
        adapt.adapt(AdaptConfig(**fields, init_from=str(trained.export), split_by="0.000001"))
    with pytest.raises(InputError, match=r"--export_dir=.*: not a folder"):
        adapt.adapt(AdaptConfig(**fields | {"export_dir": str(lines / "000000.png")}))
    with pytest.raises(InputError, match="--minutes=0: must be"):
        AdaptConfig(**fields, minutes=0)
