"""Adapts a trained model to new lines: packs them, trains, averages the weights with the model's, exports, and measures."""

import contextlib
import dataclasses
import logging
import pathlib
import shutil
import time
import unicodedata
from collections.abc import Callable
from typing import Any

from ocr import config as configs
from ocr.charset import Charset
from ocr.config import TrainConfig
from ocr.data import convert, dataset, inputs
from ocr.data.convert_config import ConvertConfig
from ocr.evaluation import evaluate
from ocr.model import frozen
from ocr.saving import export, metrics_file, warm_start
from ocr.saving.warm_start import Origin
from ocr.saving.workdir import Workdir
from ocr.serving import saved_model
from ocr.training import train
from ocr.training.adapt_config import AdaptConfig
from tfrecords import files
from tfrecords.errors import InputError, IntegrityError

_LOG = logging.getLogger(__name__)

_PROBE = 20  # steps after which the time of a step is known
_MIN_STEPS = 100  # whatever the time
_EXPORT_S = 30.0  # seconds to write an export and to load it
_OLD_SHARE = 0.3  # of the model's own weights in what is exported
_RECIPE: dict[str, Any] = {
    "batch_size": 16,
    "learning_rate": 0.0003,
    "warmup_steps": 50,
    "ema": 0.99,
    "augment": 0.3,
    "log_every": 10,
    "checkpoint_every": 100,
    "keep_checkpoints": 1,
}
_MAY_CHANGE = ("export_dir", "workdir", "minutes")  # when an adaptation is resumed
_FIGURES = ("lines", "cer", "cer_interval", "line_accuracy")


Stopping = Callable[[], contextlib.AbstractContextManager[Callable[[], bool]]]


