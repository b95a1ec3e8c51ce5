"""What the doctor examines: lines to train on and to evaluate, and the training objective."""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from ocr.charset import Charset, repeats
from ocr.data import pipeline
from ocr.data.dataset import Split
from ocr.data.mixture import Mixture
from ocr.doctor import reference_levels
from ocr.images import network_input
from ocr.images.network_input import FrameSize
from ocr.model.objective import Objective

Batch = dict[str, tf.Tensor]

_SAMPLE = 1000  # lines of either kind
_BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Case:
    """What is examined.

    Attributes:
      objective: network and loss, or None to examine the data alone.
      charset: of the labels.
      training: batches to train on, each line once.
      held_out: batches to evaluate, each line once.
      dummy: how the labels of dummy data were drawn, else None: random labels need not match their images.
      lines: size of the training data.
      skipped: how many of these lines are too long for the network.
      zero_ids: how many lines were rejected at conversion because their labels contain the id 0.
    """

    objective: Objective | None
    charset: Charset
    training: Sequence[Batch]
    held_out: Sequence[Batch]
    dummy: dict[str, int] | None = None
    lines: int = 0
    skipped: int = 0
    zero_ids: int = 0


def build_case(
    objective: Objective | None, charset: Charset, data: Mixture, held_out: Split, frame: FrameSize
) -> tuple[Case, dict[str, float]]:
    """Draws a sample of the lines to examine.

    Args:
      objective: network and loss, or None to examine the data alone.
      charset: of the labels.
      data: to train on.
      held_out: to evaluate.
      frame: size of the network's frames.

    Returns:
      The case, and the reference levels of its loss: see `reference_levels.levels`.
    """
    case = Case(
        objective,
        charset,
        training=pipeline.sample(data, charset, _SAMPLE),
        held_out=list(
            pipeline.evaluation_batches(held_out, charset, _BATCH_SIZE, frame.height).take(-(-_SAMPLE // _BATCH_SIZE))
        ),
        dummy=data.dummy,
        lines=data.records,
        skipped=len(data.skipped),
        zero_ids=data.zero_ids,
    )
    levels = reference_levels.levels(_shapes(case, frame), charset.num_classes, data.characters, data.dummy)
    return case, levels


def _shapes(case: Case, frame: FrameSize) -> list[reference_levels.Shape]:
    """Returns the shapes of the training lines that can be aligned."""
    shapes = []
    for batch in case.training:
        frames = network_input.frames(batch["width"].numpy(), frame.width)
        for encoded, count in zip(batch["text"].numpy(), frames, strict=True):
            text = encoded.decode("utf-8")
            shape = reference_levels.Shape(int(count), len(text), repeats(text))
            if text and shape.length + shape.repeats <= shape.frames:
                shapes.append(shape)
    return shapes
