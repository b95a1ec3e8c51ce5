"""Reproduces the puzzle of confusing-ctc: one network, five ways to train it, and the loss at which each gets stuck."""

import dataclasses
import importlib.util
import io
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ocr import charset as charsets
from ocr.config import TrainConfig
from ocr.data import dummy, mixture, pipeline
from ocr.doctor import examine
from ocr.doctor.case import build_case
from ocr.model import networks
from ocr.model.objective import Objective
from ocr.progress import Progress
from ocr.training import devices, optimizer
from ocr.training.steps import Steps
from tfrecords import files
from tfrecords.errors import InputError

_CLASSES, _RECORDS, _BATCH, _LAST = 3000, 2000, 4, 50
_SEED = 1
_EVERY = 10  # steps for each point of the curves
EXPLANATION = (
    "A CTC loss applies softmax itself, so feed it logits.",
    "The TensorFlow version fed it probabilities: after a second softmax no class can exceed e / (e + C - 1), which puts a "
    "floor just below the untrained loss.",
    "The Keras version fed it log(softmax + 1e-7): this undoes the softmax, but where a label's probability is below 1e-7 the "
    "gradient vanishes, so the loss may stop where each label costs ln 1e7 = 16.1.",
    "Frozen batch norm and a summed loss were faults too, but not the cause.",
    "Fed with logits, the same network reaches the entropy of random labels and no less: 'about 50' was the best possible.",
)


class Way(NamedTuple):
    """One way to train.

    Attributes:
      feed: what the loss is fed, from logits.
      trains: whether batch norm and dropout act as in training.
      summed: whether the losses of lines are summed rather than averaged.
    """

    feed: Callable[[tf.Tensor], tf.Tensor]
    trains: bool = True
    summed: bool = False


WAYS: Mapping[str, Way] = {
    "its TensorFlow way: softmax, batch norm frozen, summed": Way(tf.nn.softmax, trains=False, summed=True),
    "softmax, batch norm training": Way(tf.nn.softmax),
    "its Keras way: log(softmax + 1e-7), batch norm training": Way(lambda x: tf.math.log(tf.nn.softmax(x) + 1e-7)),
    "log(softmax + 1e-7), batch norm frozen, summed": Way(
        lambda x: tf.math.log(tf.nn.softmax(x) + 1e-7), trains=False, summed=True
    ),
    "logits, batch norm training": Way(tf.identity),
}


class _WayObjective(Objective):
    """The training objective of one of the ways."""

    def __init__(self, model: keras.Model, way: Way):
        super().__init__(model)
        self._way = way

    def logits(self, batch: dict[str, tf.Tensor], training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        values, frames = super().logits(batch, training and self._way.trains)
        return self._way.feed(values), frames

    def reduce(self, line_losses: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(line_losses) if self._way.summed else super().reduce(line_losses)


def reproduce(output: str, steps: int, stop: Callable[[], bool] = lambda: False) -> dict:
    """Trains the network of confusing-ctc on its dummy data in five ways, and plots the losses.

    Args:
      output: folder to create, for the data, `curves.json` and `curves.png`.
      steps: of each way, of 4 lines each.
      stop: called every few steps; once it returns true, training ends and no curves are written.

    Returns:
      `references`, the reference levels; and `ways`, each with `settles_at`, the mean loss of the last 50 steps in nats, and
      `findings`, the codes of the doctor's findings.

    Raises:
      InputError: the folder exists already, there are too few steps, or matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("--reproduce: needs matplotlib, which is not installed: pip install 'line-ocr[plots]'")
    if steps < 2 * _LAST:
        raise InputError(f"--steps={steps}: must be {2 * _LAST} or more")
    with files.atomic_directory(pathlib.Path(output)) as folder:
        dummy.convert(str(folder / "data"), _RECORDS, _CLASSES)
        frame = networks.network("cnn").frame
        data = mixture.mix(str(folder / "data"), frame)
        charset = charsets.load_charset(folder / "data" / "charset.txt", data.parts[0].manifest.charset)
        case, levels = build_case(None, charset, data, data.parts[0], frame)
        curves, results = {}, {}
        for name, way in WAYS.items():
            keras.utils.set_random_seed(_SEED)
            objective = _WayObjective(networks.build("cnn", charset.num_classes), way)
            findings = examine.examine(dataclasses.replace(case, objective=objective))
            batches = pipeline.training_batches(data, charset, _BATCH, _SEED)
            curves[name] = _curve(objective, iter(batches), steps, name, stop)
            settled = float(np.mean(curves[name][-_LAST // _EVERY :])) if curves[name] else None
            results[name] = {"settles_at": settled and round(settled, 1), "findings": [finding.code for finding in findings]}
        if not stop():
            files.write_json(folder / "curves.json", {"references": levels, "every": _EVERY, "curves": curves})
            files.write_bytes(folder / "curves.png", draw(curves, levels))
    return {"references": levels, "ways": results}


def _curve(
    objective: Objective, batches: Iterator[dict[str, tf.Tensor]], steps: int, name: str, stop: Callable[[], bool]
) -> list[float]:
    """Trains one way; returns the mean loss of every ten steps."""
    config = TrainConfig("-", "-", "-", optimizer="adam", learning_rate=0.0005, schedule="constant", clip_norm=0.0)
    training_steps = Steps(objective, optimizer.build(config, objective.model, _RECORDS), devices.find("one"), _BATCH)
    curve: list[float] = []
    with Progress(name, steps, "steps") as bar:
        for done in range(_EVERY, steps + 1, _EVERY):
            if stop():
                break
            training_steps.run(batches, tf.constant(_EVERY, tf.int64))
            totals = training_steps.totals()
            training_steps.reset_totals()
            curve.append(totals.nats / totals.lines)
            bar.update(done, f"loss {curve[-1]:.1f}")
    return curve


def draw(curves: Mapping[str, list[float]], levels: Mapping[str, float]) -> bytes:
    """Plots loss curves and the reference levels; returns a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for (name, curve), style in zip(curves.items(), ("-", "--", "-", "--", "-"), strict=False):
        steps = np.arange(1, len(curve) + 1) * _EVERY
        axes.plot(steps, curve, style, linewidth=1.8, label=f"{name}: {np.mean(curve[-_LAST // _EVERY :]):.0f}")
    for name, level in levels.items():
        if name != "blank":  # next to the entropy where images say nothing
            axes.axhline(level, color="#888888", linewidth=0.8, linestyle=":")
            axes.annotate(f"{name.replace('_', ' ')} {level:.0f}", (1.01, level), xycoords=("axes fraction", "data"),
                          va="center", fontsize=9, color="#555555")  # fmt: skip
    axes.set(xlabel="step of 4 lines", ylabel="CTC loss, nats a line", ylim=(0, None))
    axes.legend(loc="center right", bbox_to_anchor=(1.0, 0.42), fontsize=9, framealpha=0.95)
    axes.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()
