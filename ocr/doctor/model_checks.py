"""Checks of a training objective: the network's outputs, the loss, its reduction over a batch, and the gradients."""

import contextlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from ocr import ctc, keras_compat
from ocr.doctor.case import Batch, Case
from ocr.doctor.findings import Finding
from ocr.model.objective import Objective

_TRIAL = 16  # lines that the network is run on
_CERTAIN = 60.0  # a logit that leaves the other classes no probability
_WRONG = 1000.0  # a wrong logit, which should cost about as many nats


def outputs(case: Case) -> Iterator[Finding]:
    """Checks the number of classes, and that a line's logits depend on that line alone."""
    objective, batch = _trial(case)
    logits, _ = objective.logits(batch, training=False)
    classes = int(logits.shape[2])
    if classes != case.charset.num_classes:
        sentence = f"The network has {classes} classes, the alphabet {case.charset.num_classes} including the blank."
        yield Finding("alphabet_differs", sentence)
    largest = float(tf.reduce_max(tf.abs(logits)))
    repeated, _ = objective.logits(batch, training=False)
    difference = float(tf.reduce_max(tf.abs(logits - repeated)))
    if difference > 1e-3 * largest:
        sentence = f"The same lines read twice differ by {difference:.2g}: dropout is active in evaluation."
        yield Finding("dropout_in_eval", sentence)
        return
    part, _ = objective.logits({name: value[:2] for name, value in batch.items()}, training=False)
    difference = float(tf.reduce_max(tf.abs(part - logits[:2])))
    if difference > 1e-2 * largest:
        sentence = f"Lines read in another batch differ by {difference:.2g}: batch norm acts in evaluation as in training."
        yield Finding("dropout_in_eval", sentence)


def loss_function(case: Case) -> Iterator[Finding]:
    """Checks that outputs that are certain and right cost nothing, and outputs that are certain and wrong cost much."""
    objective, batch = _trial(case)
    logits, _ = objective.logits(batch, training=False)
    classes = case.charset.num_classes
    blank = classes - 1
    if int(logits.shape[2]) != classes:
        return
    sums_to_one = bool(tf.reduce_all(tf.abs(tf.reduce_sum(logits, 2) - 1.0) < 1e-3))
    if sums_to_one and float(tf.reduce_min(logits)) >= 0.0:
        if _certain_loss(objective, classes, blank, 1.0) > 1.0:
            sentence = "The network outputs probabilities, but the loss takes logits: a softmax of a softmax is never certain."
            yield Finding("probabilities_as_logits", sentence)
        else:
            sentence = "The loss takes the logarithm of probabilities: where they vanish, so does the gradient."
            yield Finding("log_epsilon", sentence)
        return
    if _is_bounded_log_softmax(objective, batch):
        sentence = "The network outputs log(p + epsilon): where p is smaller than epsilon, no gradient is left."
        yield Finding("log_epsilon", sentence)
        return
    loss = _certain_loss(objective, classes, blank, _CERTAIN)
    if loss > 1.0:
        double_softmax = _certain_loss(_SoftmaxInLoss(objective.model), classes, blank, _CERTAIN)
        if abs(loss - double_softmax) < 0.01 * double_softmax:
            sentence = "The loss applies a softmax before its own softmax, which is then never certain."
            yield Finding("probabilities_as_logits", sentence)
        else:
            used = "class 0" if _certain_loss(objective, classes, 0, _CERTAIN) < 1.0 else "another class"
            sentence = f"The loss uses {used} as the blank, but labels and decoder use class {blank}."
            yield Finding("blank_index", sentence)
    elif _certain_loss(objective, classes, blank, _WRONG, sees_character=False) < 0.2 * _WRONG:
        yield Finding("log_epsilon", "However wrong the logits, the loss is bounded: there is an epsilon in its logarithm.")
    elif classes > 3:
        yield from _loss_arguments(objective, classes)


def frame_counts(case: Case) -> Iterator[Finding]:
    """Compares the frame counts given to the loss with the frames that the network outputs, and with the labels."""
    objective, batch = _trial(case)
    logits, frames = objective.logits(batch, training=False)
    num_frames, columns = int(logits.shape[1]), int(batch["pixels"].shape[2])
    expected = batch["width"].numpy() * num_frames / columns
    worst = int(np.argmax(np.abs(frames.numpy() - expected)))
    given = int(frames[worst])
    if given > num_frames or abs(given - expected[worst]) > 1.5:
        sentence = f"The loss is given {given} frames for a line for which the network outputs {expected[worst]:.0f}."
        yield Finding("frame_mismatch", sentence)
        return
    feasible = ctc.feasible(frames, batch["labels"], batch["label_lengths"]).numpy()
    if not feasible.all():
        sentence = f"{(~feasible).sum()} of {len(feasible)} lines need more frames than the network outputs."
        yield Finding("infeasible_lines", sentence)


def batch_norm(case: Case) -> Iterator[Finding]:
    """Checks that a training step updates the statistics of batch norm."""
    objective, batch = _trial(case)
    with _restored(objective):
        statistics = [weight for weight in objective.model.weights if "/moving_" in keras_compat.path(weight)]
        before = [weight.numpy() for weight in statistics]
        objective.logits(batch, training=True)
        frozen = [
            keras_compat.path(weight)
            for old, weight in zip(before, statistics, strict=True)
            if np.array_equal(old, weight.numpy())
        ]
    if frozen:
        layer = frozen[0].rsplit("/", 1)[0]
        sentence = f"{len(frozen)} of {len(before)} batch norm statistics are not updated in training, {layer} among them."
        yield Finding("batchnorm_frozen", sentence)


