"""What the doctor can find: each fault's code, what it does to a CTC training, and how it is mended."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

FIXES = {
    "probabilities_as_logits": "Give the loss what the last dense layer gives, without a softmax.",
    "log_epsilon": "Give the loss what the last dense layer gives, without softmax, logarithm or epsilon.",
    "blank_index": "Use class C - 1 for the blank in the loss, in the labels and in the decoder.",
    "labels_shifted": "Count the ids of labels from 1 in labels files; in code take the classes of the alphabet as they are.",
    "labels_out_of_range": "Give labels the classes 0 to C - 2 only, and their lengths without padding.",
    "infeasible_lines": "Leave these lines out, widen them, or take a network with narrower frames, such as lite.",
    "frame_mismatch": "Give the loss as many frames as the network makes of each line's width: images.frames.",
    "images_alike": "Look at the images: files that are empty, one buffer used again and again, or a wrong folder.",
    "images_inverted": "Draw or photograph both the same way, or invert one of them, before they are packed.",
    "labels_shuffled": "Compare the labels file with the images: a sorted list may have met an unsorted one.",
    "batchnorm_frozen": "Call the network with training=True in the training step, and leave its layers trainable.",
    "dropout_in_eval": "Call the network with training=False where lines are read.",
    "rate_high": "Divide --learning_rate by 10 or more.",
    "rate_low": "Multiply --learning_rate by 10 or more.",
    "bad_gradients": "Look at that layer: what is cut off, dead or overflowing in it or above it.",
    "loss_summed": "Divide the sum of the lines' losses by their number.",
    "collapsed_blank": "Start anew with a lower --learning_rate or a longer --warmup_steps; more steps will not help.",
    "alphabet_differs": "Use one charset.txt for the data, the training and the export.",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
      code: of MENDS.
      sentence: what was seen, and what it does.
      definite: whether training is pointless with it; else it is only likely, or may be meant.
    """

    code: str
    sentence: str
    definite: bool = True

    @property
    def fix(self) -> str:
        return FIXES[self.code]

    def __str__(self) -> str:
        return f"{self.code}: {self.sentence} {self.fix}"


def report(references: Mapping[str, float], findings: Iterable[Finding]) -> dict[str, Any]:
    """Returns what `doctor.json` holds."""
    told = [{**dataclasses.asdict(finding), "mend": finding.fix} for finding in findings]
    return {"references": dict(references), "findings": told}
