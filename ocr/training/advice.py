"""What would help a training most, by its losses: more lines, more steps, or cleaner labels. Advice, not a finding."""

from collections.abc import Mapping

_GAP = 2.0  # held-out loss over training loss from which the network knows its lines better than what they have in common
_GAIN = 0.05  # share of the held-out loss that the last third of the steps has to save for more steps to be worth it


def advise(losses: Mapping[int, float], eval_losses: Mapping[int, float]) -> str:
    """Says what to do next.

    Args:
      losses: training losses by step, in nats a line; augmentation makes them larger than those of the lines themselves.
      eval_losses: losses of the held-out lines by step.

    Returns:
      A sentence; empty if there are fewer than two evaluations to compare.
    """
    if len(eval_losses) < 2 or not losses:
        return ""
    end = max(eval_losses)
    last, training = eval_losses[end], losses[max(losses)]
    before = [loss for step, loss in sorted(eval_losses.items()) if step <= end * 2 / 3] or [eval_losses[min(eval_losses)]]
    gain = 1.0 - last / before[-1] if before[-1] else 0.0
    described = f"the loss is {training:.2f} nats a line in training and {last:.2f} on held-out lines"
    if gain > _GAIN:
        return f"more steps would help most: {described}, {gain:.0%} less than after two thirds of the steps."
    if last > _GAP * training:
        return f"more lines, or a larger --augment, would help most: {described}."
    return f"cleaner labels may help most: {described}, and no longer falls; ocr_eval --report shows what is misread."