def reduction(case: Case) -> Iterator[Finding]:
    """Checks that the objective does not grow with the batch."""
    objective, _ = _trial(case)
    zero, four, eight = (float(objective.reduce(tf.ones([lines]) * nats)) for lines, nats in ((4, 0.0), (4, 9.0), (8, 9.0)))
    if eight - zero > 1.5 * (four - zero):
        sentence = "The objective sums the lines' losses: gradients, and the effect of a learning rate, grow with the batch."
        yield Finding("loss_summed", sentence)


def gradients(case: Case) -> Iterator[Finding]:
    """Looks for weights whose gradients are zero or not finite."""
    objective, batch = _trial(case)
    with _restored(objective), tf.GradientTape() as tape:
        logits, frames = objective.logits(batch, training=True)
        loss = objective.reduce(objective.ctc_loss(logits, frames, batch))
    weights = objective.model.trainable_variables
    zero, not_finite = [], []
    for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
        if gradient is None or not bool(tf.reduce_any(gradient != 0.0)):
            zero.append(keras_compat.path(weight))
        elif not bool(tf.reduce_all(tf.math.is_finite(gradient))):
            not_finite.append(keras_compat.path(weight))
    # A bad gradient spoils those of all layers below: the last layer that has one is the nearest to the cause.
    if not_finite:
        sentence = f"The gradients of {len(not_finite)} weights are not finite, from {not_finite[-1]} down."
        yield Finding("bad_gradients", sentence)
    elif zero:
        sentence = f"The gradients of {len(zero)} of {len(weights)} weights are 0, from {zero[-1]} down."
        yield Finding("bad_gradients", sentence)


def _trial(case: Case) -> tuple[Objective, Batch]:
    """Returns the objective and a batch to run it on."""
    assert case.objective is not None
    return case.objective, {name: value[:_TRIAL] for name, value in case.training[0].items()}


@contextlib.contextmanager
def _restored(objective: Objective) -> Iterator[None]:
    """Restores the network's weights, statistics and dropout state after the block."""
    before = [(variable, tf.identity(variable)) for variable in objective.model.variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


class _SoftmaxInLoss(Objective):
    """The right objective, except that its loss is given probabilities."""

    def ctc_loss(self, logits: tf.Tensor, frames: tf.Tensor, batch: Batch) -> tf.Tensor:
        return super().ctc_loss(tf.nn.softmax(logits), frames, batch)


def _certain_loss(objective: Objective, classes: int, blank: int, logit: float, sees_character: bool = True) -> float:
    """Returns the loss of a label of one character, in nats, given outputs that are certain of one class in each frame.

    Args:
      objective: with the loss to try.
      classes: C.
      blank: class that the outputs use as the blank.
      logit: of the certain class; the others have 0.
      sees_character: whether the first frame shows the character; otherwise all six show the blank.
    """
    character = min(1, classes - 2)
    path = [character if sees_character else blank] + 5 * [blank]
    label = {"labels": tf.constant([[character]]), "label_lengths": tf.constant([1])}
    return float(objective.ctc_loss(logit * tf.one_hot([path], classes), tf.constant([len(path)]), label)[0])


def _is_bounded_log_softmax(objective: Objective, batch: Batch) -> bool:
    """Says whether the network outputs log probabilities that an epsilon bounds, however certain the network."""
    logits, _ = objective.logits(batch, training=False)
    if float(tf.reduce_max(tf.abs(tf.reduce_logsumexp(logits, axis=2)))) > 0.05:
        return False
    kernel = [weight for weight in objective.model.trainable_variables if len(weight.shape) > 1][-1]
    before = tf.identity(kernel)
    kernel.assign(1e4 * before)
    logits, _ = objective.logits(batch, training=False)
    kernel.assign(before)
    return float(tf.reduce_min(logits)) > -_WRONG / 10


def _loss_arguments(objective: Objective, classes: int) -> Iterator[Finding]:
    """Checks that the loss uses the frame counts, label lengths and labels that it is given.

    The outputs are certain and right for two lines, which thus cost nothing: one of three frames, padded with frames and a
    label of another class, and one of six frames.
    """
    blank = classes - 1
    logits = _CERTAIN * tf.one_hot([[blank, blank, 0, 1, 1, 1], [0, blank, 1, blank, blank, blank]], classes)

    def is_costly(rows: list[int], columns: int) -> bool:
        label = {"labels": tf.constant([[0, 1], [0, 1]])[:, :columns], "label_lengths": tf.constant([1, columns])}
        batch = {name: tf.gather(value, rows) for name, value in label.items()}
        nats = objective.ctc_loss(tf.gather(logits, rows), tf.gather([3, 6], rows), batch)
        return float(tf.reduce_max(nats)) > 1.0

    if is_costly([0], columns=1):
        yield Finding("frame_mismatch", "The loss ignores the frame counts it is given: frames beyond a line's end count.")
    elif is_costly([0], columns=2):
        yield Finding("labels_out_of_range", "The loss takes the padding of labels for labels.")
    elif is_costly([0, 1], columns=2):
        yield Finding("labels_shuffled", "The loss does not use each line's own label.")
