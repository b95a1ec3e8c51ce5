"""Finds wrong labels: those that are far less probable, given the image, than the text that is read."""

import math
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ocr.data import pipeline
from ocr.data.dataset import Split
from ocr.evaluation import audit_html, evaluate, metrics
from ocr.evaluation.metrics import LineResult
from ocr.model.recogniser import Recogniser
from ocr.progress import Progress
from ocr.saving import export
from ocr.saving.workdir import Workdir
from ocr.serving import saved_model
from ocr.serving.saved_model import Export
from tfrecords import files

_LIKELY = 0.5  # probability from which a label is proposed to be corrected
_MAX_SHOWN = 300  # lines on the page
_ALTERNATIVES = 100  # labels that may be wrong in the place of a text, for each edit between the two
_FIRST_SHARE, _SHARES = 0.01, (1e-6, 0.5)  # of wrong labels: where its estimation begins, and between what it stays
_ROUNDS = 100  # of this estimation


def open_model(path: pathlib.Path) -> Export:
    """Opens an export, or the best weights of a training as if they were exported.

    Raises:
      InputError: there is no model.
      IntegrityError: it is damaged.
    """
    if not Workdir(path).has_training:
        return saved_model.load(path)
    trained = Workdir(path).load()
    module = tf.Module()
    module.signatures = export.signatures(Recogniser(trained.model, trained.charset))
    return Export(module)


def read(model: Export, split: Split, batch_size: int = 32) -> list[LineResult]:
    """Reads the lines of a split, and asks how probable their labels are.

    Where label and text differ, both are asked about in the image as it is shown, in whatever way the export has read it.

    Returns:
      The result of each line in order, with its `log_probability`.

    Raises:
      InputError: the export lacks the signature `score`.
      IntegrityError: a record is damaged.
    """
    results: list[LineResult] = []
    with Progress("reading", split.manifest.records, "lines") as bar:
        for batch in pipeline.image_files(split, batch_size):
            lines = evaluate.read_files(model, split, batch)
            encoded = batch["encoded"].numpy()
            differing = [n for n, line in enumerate(lines) if line.text != line.truth]
            lines = [line._replace(log_probability=_log(line.confidence)) for line in lines]
            scores = model.score([encoded[n] for n in differing], [[lines[n].truth, lines[n].text] for n in differing])
            for n, score in zip(differing, scores, strict=True):
                label, text = map(float, score.log_probability)
                lines[n] = lines[n]._replace(log_probability=label)
                if lines[n].text:
                    lines[n] = lines[n]._replace(confidence=math.exp(text))
            results += lines
            bar.update(len(results))
    return results


def wrong_probabilities(lines: Sequence[LineResult]) -> np.ndarray:
    """Estimates for each label the probability that it is wrong.

    By Bayes's rule: a label that is right has the probability that the model gives it. One that is wrong stands where the text
    that is read should, and is one of many others, equally probable: 100 for each edit between the two. What is left to know
    is the share of wrong labels, which is the mean of these probabilities: it is found by the EM algorithm (Dempster, Laird
    and Rubin, 1977).

    Args:
      lines: with their `log_probability`.

    Returns:
      float64[lines]; 0 where the label is read, 1 where an image is blank and its label is not, and NaN where the model can
      never read the label, so that it says nothing about it.
    """
    label = np.array([line.log_probability for line in lines], np.float64)
    text = np.array([_log(line.confidence) for line in lines], np.float64)
    edits = metrics.edit_distances([line.truth for line in lines], [line.text for line in lines])
    blank = (text == -math.inf) & (edits > 0) & np.array([not line.text for line in lines], bool)
    judged = np.isfinite(label) & np.isfinite(text)
    evidence = np.where(judged, text - np.where(judged, label, 0.0), 0.0) - edits * math.log(_ALTERNATIVES)
    share, wrong = _FIRST_SHARE, np.zeros(len(lines))
    for _ in range(_ROUNDS if judged.any() else 0):
        odds = np.clip(evidence + math.log(share / (1 - share)), -700, 700)
        wrong = np.where(edits > 0, 1 / (1 + np.exp(-odds)), 0.0)
        share = float(np.clip(wrong[judged].mean(), *_SHARES))
    return np.where(blank, 1.0, np.where(judged, wrong, math.nan))


def write(folder: pathlib.Path, title: str, lines: Sequence[LineResult], split: Split) -> dict:
    """Writes what an audit shows.

    Args:
      folder: to write to: `audit.html`, a page of the lines whose labels are most likely wrong; `audit.tsv`, all lines that
        were judged in that order; and `corrections.tsv`, what `make_tfrecords --corrections` takes: the text that was read
        for each label that is more likely wrong than right.
      title: of the page.
      lines: all lines of the split.
      split: the records.

    Returns:
      `lines`; `not_judged`, the number of those whose labels the model can never read; `corrections`, the number of lines of
      that file; and `wrong_share`, the estimated share of wrong labels.
    """
    wrong = wrong_probabilities(lines)
    edits = metrics.edit_distances([line.truth for line in lines], [line.text for line in lines])
    judged = [n for n, p in enumerate(wrong) if not math.isnan(p)]
    order = sorted(judged, key=lambda n: (-wrong[n], lines[n].log_probability))
    likely = [n for n in order if wrong[n] >= _LIKELY]
    shown = [n for n in order if edits[n]][:_MAX_SHOWN]
    summary = {
        "lines": len(lines),
        "not_judged": len(lines) - len(judged),
        "corrections": len(likely),
        "wrong_share": round(float(wrong[judged].mean()), 6) if judged else None,
    }
    rows = ["name\twrong\tlabel\tread\tlog_probability\tread_log_probability\n"]
    for n in order:
        line = lines[n]
        cells = map(files.escape_cell, (line.filename, f"{wrong[n]:.4f}", line.truth, line.text))
        rows.append("\t".join((*cells, f"{line.log_probability:.3f}", f"{_log(line.confidence):.3f}")) + "\n")
    files.write_text(folder / "audit.tsv", "".join(rows))
    corrections = (f"{files.escape_cell(lines[n].filename)}\t{lines[n].text}\n" for n in likely)
    files.write_text(folder / "corrections.tsv", "".join(corrections))
    images = evaluate.lines_as_png(split, 32, set(shown))
    page = audit_html.draw(title, summary, [(n, lines[n], float(wrong[n])) for n in shown], images)
    files.write_text(folder / "audit.html", page)
    return summary


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf
