"""Faults to plant in a training: wrong objectives, and wrong files."""

import pathlib
import shutil
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from keras import layers
from PIL import Image, ImageOps

from ocr.data import convert
from ocr.data.convert_config import ConvertConfig
from ocr.model.objective import Objective
from ocr.synthesis import render


class Probabilities(Objective):
    def logits(self, batch, training):
        values, frames = super().logits(batch, training)
        return tf.nn.softmax(values), frames


class SoftmaxInLoss(Objective):
    def ctc_loss(self, logits, frames, batch):
        return super().ctc_loss(tf.nn.softmax(logits), frames, batch)


class LogOfProbabilities(Objective):
    def logits(self, batch, training):
        values, frames = super().logits(batch, training)
        return tf.math.log(tf.nn.softmax(values) + 1e-7), frames


class KerasBackend(Probabilities):
    """Like `K.ctc_batch_cost`: the network outputs probabilities, and the loss takes their logarithm."""

    def ctc_loss(self, logits, frames, batch):
        return super().ctc_loss(tf.math.log(logits + 1e-7), frames, batch)


class LogInLoss(Objective):
    def ctc_loss(self, logits, frames, batch):
        return super().ctc_loss(tf.math.log(tf.nn.softmax(logits) + 1e-7), frames, batch)


class BlankFirst(Objective):
    def ctc_loss(self, logits, frames, batch):
        args = batch["labels"], logits, batch["label_lengths"], frames
        return tf.nn.ctc_loss(*args, logits_time_major=False, blank_index=0)


class HalfTheFrames(Objective):
    def logits(self, batch, training):
        values, frames = super().logits(batch, training)
        return values, frames // 2


class TooManyFrames(Objective):
    def logits(self, batch, training):
        values, _ = super().logits(batch, training)
        return values, batch["width"]


class HalfTheFramesInLoss(Objective):
    def ctc_loss(self, logits, frames, batch):
        return super().ctc_loss(logits, frames // 2, batch)


class PaddingIsLabels(Objective):
    def ctc_loss(self, logits, frames, batch):
        padded = tf.fill(tf.shape(batch["label_lengths"]), tf.shape(batch["labels"])[1])
        return super().ctc_loss(logits, frames, {**batch, "label_lengths": padded})


class NextLinesLabels(Objective):
    def ctc_loss(self, logits, frames, batch):
        moved = {name: tf.roll(batch[name], 1, 0) for name in ("labels", "label_lengths")}
        return super().ctc_loss(logits, frames, {**batch, **moved})


class NeverTrains(Objective):
    def logits(self, batch, training):
        return super().logits(batch, training=False)


class AlwaysTrains(Objective):
    def logits(self, batch, training):
        return super().logits(batch, training=True)


class Summed(Objective):
    def reduce(self, nats):
        return tf.add_n([tf.reduce_sum(nats), *self.model.losses])


class BrokenGradient(Objective):
    def ctc_loss(self, logits, frames, batch):
        return super().ctc_loss(logits, frames, batch) + tf.sqrt(0.0 * tf.reduce_sum(logits))


# Objective, the code of its fault, and the network that it is planted in.
OBJECTIVES = [
    (Summed, "loss_summed", "lite"),
    (Probabilities, "probabilities_as_logits", "lite"),
    (SoftmaxInLoss, "probabilities_as_logits", "lite"),
    (LogOfProbabilities, "log_epsilon", "lite"),
    (KerasBackend, "log_epsilon", "lite"),
    (LogInLoss, "log_epsilon", "lite"),
    (BlankFirst, "blank_index", "lite"),
    (HalfTheFrames, "frame_mismatch", "lite"),
    (TooManyFrames, "frame_mismatch", "lite"),
    (HalfTheFramesInLoss, "frame_mismatch", "lite"),
    (PaddingIsLabels, "labels_out_of_range", "lite"),
    (NextLinesLabels, "labels_shuffled", "lite"),
    (AlwaysTrains, "dropout_in_eval", "lite"),
    (NeverTrains, "batchnorm_frozen", "lite"),
    (AlwaysTrains, "dropout_in_eval", "cnn"),
    (BrokenGradient, "bad_gradients", "lite"),
]


def stop_gradient(network: Callable) -> Callable:
    """Returns a network whose last layer passes no gradient on to those below."""
    return lambda *args: layers.Lambda(tf.stop_gradient)(network(*args))


def draw(folder: pathlib.Path, count: int, seed: int, **fields) -> pathlib.Path:
    """Renders lines of digits into a folder."""
    drawing = {"charset": "digits", "width": 112, "min_chars": 2, "max_chars": 6, **fields}
    render.render(render.RenderConfig(output=str(folder), count=count, seed=seed, **drawing))
    return folder


def pack(folder: pathlib.Path, split: str = "train", charset: str = "digits") -> None:
    """Packs lines into the folder `records` beside theirs."""
    packing = {"images": str(folder), "labels": str(folder / "labels.txt"), "charset": charset}
    convert.convert(ConvertConfig(output=str(folder.parent / "records"), split=split, **packing))


def relabel(folder: pathlib.Path, change: Callable[[list[list[str]]], list[str]]) -> None:
    """Rewrites the labels file; `change` takes its rows, name and text, and returns the new lines."""
    rows = [line.split("\t") for line in (folder / "labels.txt").read_text("utf-8").splitlines()]
    (folder / "labels.txt").write_text("".join(f"{line}\n" for line in change(rows)), "utf-8")


# Fault of the files, and whether its finding is definite.
FILES = [
    ("labels_shuffled", False),
    ("labels_shifted", False),
    ("images_alike", True),
    ("images_inverted", False),
    ("blanks_around_texts", False),
]


def plant(code: str, training: pathlib.Path, held_out: pathlib.Path, seed: int) -> None:
    """Plants one of `FILES` in the lines to train on or in those to evaluate."""
    if code == "labels_shuffled":
        order = np.random.default_rng(seed).permutation(600)
        relabel(training, lambda rows: [f"{rows[i][0]}\t{rows[j][1]}" for i, j in enumerate(order)])
    elif code == "labels_shifted":  # ids that count from 0
        relabel(training, lambda rows: [" ".join([name, *text]) for name, text in rows])
    elif code == "blanks_around_texts":  # in every hundredth line to evaluate
        relabel(held_out, lambda rows: [f"{name}\t{text}{'' if i % 100 else ' '}" for i, (name, text) in enumerate(rows)])
    elif code == "images_alike":
        first, *others = sorted(training.glob("*.png"))
        for other in others:
            shutil.copy(first, other)
    elif code == "images_inverted":
        for path in held_out.glob("*.png"):
            ImageOps.invert(Image.open(path)).save(path)
