"""The network that a training evaluates: a copy of the one it trains, with the weights that an export would have."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from PIL import Image

from ocr.charset import Charset
from ocr.evaluation import metrics, picture
from ocr.evaluation.evaluate import Evaluator
from ocr.evaluation.metrics import LineResult
from ocr.model import frozen, networks
from ocr.model.recogniser import Recogniser
from ocr.training.state import State

_PICTURE_LINES = 10


class EvalModel:
    """Evaluates a training on held-out lines. Its weights are also those kept as the best.

    Args:
      model: network of its own, of the same architecture as the one that is trained.
      charset: alphabet of its classes.
      batches: held-out lines, each once.

    Attributes:
      model: as given.
    """

    def __init__(self, model: keras.Model, charset: Charset, batches: tf.data.Dataset):
        self.model, self._charset, self._batches = model, charset, batches
        self._evaluator = Evaluator(Recogniser(model, charset))

    def sync(self, state: State) -> None:
        """Takes over the weights of the network that is trained: averaged if there is an average, and rounded as an export."""
        sources = state.optimizer.averaged + networks.statistics(state.model)
        targets = networks.weights(self.model) + networks.statistics(self.model)
        for target, source in zip(targets, sources, strict=True):
            target.assign(frozen.rounded(source))

    def evaluate(self) -> tuple[list[LineResult], dict[str, Any]]:
        """Reads all held-out lines.

        Returns:
          The result of each line; and `eval_loss` (None if no line can be aligned), `cer` and `line_accuracy`.

        Raises:
          IntegrityError: the loss is NaN, so the weights are unusable.
        """
        results, loss = self._evaluator(self._batches)
        measured = metrics.measures(results)
        return results, {"eval_loss": loss, "cer": measured["cer"], "line_accuracy": measured["line_accuracy"]}

    def read_with(self, model: keras.Model) -> list[LineResult]:
        """Reads all held-out lines with another network of the same classes; returns the result of each line."""
        results, _ = Evaluator(Recogniser(model, self._charset))(self._batches)
        return results


def draw(results: Sequence[LineResult], batch: dict[str, tf.Tensor], font: str) -> bytes:
    """Draws the first lines of an evaluation: image, text read, and the true text where it differs.

    Args:
      results: of the evaluation.
      batch: the first held-out lines.
      font: font file for the texts, or empty.

    Returns:
      A PNG file.
    """
    rows = []
    shown = zip(results[:_PICTURE_LINES], batch["pixels"].numpy(), batch["width"].numpy(), strict=False)
    for result, pixels, width in shown:
        note = "" if result.text == result.truth else result.truth
        rows.append((Image.fromarray(pixels[:, :width]), result.text, note))
    return picture.draw(rows, font)