def adapt(config: AdaptConfig, stopping: Stopping = lambda: contextlib.nullcontext(lambda: False)) -> dict:
    """Adapts a model, or resumes an adaptation that was stopped.

    Args:
      config: of the adaptation.
      stopping: returns a context for a training, with a function that is called every few steps; once it returns true, the
        training saves and returns. The rest may be interrupted anywhere: what it has finished by then is not done again.

    Returns:
      `export`, the folder written; `new_characters`; `before` and `after`, the figures of the held-out lines, and with
      `old_data` `old_before` and `old_after`; `steps`, `seconds`. The same is in `report.json` in the workdir, beside a folder
      of each of these names with a report. If it was stopped, only `steps`, `seconds` and `interrupted`.

    Raises:
      InputError: the lines, the model or a folder cannot be used, or the workdir has a finished adaptation or another one.
      IntegrityError: something is damaged, or the loss is not finite.
    """
    began = time.monotonic()
    workdir = pathlib.Path(config.workdir or f"{config.export_dir.rstrip('/')}_work")
    if (workdir / "report.json").exists():
        raise InputError(f"--workdir={workdir}: has a finished adaptation; choose another folder")
    if (export_dir := pathlib.Path(config.export_dir)).exists() and not export_dir.is_dir():
        raise InputError(f"--export_dir={export_dir}: not a folder")
    given = {name: value for name, value in dataclasses.asdict(config).items() if name not in _MAY_CHANGE}
    _check_same(workdir, given)
    origin = warm_start.load(config.init_from)
    records, run = str(workdir / "records"), workdir / "run"
    averaged = workdir / "averaged" if config.keep else run
    way_of_reading = _way_of_reading(config.init_from, averaged, config.export_dir)
    new_characters = _pack(config, workdir, origin.charset)
    files.write_json(workdir / "adapt.json", given)
    measured = time.monotonic()
    before = {"before": _measure(config.init_from, records, workdir / "before")}
    twice_s = time.monotonic() - measured  # once more for the averaged weights
    if config.old_data:
        before["old_before"] = _measure(config.init_from, config.old_data, workdir / "old_before")
    evaluation_s = time.monotonic() - measured + twice_s

    def training(steps: int) -> dict:
        fields: dict[str, Any] = {
            "train_data": records,
            "eval_data": records,
            "workdir": str(run),
            "model": origin.model.name,
            "init_from": config.init_from,
            "keep": config.keep,
            "steps": steps,
            "eval_every": max(steps // 2, 1),
        }
        with stopping() as stop:
            trained = train.train(TrainConfig(**fields, **_RECIPE), stop)
            return trained | ({"interrupted": True} if stop() else {})  # it may have been told so after its last step

    steps, trained = _planned_steps(run), {}
    if not steps:
        probed = time.monotonic()
        trained = training(_PROBE)
        if not trained.get("interrupted"):
            step_s, now = _step_s(run), time.monotonic()
            # The longer training needs as long to begin, and everything is measured once more at the end.
            left_s = config.minutes * 60 - (now - began) - (now - probed - _PROBE * step_s) - evaluation_s - _EXPORT_S
            steps = max(_PROBE + int(left_s / step_s), _MIN_STEPS)
            _LOG.info("training for %d steps, so that all is done after %g minutes", steps, config.minutes)
    if not trained.get("interrupted"):
        trained = training(steps)
    if trained.get("interrupted"):
        return {"steps": trained["steps"], "seconds": round(time.monotonic() - began, 1), "interrupted": True}

    if not averaged.exists():
        _average(run, averaged, origin, records)
    exported = _find_export(averaged, export_dir) or export.export(str(averaged), config.export_dir, **way_of_reading)["export"]
    after = {"after": _measure(exported, records, workdir / "after")}
    if config.old_data:
        after["old_after"] = _measure(exported, config.old_data, workdir / "old_after")
    done = {"steps": trained["steps"], "seconds": round(time.monotonic() - began, 1)}
    result = {"export": exported, "new_characters": new_characters, **before, **after, **done}
    files.write_json(workdir / "report.json", result)
    return result


def _check_same(workdir: pathlib.Path, given: dict[str, Any]) -> None:
    """Checks that an adaptation is what was begun in a workdir, whose figures and training are used again."""
    path = workdir / "adapt.json"
    saved = files.read_json(path) if path.exists() else given
    different = [f"{name}: saved {saved.get(name)}, given {value}" for name, value in given.items() if saved.get(name) != value]
    if different:
        raise InputError(f"--workdir={workdir}: has another adaptation: {'; '.join(different)}")


def _pack(config: AdaptConfig, workdir: pathlib.Path, old: Charset) -> str:
    """Packs the lines, with the alphabet of the model and what it lacks; returns the characters that it lacks."""
    files.make_folder(workdir)
    path = workdir / "charset.txt"
    files.write_text(path, Charset("".join(dict.fromkeys(old.characters))).file_text())
    source: dict[str, Any] = {
        "images": config.lines,
        "labels": config.labels,
        "source": config.source,
        "split_by": config.split_by,
        "follow_links": config.follow_links,
    }
    conversion = ConvertConfig(output=str(workdir / "records"), charset=str(path), resume=True, **source)
    # A text with a control character is a mistake: its line is rejected, as one with a character not in the alphabet.
    new = "".join(c for c in old.missing(inputs.characters(conversion)) if unicodedata.category(c) != "Cc")
    files.write_text(path, Charset("".join(dict.fromkeys(old.characters + new))).file_text())
    convert.convert(conversion)
    return new


def _measure(model: str, data: str, report: pathlib.Path) -> dict:
    """Returns the figures of a model, from its report, which is written unless an earlier run has."""
    if not report.exists():
        evaluate.evaluate(pathlib.Path(model), data, report_to=str(report))
    path = report / "report.json"
    try:
        figures = files.read_json(path)["figures"]
        return {name: figures[name] for name in _FIGURES}
    except (LookupError, TypeError) as error:
        raise IntegrityError(f"{path}: damaged, or not of ocr_eval; remove its folder") from error


def _planned_steps(run: pathlib.Path) -> int:
    """Returns for how many steps a training was begun; 0 if it has yet to find out what a step takes."""
    if not Workdir(run).has_checkpoint:
        return 0
    steps = configs.read(run / "config.json")[0].steps
    return steps if steps != _PROBE else 0


def _average(run: pathlib.Path, averaged: pathlib.Path, origin: Origin, records: str) -> None:
    """Writes a workdir with the best weights of a training, averaged with those that it started from, and their figures."""
    trained = Workdir(run).load()
    warm_start.average(trained.model, trained.charset, origin, _OLD_SHARE)
    _, figures = evaluate.evaluate_network(trained.model, trained.charset, dataset.find(records, "eval"))
    figures = {name: figures[name] for name in ("cer", "line_accuracy", "eval_loss")}
    with files.atomic_directory(averaged) as folder:
        for name in ("config.json", "charset.txt"):
            shutil.copy(run / name, folder)
        (folder / "best").mkdir()
        Workdir(folder).keep_best(trained.model, trained.metrics["step"], figures)


def _way_of_reading(source: str, run: pathlib.Path, export_dir: str) -> dict[str, Any]:
    """Returns how an export that is adapted reads, as arguments of `export.export`; none for a workdir.

    A language model is left out, and the log says so: its weight has to be chosen anew, on lines that are not at hand.
    """
    if Workdir(path := pathlib.Path(source)).has_training:
        return {}
    about = files.read_json(saved_model.newest_version(path) / "assets.extra" / "model.json", "decoder")
    ways = {name: about.get(name, False) for name in ("turned_lines", "reread")}  # which older exports lack
    if "language" in about:
        _LOG.warning(
            "%s: has a language model, which the adapted one lacks until it is exported with "
            "ocr_export --workdir=%s --export_dir=%s --decoder=beam --lm=FILE --calibrate=RECORDS%s",
            source,
            run,
            export_dir,
            "".join(f" --{name}" for name, given in ways.items() if given),
        )
    return {"decoder": "greedy" if "language" in about else about["decoder"], **ways}


def _find_export(run: pathlib.Path, export_dir: pathlib.Path) -> str:
    """Returns the version that has the weights of a training, "" if none: a killed process may have written it."""
    versions = saved_model.versions(export_dir) if export_dir.exists() else {}
    weights = frozen.fingerprint(Workdir(run).load().model) if versions else ""
    for folder in versions.values():
        with contextlib.suppress(IntegrityError):  # a model of another kind has no such file
            if files.read_json(folder / "assets.extra" / "model.json").get("weights") == weights:
                return str(folder)
    return ""


def _step_s(run: pathlib.Path) -> float:
    """Returns the seconds of a step: of the last ones, since the first ones take longer."""
    return _RECIPE["batch_size"] / list(metrics_file.metric(run, "lines_per_second").values())[-1]
