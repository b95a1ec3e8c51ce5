"""Says why a CTC loss does not go down: examines data, network, loss and gradients before the first step is trained."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from ocr import ctc, keras_compat
from ocr.charset import Charset, repeats
from ocr.data import pipeline
from ocr.data.dataset import Mixture, Split
from ocr.doctor import association, reference_levels
from ocr.doctor.findings import Finding
from ocr.images import preprocess
from ocr.model.objective import Objective

Batch = dict[str, tf.Tensor]

SAMPLE = 1000  # lines that are looked at
_BATCH = 32  # of them in a batch
_TRIED = 16  # of them that the network is tried on
_CERTAIN = 60.0  # a logit that leaves the other classes nothing
_WRONG = 1000.0  # nats that a wrong certainty should cost
_FLAT = 8  # grey levels between the darkest and the lightest pixel under which an image is empty
_UNRELATED = 3.0  # standard deviations of association under which texts are not those of their images


@dataclasses.dataclass(frozen=True)
class Case:
    """What is examined.

    Attributes:
      learner: network, loss and objective, or None where only data is looked at.
      charset: of the labels.
      training: batches that are trained on, each line once.
      held_out: batches that are evaluated.
      dummy: how the training data's labels were drawn where they are random: then they need not belong to their images.
      lines: how many the training data has.
      left_out: how many of them are too long for the network.
      zero_ids: how many of its lines were rejected because their labels hold the id 0.
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
    objective: Objective | None, charset: Charset, data: Mixture, held_out: Split, pixels_per_frame: int
) -> tuple[Case, dict[str, float]]:
    """Draws the lines that are examined.

    Args:
      learner: as `Case` has it.
      charset: as `Case` has it.
      data: to train on.
      held_out: to evaluate.
      pixels_per_frame: of the network.

    Returns:
      The case, and the reference levels of the loss: see `references.levels`.
    """
    case = Case(
        objective,
        charset,
        training=pipeline.sample(data, charset, pixels_per_frame, SAMPLE),
        held_out=list(pipeline.evaluation_batches(held_out, charset, _BATCH).take(-(-SAMPLE // _BATCH))),
        dummy=data.dummy,
        lines=data.records,
        skipped=len(data.skipped),
        zero_ids=data.zero_ids,
    )
    return case, reference_levels.levels(_shapes(case, pixels_per_frame), charset.num_classes, data.characters, data.dummy)


def examine(case: Case) -> list[Finding]:
    """Looks for every fault that shows before the first step; weights and statistics are afterwards what they were."""
    checks: list[Callable[[Case], Iterator[Finding]]] = [_images, _polarity, _pairs, _labels, _long_lines]
    if case.objective is not None:
        checks += [_outputs, _loss_function, _frames, _statistics, _objective, _gradients]
    found: dict[str, Finding] = {}
    for check in checks:
        if check is _gradients and any(finding.definite for finding in found.values()):
            continue  # they would only show the same again
        if check is _pairs and "images_alike" in found:
            continue
        for finding in check(case):
            found.setdefault(finding.code, finding)
    return list(found.values())


def _shapes(case: Case, pixels_per_frame: int) -> list[reference_levels.Shape]:
    """Returns what decides the reference lines, of each sampled line that fits."""
    rows = []
    for batch in case.training:
        frames = preprocess.frames(batch["width"].numpy(), pixels_per_frame)
        for text, count in zip(batch["text"].numpy(), frames, strict=True):
            points = text.decode("utf-8")
            shape = reference_levels.Shape(int(count), len(points), repeats(points))
            if points and shape.length + shape.repeats <= shape.frames:
                rows.append(shape)
    return rows


# ---- the data -------------------------------------------------------------------------------------------------------------


def _images(case: Case) -> Iterator[Finding]:
    for where, batches in (("training", case.training), ("evaluation", case.held_out)):
        spread, contents, texts = [], set(), set()
        for batch in batches:
            for pixels, width, text in zip(*(batch[name].numpy() for name in ("pixels", "width", "text")), strict=True):
                own = np.ascontiguousarray(pixels[:, :width])
                spread.append(int(own.max()) - int(own.min()))
                contents.add(own.tobytes())
                texts.add(text)
        empty = float(np.mean(np.array(spread) < _FLAT))
        if empty > 0.02:
            sentence = f"{empty:.0%} of the {where} images are of one grey: their labels cannot be learnt."
            yield Finding("images_alike", sentence, definite=empty > 0.5)
        elif len(texts) > 4 * len(contents):
            yield Finding("images_alike", f"The {len(texts)} {where} labels looked at have {len(contents)} different images.")


def _polarity(case: Case) -> Iterator[Finding]:
    def dark_on_light(batches: Sequence[Batch]) -> float:
        votes = []
        for batch in batches:
            for pixels, width in zip(batch["pixels"].numpy(), batch["width"].numpy(), strict=True):
                low, middle, high = np.percentile(pixels[:, :width], (2, 50, 98))
                if high - low > 4 * _FLAT:
                    votes.append(high - middle < middle - low)
        return float(np.mean(votes)) if len(votes) >= 20 else 0.5

    trained, evaluated = dark_on_light(case.training), dark_on_light(case.held_out)
    if abs(trained - evaluated) > 0.7:
        yield Finding(
            "images_inverted",
            f"{trained:.0%} of the training images are dark on light, but {evaluated:.0%} of the evaluation images.",
            definite=False,
        )


def _pairs(case: Case) -> Iterator[Finding]:
    if case.dummy:
        return
    for where, batches in (("training", case.training), ("evaluation", case.held_out)):
        strength = association.association(batches)
        if strength is not None and strength < _UNRELATED:
            yield Finding(
                "labels_shuffled",
                f"The {where} images say nothing of their texts: what they foretell of them is {strength:.1f} standard "
                "deviations from chance, where 10 and more are usual.",
                definite=False,
            )


def _labels(case: Case) -> Iterator[Finding]:
    """Compares the labels with the texts that they were made of."""
    if case.zero_ids > 0.01 * (case.lines + case.zero_ids):
        yield Finding(
            "labels_shifted",
            f"{case.zero_ids} lines were rejected because they hold the id 0, but ids count from 1: those that are left are "
            "shifted by one if this labels file counts from 0.",
            definite=False,
        )
    for batch in case.training:
        lengths = batch["label_lengths"].numpy()
        texts = [text.decode("utf-8") for text in batch["text"].numpy()]
        if case.charset.missing("".join(texts)):
            continue  # told of the alphabet
        expected = [case.charset.encode(text) for text in texts]  # by other code than made the labels
        labels = [row[:length].tolist() for row, length in zip(batch["labels"].numpy(), lengths, strict=True)]
        if labels == expected:
            continue
        moved = {label - own for a, b in zip(labels, expected, strict=True) for label, own in zip(a, b, strict=False)}
        same_lengths = list(map(len, labels)) == list(map(len, expected))
        outside = [label for row in labels for label in row if not 0 <= label < case.charset.blank]
        if same_lengths and len(moved) == 1:
            sentence = f"Every label is the class of its character {moved.pop():+d}."
            yield Finding("labels_shifted", sentence)
        elif outside:
            most = case.charset.blank - 1
            yield Finding(
                "labels_out_of_range", f"Labels hold {outside[0]}, but characters are 0 to {most}, the blank is {most + 1}."
            )
        else:
            yield Finding("labels_shuffled", "Labels are not the classes of their lines' texts.")
        return


def _long_lines(case: Case) -> Iterator[Finding]:
    if case.skipped > 0.01 * case.lines:
        yield Finding(
            "infeasible_lines",
            f"{case.skipped} of {case.lines} lines have more characters than the network makes frames, and are left out.",
            definite=case.skipped == case.lines,
        )


# ---- the network and its loss ---------------------------------------------------------------------------------------------


def _outputs(case: Case) -> Iterator[Finding]:
    """Looks at what the network gives."""
    objective, batch = _examined(case)
    values, _ = objective.logits(batch, training=False)
    classes = int(values.shape[2])
    if classes != case.charset.num_classes:
        sentence = f"The network has {classes} classes, the alphabet {case.charset.num_classes} with the blank."
        yield Finding("alphabet_differs", sentence)
    again, _ = objective.logits(batch, training=False)
    difference = float(tf.reduce_max(tf.abs(values - again)))
    if difference > 1e-3 * float(tf.reduce_max(tf.abs(values))):
        yield Finding("dropout_in_eval", f"The same lines read twice differ by {difference:.2g}: dropout acts in evaluation.")
        return
    few = {name: value[:2] for name, value in batch.items()}
    apart, _ = objective.logits(few, training=False)
    difference = float(tf.reduce_max(tf.abs(apart - values[:2])))
    if difference > 1e-2 * float(tf.reduce_max(tf.abs(values))):
        sentence = f"Lines read in other company differ by {difference:.2g}: batch norm acts in evaluation as in training."
        yield Finding("dropout_in_eval", sentence)


def _loss_function(case: Case) -> Iterator[Finding]:
    """Follows certainties, right ones and wrong ones, through the last layer and the loss."""
    objective, batch = _examined(case)
    values, _ = objective.logits(batch, training=False)
    classes = case.charset.num_classes
    if int(values.shape[2]) != classes:
        return
    sums_to_one = bool(tf.reduce_all(tf.abs(tf.reduce_sum(values, 2) - 1.0) < 1e-3))
    if sums_to_one and float(tf.reduce_min(values)) >= 0.0:
        if _cost(objective, classes, classes - 1, 1.0) > 1.0:
            sentence = "The network gives probabilities to a loss that takes logits: its softmax of a softmax is never certain."
            yield Finding("probabilities_as_logits", sentence)
        else:
            yield Finding(
                "log_epsilon", "The loss takes the logarithm of probabilities: where they vanish, so does the gradient."
            )
        return
    if _bounded_logarithms(objective, batch):
        yield Finding("log_epsilon", "The network gives log(p + epsilon): where p is less than epsilon, no gradient is left.")
        return
    cost = _cost(objective, classes, classes - 1, _CERTAIN)
    if cost > 1.0:
        twice = _cost(_Softmaxed(objective.model), classes, classes - 1, _CERTAIN)
        if abs(cost - twice) < 0.01 * twice:
            yield Finding(
                "probabilities_as_logits", "The loss takes a softmax before its own softmax, which is then never certain."
            )
        else:
            takes = "class 0" if _cost(objective, classes, 0, _CERTAIN) < 1.0 else "another class"
            sentence = f"The loss takes {takes} for the blank, but labels and decoder take class {classes - 1}."
            yield Finding("blank_index", sentence)
    elif _cost(objective, classes, classes - 1, _WRONG, character_seen=False) < 0.2 * _WRONG:
        yield Finding("log_epsilon", "However wrong the logits, the loss stays bounded: there is an epsilon in its logarithm.")
    elif classes > 3:
        yield from _handed_on(objective, classes)


def _handed_on(objective: Objective, classes: int) -> Iterator[Finding]:
    """Looks whether the loss uses the frames, the lengths and the labels that it is given: two certain lines cost nothing, one
    of three frames, padded with frames and a label of another class, and one of six."""
    blank = classes - 1
    logits = _CERTAIN * tf.one_hot([[blank, blank, 0, 1, 1, 1], [0, blank, 1, blank, blank, blank]], classes)

    def costs(rows: list[int], columns: int) -> bool:
        label = {"labels": tf.constant([[0, 1], [0, 1]])[:, :columns], "label_lengths": tf.constant([1, columns])}
        batch = {name: tf.gather(value, rows) for name, value in label.items()}
        nats = objective.ctc_loss(tf.gather(logits, rows), tf.gather([3, 6], rows), batch)
        return float(tf.reduce_max(nats)) > 1.0

    if costs([0], columns=1):
        yield Finding("frame_mismatch", "The loss does not use the frames that it is told: what lies beyond a line counts.")
    elif costs([0], columns=2):
        yield Finding("labels_out_of_range", "The loss takes the padding of labels for labels.")
    elif costs([0, 1], columns=2):
        yield Finding("labels_shuffled", "The loss does not take each line's own label.")


class _Softmaxed(Objective):
    """A learner of ours whose loss gets probabilities."""

    def ctc_loss(self, logits: tf.Tensor, frames: tf.Tensor, batch: Batch) -> tf.Tensor:
        return super().ctc_loss(tf.nn.softmax(logits), frames, batch)


def _cost(objective: Objective, classes: int, blank: int, scale: float, character_seen: bool = True) -> float:
    """Returns the loss of a label of one character, when the network gives `scale` to what it takes for right: to the
    character in the first frame, or to the blank there as in all the others."""
    character = min(1, classes - 2)
    path = [character if character_seen else blank] + 5 * [blank]
    label = {"labels": tf.constant([[character]]), "label_lengths": tf.constant([1])}
    return float(objective.ctc_loss(scale * tf.one_hot([path], classes), tf.constant([len(path)]), label)[0])


def _bounded_logarithms(objective: Objective, batch: Batch) -> bool:
    """Says whether the network gives logarithms of probabilities that stop at some epsilon, however certain it is made."""
    values, _ = objective.logits(batch, training=False)
    if float(tf.reduce_max(tf.abs(tf.reduce_logsumexp(values, axis=2)))) > 0.05:
        return False
    kernel = [weight for weight in objective.model.trainable_variables if len(weight.shape) > 1][-1]
    before = tf.identity(kernel)
    kernel.assign(1e4 * before)
    values, _ = objective.logits(batch, training=False)
    kernel.assign(before)
    return float(tf.reduce_min(values)) > -_WRONG / 10


def _frames(case: Case) -> Iterator[Finding]:
    """Compares the frames that the loss is told with those that the network makes."""
    objective, batch = _examined(case)
    values, frames = objective.logits(batch, training=False)
    made, columns = int(values.shape[1]), int(batch["pixels"].shape[2])
    own = batch["width"].numpy() * made / columns
    worst = int(np.argmax(np.abs(frames.numpy() - own)))
    told = int(frames[worst])
    if told > made or abs(told - own[worst]) > 1.5:
        sentence = f"The loss is told {told} frames of a line of which the network makes {own[worst]:.0f}."
        yield Finding("frame_mismatch", sentence)
    elif not bool(tf.reduce_all(ctc.feasible(frames, batch["labels"], batch["label_lengths"]))):
        fitting = ctc.feasible(frames, batch["labels"], batch["label_lengths"]).numpy()
        sentence = f"{(~fitting).sum()} of {len(fitting)} lines have more characters than the network makes frames."
        yield Finding("infeasible_lines", sentence)


def _statistics(case: Case) -> Iterator[Finding]:
    """Looks whether batch norm's statistics move in training."""
    objective, batch = _examined(case)
    with _unchanged(objective):
        statistics = [weight for weight in objective.model.weights if "/moving_" in keras_compat.path(weight)]
        before = [weight.numpy() for weight in statistics]
        objective.logits(batch, training=True)
        unmoved = [np.array_equal(old, weight.numpy()) for old, weight in zip(before, statistics, strict=True)]
        still = [keras_compat.path(weight) for weight, same in zip(statistics, unmoved, strict=True) if same]
    if still:
        layer = still[0].rsplit("/", 1)[0]
        sentence = f"{len(still)} of {len(before)} batch norm statistics do not move with the data, {layer} among them."
        yield Finding("batchnorm_frozen", sentence)


def _objective(case: Case) -> Iterator[Finding]:
    """Looks whether twice the lines make twice the objective."""
    objective, _ = _examined(case)
    none, some, twice = (float(objective.reduce(tf.ones([count]) * nats)) for count, nats in ((4, 0.0), (4, 9.0), (8, 9.0)))
    if twice - none > 1.5 * (some - none):
        sentence = "The objective is the sum of the lines' losses: gradients, and what a rate means, grow with the batch."
        yield Finding("loss_summed", sentence)


def _gradients(case: Case) -> Iterator[Finding]:
    """Looks for layers that learn nothing."""
    objective, batch = _examined(case)
    with _unchanged(objective), tf.GradientTape() as tape:
        values, frames = objective.logits(batch, training=True)
        loss = objective.reduce(objective.ctc_loss(values, frames, batch))
    weights = objective.model.trainable_variables
    none, broken = [], []
    for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
        if gradient is None or not bool(tf.reduce_any(gradient != 0.0)):
            none.append(keras_compat.path(weight))
        elif not bool(tf.reduce_all(tf.math.is_finite(gradient))):
            broken.append(keras_compat.path(weight))
    # Where a number is none, all layers below it get none: the last layer is the nearest to the cause.
    if broken:
        yield Finding("bad_gradients", f"The gradients of {len(broken)} weights are not finite, from {broken[-1]} down.")
    elif none:
        yield Finding("bad_gradients", f"The gradients of {len(none)} of {len(weights)} weights are 0, from {none[-1]} down.")


def _examined(case: Case) -> tuple[Objective, Batch]:
    """Returns the learner and a batch that it is tried on."""
    assert case.objective is not None
    return case.objective, {name: value[:_TRIED] for name, value in case.training[0].items()}


@contextlib.contextmanager
def _unchanged(objective: Objective) -> Iterator[None]:
    """Gives a network back its statistics, and the state of its dropout, after the block."""
    before = [(weight, tf.identity(weight)) for weight in objective.model.variables]
    try:
        yield
    finally:
        for weight, value in before:
            weight.assign(value)
