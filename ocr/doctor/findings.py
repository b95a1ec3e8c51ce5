"""What the doctor can find: the code of each fault, and how to fix it."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

FIXES = {
    "probabilities_as_logits": "Give the loss the outputs of the last dense layer, without a softmax.",
    "log_epsilon": "Give the loss the outputs of the last dense layer, without softmax, logarithm or epsilon.",
    "blank_index": "Use class C - 1 as the blank in the loss, the labels and the decoder.",
    "labels_shifted": "In labels files count ids from 1; in code use the classes of the alphabet unchanged.",
    "labels_out_of_range": "Use the classes 0 to C - 2 only, and label lengths that exclude the padding.",
    "infeasible_lines": "Remove or widen these lines, or choose a network with narrower frames, such as lite.",
    "frame_mismatch": "Give the loss the frames that the network outputs for each line's width: network_input.frames.",
    "images_alike": "Inspect the images: empty files, one buffer reused for all, or the wrong folder.",
    "images_inverted": "Render or photograph both the same way, or invert one of them before packing.",
    "labels_shuffled": "Compare the labels file with the images: one list may be sorted and the other not.",
    "labels_wrong": "Look at them with ocr_audit --model=WORKDIR, and pack the lines again with the corrections.",
    "blanks_around_texts": "Remove the blanks in the labels file, unless they are to be read, and pack the lines again.",
    "batchnorm_frozen": "Call the network with training=True in the training step, and keep its layers trainable.",
    "dropout_in_eval": "Call the network with training=False to read lines.",
    "rate_high": "Divide --learning_rate by 10 or more.",
    "rate_low": "Multiply --learning_rate by 10 or more.",
    "bad_gradients": "Inspect that layer and those above it for what is disconnected, dead or overflowing.",
    "loss_summed": "Divide the sum of the lines' losses by their number.",
    "collapsed_blank": "Restart with a lower --learning_rate or a longer --warmup_steps; more steps will not help.",
    "forgetting": "Lower --learning_rate, raise --keep, or add lines of the old kind to --train_data.",
    "alphabet_differs": "Use one charset.txt for the data, the training and the export.",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
      code: a key of FIXES.
      sentence: what was observed, and what it does to the training.
      definite: whether the fault certainly spoils the training; otherwise it is only likely, or may be intended.
    """

    code: str
    sentence: str
    definite: bool = True

    @property
    def fix(self) -> str:
        """What to do about it."""
        return FIXES[self.code]

    def __str__(self) -> str:
        return f"{self.code}: {self.sentence} {self.fix}"


def report(levels: Mapping[str, float], findings: Iterable[Finding]) -> dict[str, Any]:
    """Returns what `doctor.json` holds, given the reference levels of the loss and the findings."""
    rows = [{**dataclasses.asdict(finding), "mend": finding.fix} for finding in findings]
    return {"references": dict(levels), "findings": rows}
