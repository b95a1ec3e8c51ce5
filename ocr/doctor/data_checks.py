"""Checks of the data: images, and labels that match them."""

from collections.abc import Iterator, Sequence

import numpy as np

from ocr.charset import strip_blanks
from ocr.doctor import association
from ocr.doctor.case import Batch, Case
from ocr.doctor.findings import Finding

_MIN_CONTRAST = 8  # grey levels between the darkest and the lightest pixel: an image with less is empty
_MIN_Z_SCORE = 3.0  # of the association between images and texts: with less they are unrelated
_MIN_VOTES = 20  # images with enough contrast to tell dark text on light from light text on dark


def images(case: Case) -> Iterator[Finding]:
    """Looks for empty images, and for one image with many labels."""
    for split, batches in _splits(case):
        contrasts, contents, texts = [], set(), set()
        for batch in batches:
            for pixels, width, text in zip(*(batch[name].numpy() for name in ("pixels", "width", "text")), strict=True):
                line = np.ascontiguousarray(pixels[:, :width])
                contrasts.append(int(line.max()) - int(line.min()))
                contents.add(line.tobytes())
                texts.add(text)
        empty = float(np.mean(np.array(contrasts) < _MIN_CONTRAST))
        if empty > 0.02:
            sentence = f"{empty:.0%} of the {split} images are a single grey: their labels cannot be learned."
            yield Finding("images_alike", sentence, definite=empty > 0.5)
        elif len(texts) > 4 * len(contents):
            sentence = f"The {split} lines sampled have {len(texts)} different labels but {len(contents)} different images."
            yield Finding("images_alike", sentence)


def polarity(case: Case) -> Iterator[Finding]:
    """Compares training and evaluation images: dark text on light, or light text on dark."""
    training, evaluation = (_dark_on_light(batches) for _, batches in _splits(case))
    if abs(training - evaluation) > 0.7:
        yield Finding(
            "images_inverted",
            f"{training:.0%} of the training images are dark on light, but {evaluation:.0%} of the evaluation images.",
            definite=False,
        )


def pairing(case: Case) -> Iterator[Finding]:
    """Tests whether the texts belong to their images."""
    if case.dummy:
        return
    for split, batches in _splits(case):
        z_score = association.z_score(batches)
        if z_score is not None and z_score < _MIN_Z_SCORE:
            yield Finding(
                "labels_shuffled",
                f"The {split} images do not predict their texts: the association is {z_score:.1f} standard deviations from "
                "chance, where 10 or more is usual.",
                definite=False,
            )


def labels(case: Case) -> Iterator[Finding]:
    """Compares labels with the classes of their texts."""
    if case.zero_ids > 0.01 * (case.lines + case.zero_ids):
        yield Finding(
            "labels_shifted",
            f"{case.zero_ids} lines were rejected because they contain the id 0, but ids count from 1: if this labels file "
            "counts from 0, all other labels are off by one.",
            definite=False,
        )
    for batch in case.training:
        texts = [text.decode("utf-8") for text in batch["text"].numpy()]
        expected = [case.charset.encode(text) for text in texts]  # not by the graph, which encoded the labels
        lengths = batch["label_lengths"].numpy()
        rows = [row[:length].tolist() for row, length in zip(batch["labels"].numpy(), lengths, strict=True)]
        if rows != expected:
            yield _wrong_labels(rows, expected, case.charset.blank)
            return


def blanks(case: Case) -> Iterator[Finding]:
    """Looks for texts with blanks at an end, which an image does not show."""
    for split, batches in _splits(case):
        texts = [text.decode("utf-8") for batch in batches for text in batch["text"].numpy()]
        if blank := sum(text != strip_blanks(text) for text in texts):
            sentence = (
                f"{blank} of the {len(texts)} {split} texts sampled begin or end with a blank: the network has to read it, and "
                "every one that it does not read is an error."
            )
            yield Finding("blanks_around_texts", sentence, definite=False)


def long_lines(case: Case) -> Iterator[Finding]:
    """Counts the lines that are too long for the network."""
    if case.skipped > 0.01 * case.lines:
        yield Finding(
            "infeasible_lines",
            f"{case.skipped} of {case.lines} lines need more frames than the network outputs, and are skipped.",
            definite=case.skipped == case.lines,
        )


def _splits(case: Case) -> tuple[tuple[str, Sequence[Batch]], tuple[str, Sequence[Batch]]]:
    return ("training", case.training), ("evaluation", case.held_out)


def _dark_on_light(batches: Sequence[Batch]) -> float:
    """Returns the share of images with dark text on light; 0.5 if too few have contrast."""
    votes = []
    for batch in batches:
        for pixels, width in zip(batch["pixels"].numpy(), batch["width"].numpy(), strict=True):
            low, median, high = np.percentile(pixels[:, :width], (2, 50, 98))
            if high - low > 4 * _MIN_CONTRAST:
                votes.append(high - median < median - low)
    return float(np.mean(votes)) if len(votes) >= _MIN_VOTES else 0.5


def _wrong_labels(rows: list[list[int]], expected: list[list[int]], blank: int) -> Finding:
    """Says in which way the labels of some lines differ from what is expected."""
    shifts = {label - right for a, b in zip(rows, expected, strict=True) for label, right in zip(a, b, strict=False)}
    same_lengths = list(map(len, rows)) == list(map(len, expected))
    if same_lengths and len(shifts) == 1:
        return Finding("labels_shifted", f"Every label is the class of its character {shifts.pop():+d}.")
    if outside := [label for row in rows for label in row if not 0 <= label < blank]:
        sentence = f"Labels contain {outside[0]}, but characters are 0 to {blank - 1}, and {blank} is the blank."
        return Finding("labels_out_of_range", sentence)
    return Finding("labels_shuffled", "Labels are not the classes of their lines' texts.")
