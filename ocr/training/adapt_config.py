"""How a trained model is adapted to new lines."""

import dataclasses

from ocr.options import check_given, check_range, option, required


@dataclasses.dataclass(frozen=True)
class AdaptConfig:
    """An adaptation of a trained model to new lines. The flags of `ocr_adapt` have the names of these fields.

    Raises:
      InputError: a value is not allowed.
    """

    lines: str = required("Folder of the lines' images, with their texts in any of the formats that make_tfrecords reads.")
    export_dir: str = required("Folder of versions, to which the adapted model is exported.")
    labels: str = option("", "Labels file, or another list of images and texts, if the texts are not in --lines.")
    source: str = option("auto", "Where the texts are: see make_tfrecords --help.")
    follow_links: bool = option(False, "Also read images outside of --lines: see make_tfrecords --help.")
    init_from: str = option("pretrained", "Model to adapt: a workdir, an export, or pretrained, the shipped model for Chinese.")
    workdir: str = option("", "New folder for records, training and reports; EXPORT_DIR_work if not given.")
    minutes: float = option(10.0, "How long all of it may take on this machine.")
    split_by: str = option(
        "0.1", "Lines to measure the result with and not to train on: a share, or a file of names: see make_tfrecords --help."
    )
    keep: float = option(
        1.0,
        "Weight of the loss that keeps what the model knows: see ocr_train --help. Unless it is 0, the new weights are "
        "averaged with the model's.",
    )
    old_data: str = option(
        "", "Records of lines that the model was made for, whose split eval is read before and after, and not trained on."
    )

    def __post_init__(self) -> None:
        check_given(lines=self.lines, export_dir=self.export_dir, init_from=self.init_from, split_by=self.split_by)
        check_range(dataclasses.asdict(self), minutes=(0.1, 10_000), keep=(0, 1000))
