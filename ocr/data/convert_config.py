"""What to pack into records, and how."""

import dataclasses

from ocr.beam import ENGINES
from ocr.charset import CHARSET_HELP
from ocr.options import check_choice, check_given, check_names, check_range, option
from tfrecords.errors import InputError

LIST_SOURCES = ("labels", "paddle", "json", "csv")  # which --labels names
FOLDER_SOURCES = ("gt", "page", "alto", "lmdb", "parquet", "names")


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    """What to pack into records, and how. The flags of `make_tfrecords` have the names of these fields.

    Raises:
      InputError: a value is not allowed.
    """

    output: str = option("", "Folder for the records; it may hold other splits of the same alphabet.")
    images: str = option("", "Folder of the images, that file names are relative to.")
    labels: str = option("", "Labels file, or another list of images and texts: see --source.")
    source: str = option(
        "auto",
        "Where the texts are. In the file --labels: labels, as --label_format says; paddle, PaddleOCR's; json, docTR's; csv, a "
        "table with a header, also with tabs. In --images alone: gt, NAME.gt.txt beside NAME.png; page or alto, XML of whole "
        "pages; lmdb; parquet; names, text_number.png. auto: told by the beginning of the file, or by what the folder has.",
    )
    charset: str = option("", CHARSET_HELP)
    name: str = option("lines", "Name of the data set, the first part of the files' names.")
    split: str = option("train", "Name of the split: train, eval, ...")
    split_by: str = option(
        "",
        "Put some of the lines into a second split, eval. A share, such as 0.1: chosen by a hash of each name, so that a line "
        "stays where it is whatever is added. Or a file with a name, or the beginning of names and *, on each line.",
    )
    corrections: str = option(
        "",
        "File with a line name<TAB>text for each image whose text is another one, or name<TAB> for one to drop: ocr_audit "
        "writes such a file.",
    )
    label_format: str = option(
        "auto",
        "text: name<TAB>text. ids: name id id ... auto: text if the first line that is not empty has a tab; ids if no line has "
        "one and the labels are integers that cannot be texts, as with --charset=chinese_ocr:FILE; else the file is refused.",
    )
    image_format: str = option(
        "keep",
        "keep: PNG and JPEG files unchanged, others as PNG. png: all as PNG. raw: grey pixels of lines --height pixels high.",
    )
    height: int = option(32, "Height in pixels of lines that are stored raw, or of dummy data: the one the network takes.")
    pixels_per_frame: int = option(
        4, "Pixels of scaled width for each frame of the network; labels too long for their frames are rejected."
    )
    num_shards: int = option(0, "Number of shards; 0 for one every 128 MiB.")
    workers: int = option(0, "Number of processes that read images, and of threads that decode them; 0 for one per core.")
    check: str = option(
        "full",
        "full: decode every image. header: read only the size of PNG and JPEG files that are kept unchanged.",
    )
    follow_links: bool = option(
        False,
        "Also read images outside of --images, where links or absolute paths in the labels file lead, as with data that DVC or "
        "git-annex keeps.",
    )
    strict: bool = option(False, "Stop at the first line that cannot be used.")
    resume: bool = option(False, "Resume an interrupted run on the same input; a finished one is left unchanged.")
    engine: str = option("local", "local: this machine. beam: Apache Beam, on the machines of its runner.")
    beam_options: str = option(
        "", "With --engine=beam: its options, a runner among them: '--runner=FlinkRunner --parallelism=16'."
    )

    def __post_init__(self) -> None:
        check_names(self.name, self.split)
        values = dataclasses.asdict(self)
        check_given(output=self.output)
        check_choice(values, label_format=("auto", "ids", "text"), image_format=("keep", "png", "raw"))
        check_choice(values, check=("full", "header"), engine=ENGINES)
        check_choice(values, source=("auto", *LIST_SOURCES, *FOLDER_SOURCES))
        if self.labels and self.source in FOLDER_SOURCES:
            raise InputError(f"--labels: not taken with --source={self.source}, whose texts are in --images")
        if not self.labels and self.source in LIST_SOURCES:
            raise InputError(f"--labels: has to be given with --source={self.source}")
        if self.split_by and self.split == "eval":
            raise InputError("--split=eval: with --split_by it is the name of the other split")
        if self.engine == "beam" and (self.split_by or self.corrections or self.source not in ("auto", "labels")):
            raise InputError("--engine=beam: takes only a labels file, and no --split_by or --corrections")
        if self.beam_options and self.engine == "local":
            raise InputError("--beam_options: taken only with --engine=beam")
        check_range(values, height=(8, 1000), pixels_per_frame=(1, 1000), num_shards=(0, 99_999), workers=(0, 1000))
