"""Examines data on disk, and a training on it."""

import logging
import pathlib
from typing import Any

from ocr import charset as charsets
from ocr.charset import Charset
from ocr.data import dataset, mixture, verify
from ocr.data.dataset import Split
from ocr.data.mixture import Mixture
from ocr.doctor import examine, findings, reference_levels
from ocr.doctor.case import build_case
from ocr.doctor.findings import Finding
from ocr.doctor.watch import Watch
from ocr.evaluation.evaluate import Evaluator
from ocr.images.network_input import FrameSize
from ocr.model import networks
from ocr.model.objective import Objective
from ocr.model.recogniser import Recogniser
from ocr.saving import metrics_file
from ocr.saving.workdir import Trained, Workdir
from tfrecords.errors import InputError, IntegrityError

_LOG = logging.getLogger(__name__)


def diagnose(data: str, workdir: str = "", model: str = "lite") -> dict[str, Any]:
    """Looks for faults of data, or of a training and its data.

    Args:
      data: records, `DIR` or `DIR@split`; the folder's split `train` is examined too.
      workdir: of a training; empty to examine the data alone.
      model: the network that the data is meant for, if there is no workdir.

    Returns:
      What `doctor.json` holds; with a workdir also `standing`, which places the last training loss among the reference levels.
      If the alphabet does not fit the data, the levels are those of an alphabet of the data's own characters.

    Raises:
      InputError: there is no data, or no training.
      IntegrityError: something is damaged.
    """
    trained = Workdir(pathlib.Path(workdir)).load() if workdir else None
    frame = networks.network(trained.config.model if trained else model).frame
    held_out = dataset.find(data, "eval")
    training = _training_data(data, trained, frame)
    known: list[Finding] = []
    charset = trained.charset if trained else _charset_of_records(training.parts[0], known)
    splits = (*training.parts, held_out)
    for split in splits:
        if missing := charset.missing(split.manifest.characters):
            sentence = f"{split.folder} uses {charsets.describe(missing)}, missing from the alphabet of the training."
            known.append(Finding("alphabet_differs", sentence))
    if known:
        charset = Charset("".join(sorted(set().union(*(split.manifest.characters for split in splits)))))
    with verify.report_damage(*splits):
        objective = Objective(trained.model) if trained else None
        case, levels = build_case(objective, charset, training, held_out, frame)
        if not known:  # characters without a class would stop the network
            known += examine.examine(case)
        if not trained or not objective or known:
            return findings.report(levels, known)
        watch = Watch(objective, levels, trained.config.learning_rate, known, write_report=lambda _: None)
        results, _ = Evaluator(Recogniser(trained.model, charset))(case.held_out)
        watch.after_evaluation(results, charset, case.held_out[0])
    losses = metrics_file.metric(pathlib.Path(workdir), "loss")
    return watch.report() | ({"standing": reference_levels.standing(losses[max(losses)], levels)} if losses else {})


def _training_data(data: str, trained: Trained | None, frame: FrameSize) -> Mixture:
    """Returns the data of the training if it is still there, else the split `train` of `data`."""
    if trained:
        try:
            return mixture.mix(trained.config.train_data, frame)
        except InputError as error:
            _LOG.warning("%s; only %s is examined", error, data)
    return mixture.mix(data, frame)


def _charset_of_records(split: Split, known: list[Finding]) -> Charset:
    """Returns the alphabet saved beside records; if it does not fit them, adds a finding and returns their characters."""
    try:
        return charsets.load_charset(split.folder / "charset.txt", split.manifest.charset)
    except IntegrityError as error:
        known.append(Finding("alphabet_differs", f"{error}."))
        return Charset("".join(split.manifest.characters))
