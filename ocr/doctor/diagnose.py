"""Has the doctor look at data, and at a training, that lie on disk."""

import pathlib
import sys

from ocr import charset as charsets
from ocr.charset import Charset
from ocr.data import dataset
from ocr.data.dataset import Mixture, Split
from ocr.doctor import examine, findings, reference_levels
from ocr.doctor.findings import Finding
from ocr.doctor.watch import Watch
from ocr.evaluation.evaluate import Evaluator
from ocr.model import networks
from ocr.model.objective import Objective
from ocr.model.recogniser import Recogniser
from ocr.saving import workdir as workdirs
from ocr.saving.workdir import Trained, Workdir
from tfrecords.errors import InputError, IntegrityError


def diagnose(data: str, workdir: str = "", model: str = "lite") -> dict:
    """Says what is wrong with data, or with a training and its data.

    Args:
      data: records, `DIR` or `DIR@split`; of a folder with a split `train` that is looked at too.
      workdir: of a training, or empty to look at the data alone.
      model: the network that the data is to be trained with, where there is no workdir.

    Returns:
      What `doctor.json` holds; with a workdir `standing` too, which says where the last training loss stands.

    Raises:
      InputError: there is no data, or no training.
      IntegrityError: something is damaged.
    """
    trained = Workdir(pathlib.Path(workdir)).load() if workdir else None
    if trained:
        model = trained.config.model
    held_out = dataset.find(data, "eval")
    pixels_per_frame = networks.network(model).pixels_per_frame
    training = _training(data, trained, pixels_per_frame)
    found: list[Finding] = []
    charset = trained.charset if trained else _saved_with(training.parts[0], found)
    for lines in (*training.parts, held_out):
        if lacking := charset.missing(lines.manifest.characters):
            sentence = f"{lines.folder} uses {charsets.describe(lacking)}, which the alphabet of the training lacks."
            found.append(Finding("alphabet_differs", sentence))
    with dataset.naming_damage(*training.parts, held_out):
        objective = Objective(trained.model) if trained else None
        case, levels = examine.build_case(objective, charset, training, held_out, pixels_per_frame)
        if not found:  # labels that are none would stop the network
            found += examine.examine(case)
        if not trained or not case.objective or found:
            return findings.report(levels, found)
        watch = Watch(case.objective, levels, trained.config.learning_rate, found, keep=lambda _: None)
        readings, _ = Evaluator(Recogniser(trained.model, charset))(case.held_out)
        watch.after_evaluation(readings, charset, case.held_out[0])
    losses = workdirs.losses(pathlib.Path(workdir))
    return watch.report() | ({"standing": reference_levels.standing(losses[max(losses)], levels)} if losses else {})


def _training(data: str, trained: Trained | None, pixels_per_frame: int) -> Mixture:
    """Returns what was trained on, or the split `train` of the data."""
    if trained:
        try:
            return dataset.mix(trained.config.train_data, pixels_per_frame)
        except InputError as error:
            print(f"{error}; looking at {data} alone", file=sys.stderr)
    return dataset.mix(data, pixels_per_frame)


def _saved_with(lines: Split, found: list[Finding]) -> Charset:
    path = lines.folder / "charset.txt"
    try:
        return charsets.load_charset(path, lines.manifest.charset)
    except IntegrityError as error:
        found.append(Finding("alphabet_differs", f"{error}."))
        return charsets.Charset("".join(lines.manifest.characters))
