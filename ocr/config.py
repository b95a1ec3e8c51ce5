"""Configurations: one frozen object for each job, checked where it is made. A training's is saved beside its results."""

import dataclasses
import pathlib
import re
from typing import Any

from ocr import addons, version_policy
from ocr.options import check_choice, check_given, check_names, check_range, option, required
from tfrecords import files
from tfrecords.errors import InputError, IntegrityError

OPTIMIZERS = ("adam", "adamw", "sgd", "lamb", "muon")
SCHEDULES = ("constant", "cosine", "exponential", "epoch_decay")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
STRATEGIES = ("auto", "one", "mirrored", "multiworker")
TRAINERS = ("loop", "keras")
AUGMENTERS = ("ours", "tfa")
LIST_SOURCES = ("labels", "paddle", "json", "csv")  # which --labels names
FOLDER_SOURCES = ("gt", "page", "alto", "lmdb", "parquet", "names")
ENGINES = ("local", "beam")
FINGERPRINTS = ("alphabet", "train_data", "eval_data")  # of what goes into a training
CHARSET_HELP = (
    "Alphabet: digits, alnum, ascii, gb2312, pretrained, chinese_ocr:FILE, or a file with one character on each line."
)


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


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A training. The flags of `ocr_train` have the names of these fields.

    Raises:
      InputError: a value is not allowed.
    """

    train_data: str = required(
        "Folder of records, of which the split train is used, or DIR@split. Several are separated by commas and may be "
        "weighted: A:3,B:1.",
        may_change=True,
        path=True,
    )
    eval_data: str = required(
        "Folder of records, of which the split eval is used, or the only split there is; or DIR@split.",
        may_change=True,
        path=True,
    )
    workdir: str = required("Folder for checkpoints, metrics and the best weights.", may_change=True, path=True)
    charset: str = option("", "Alphabet, instead of the one stored with the records.", may_change=True, path=True)
    model: str = option(
        "lite",
        "lite; wide, for large alphabets; mobile, for photographs and any size of print; cnn, the network of confusing-ctc; "
        "crnn, the same with two recurrent layers; or densenet, of chinese_ocr.",
    )
    trainer: str = option(
        "loop",
        "loop: a custom training loop, compiled into one graph. keras: the same steps run by Keras's fit, on one device.",
        may_change=True,
    )
    steps: int = option(2000, "Total number of steps, including those of earlier runs in the workdir.", may_change=True)
    batch_size: int = option(32, "Lines per step, over all replicas.")
    optimizer: str = option(
        "adamw",
        "adam, adamw, sgd, lamb or muon. With the extra [addons] and TensorFlow 2.15 also tfa:NAME or "
        "tfa:NAME:ARGUMENT=NUMBER,… where NAME is LAMB, LazyAdam, Lookahead, NovoGrad or RectifiedAdam, on one device.",
    )
    learning_rate: float = option(0.003, "Peak learning rate of the schedule.")
    weight_decay: float = option(
        0.01,
        "Weight decay of adamw, whose beta_2 is 0.98, of lamb and of muon; not applied to biases and batch norm. For tfa:… "
        "give it as an argument of the optimizer.",
    )
    clip_norm: float = option(5.0, "Clip gradients to this global norm; 0 for no clipping.")
    schedule: str = option(
        "cosine",
        "constant. cosine: decays to 0 at the last step. exponential: decays smoothly by 0.98 every 10,000 steps. "
        "epoch_decay: multiplied by 0.4 after each epoch. The last two are those of confusing-ctc.",
    )
    warmup_steps: int = option(100, "Steps of linear warm-up, with --schedule=cosine.")
    ema: float = option(
        0.0,
        "Decay of an exponential moving average of the weights, such as 0.999; the average is then evaluated and exported. "
        "0: no average.",
    )
    frame_loss: float = option(
        0.0,
        "Weight, 0 to 1, of a cross-entropy loss for each frame beside the CTC loss, for large alphabets on which CTC alone "
        "starts slowly. Needs records with the position of each character: render_lines --tfrecords.",
        may_change=True,
    )
    precision: str = option(
        "float32",
        "float32, mixed_bfloat16 (GPUs, and CPUs with AMX) or mixed_float16 (GPUs). Weights, logits and loss are always "
        "float32.",
    )
    strategy: str = option(
        "auto",
        "one: one device. mirrored: all GPUs. multiworker: the machines in TF_CONFIG. auto: chosen from what is available.",
        may_change=True,
    )
    replicas: int = option(
        0, "Number of devices; without a GPU the CPU is divided into this many. 0: all that are available.", may_change=True
    )
    sync_batch_norm: bool = option(True, "Compute batch norm statistics over all replicas.")
    deterministic: bool = option(
        False, "Use only operations that give bit-identical results every time; slower on GPUs.", may_change=True
    )
    init_from: str = option(
        "",
        "Workdir or export of the same model to take initial weights from, or pretrained: the shipped model for Chinese "
        "(--model=wide). Where alphabets differ, the characters in both keep their weights.",
        may_change=True,
        path=True,
    )
    keep: float = option(
        0.0,
        "With --init_from: weight of a loss that keeps what that model knows, without the lines it was trained on. Its own "
        "outputs on the new lines are to stay as they are, unless a line's label contradicts them, and batch norm keeps its "
        "statistics. 1 is a good value; 0: no such loss.",
    )
    seed: int = option(0, "Random seed of the initial weights and of the order of lines.")
    log_every: int = option(50, "Steps between training lines in metrics.jsonl.", may_change=True)
    eval_every: int = option(500, "Steps between evaluations.", may_change=True)
    checkpoint_every: int = option(500, "Steps between checkpoints.", may_change=True)
    keep_checkpoints: int = option(3, "Number of most recent checkpoints to keep.", may_change=True)
    patience: int = option(0, "Stop after this many consecutive evaluations without improvement; 0: never.", may_change=True)
    bad_steps: int = option(
        10, "Stop after more than this many consecutive steps with a non-finite loss or gradient.", may_change=True
    )
    augment: float = option(0.0, "Strength of the augmentation of training lines, from 0 (none) to 1.", may_change=True)
    augmenter: str = option(
        "ours",
        "Implementation of --augment: ours; or, with the extra [addons], tfa: rotation, shear and cutout by tfa.image.",
        may_change=True,
    )
    picture_font: str = option(
        "",
        "Font file for the texts in TensorBoard's pictures of lines, where they are not Latin.",
        may_change=True,
        path=True,
    )
    override: bool = option(False, "Train even if the doctor has a definite finding.", may_change=True)

    def __post_init__(self) -> None:
        values = dataclasses.asdict(self)
        check_given(train_data=self.train_data, eval_data=self.eval_data, workdir=self.workdir)
        check_choice(values, trainer=TRAINERS, schedule=SCHEDULES)
        if self.optimizer.startswith(addons.PREFIX):
            addons.parse_optimizer(self.optimizer)
        else:
            check_choice(values, optimizer=(*OPTIMIZERS, *(addons.PREFIX + name for name in addons.OPTIMIZERS)))
        check_choice(values, precision=PRECISIONS, strategy=STRATEGIES, augmenter=AUGMENTERS)
        if self.keep and (self.frame_loss or not self.init_from):
            rule = "not taken with --frame_loss" if self.frame_loss else "needs --init_from, the model that is to be kept"
            raise InputError(f"--keep={self.keep:g}: {rule}")
        if self.augmenter == "tfa" and not self.augment:
            raise InputError("--augmenter=tfa: taken only with --augment above 0")
        counts = ("steps", "log_every", "eval_every", "checkpoint_every", "keep_checkpoints")
        check_range(values, **dict.fromkeys(counts, (1, 10**9)), batch_size=(1, 2**20))
        check_range(values, **dict.fromkeys(("warmup_steps", "patience", "bad_steps"), (0, 10**9)))
        check_range(values, seed=(0, 2**32 - 1), weight_decay=(0, 1000), clip_norm=(0, 1e30), keep=(0, 1000))
        check_range(
            values, learning_rate=(1e-30, 1e30), augment=(0, 1), ema=(0, 0.999999), frame_loss=(0, 1), replicas=(0, 1024)
        )


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
    keep: float = option(1.0, "Weight of the loss that keeps what the model knows: see ocr_train --help.")
    old_data: str = option(
        "", "Records of lines that the model was made for, whose split eval is read before and after, and not trained on."
    )

    def __post_init__(self) -> None:
        check_given(lines=self.lines, export_dir=self.export_dir, init_from=self.init_from, split_by=self.split_by)
        check_range(dataclasses.asdict(self), minutes=(0.1, 10_000), keep=(0, 1000))


PATHS = tuple(field.name for field in dataclasses.fields(TrainConfig) if field.metadata["path"])


def write(path: pathlib.Path, config: TrainConfig, provenance: dict[str, str]) -> None:
    """Saves a configuration, with the fingerprints of the training's inputs.

    Args:
      path: of the JSON file to write.
      config: the configuration.
      provenance: fingerprints by name, `FINGERPRINTS` among them.
    """
    files.write_json(path, {**dataclasses.asdict(config), "fingerprints": provenance})


def read(path: pathlib.Path) -> tuple[TrainConfig, dict[str, str]]:
    """Reads what `write` wrote.

    Returns:
      The configuration and the fingerprints.

    Raises:
      IntegrityError: the file is damaged.
    """
    try:
        fields = files.read_json(path)
        provenance = dict(fields.pop("fingerprints"))
        for field in dataclasses.fields(TrainConfig):
            wanted: Any = (int, float) if field.type is float else field.type
            if field.name in fields and not isinstance(fields[field.name], wanted):
                raise ValueError(f"{field.name} is {fields[field.name]!r:.40}")
        if not provenance.keys() >= set(FINGERPRINTS) or not all(isinstance(value, str) for value in provenance.values()):
            raise ValueError(f"fingerprints are {provenance!r:.80}")
        return TrainConfig(**fields), provenance
    except (ValueError, KeyError, TypeError, AttributeError, InputError) as error:
        raise IntegrityError(f"{path}: damaged configuration ({error})") from error


def differences(saved: TrainConfig, given: TrainConfig) -> list[str]:
    """Returns `field: saved X, given Y` for each field that differs and must not change when a training resumes."""
    names = [field.name for field in dataclasses.fields(TrainConfig) if not field.metadata["may_change"]]
    pairs = [(name, getattr(saved, name), getattr(given, name)) for name in names]
    return [f"{name}: saved {before}, given {now}" for name, before, now in pairs if before != now]


@dataclasses.dataclass(frozen=True)
class ServeConfig:
    """A server. The flags of `ocr_serve` have the names of these fields.

    Raises:
      InputError: a value is not allowed.
    """

    export_dir: str = required("Folder of versions that ocr_export writes; pretrained: the shipped model for Chinese.")
    model_name: str = option("ocr", "Name of the model: clients ask for /v1/models/NAME, and name it in requests of gRPC.")
    model_version_policy: str = option(
        "latest",
        "Versions to serve. latest: the newest. latest:N: the N newest. all: all in the folder. specific:3,5: only these.",
    )
    version_labels: str = option(
        "", "Labels of versions, such as stable:3,canary:5, for /v1/models/NAME/labels/LABEL and version_label."
    )
    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 for all interfaces.")
    grpc_port: int = option(8500, "Port of gRPC; 0 for any free one.")
    rest_port: int = option(8501, "Port of REST and of the web page; 0 for any free one.")
    max_batch: int = option(32, "Largest number of lines, from several requests, in one batch.")
    max_waiting: int = option(256, "Largest number of lines in the queue; further requests are refused.")
    max_lines: int = option(128, "Largest number of lines in a request.")
    max_request_mb: int = option(64, "Largest size of a request in MiB.")
    max_connections: int = option(1000, "Largest number of open connections to each port.")
    poll_s: float = option(1.0, "Seconds between checks for a new version.")
    cors_origins: str = option(
        "",
        "Origins of other sites, such as https://example.org, separated by commas, whose pages may use REST; * for all.",
    )
    corrections_dir: str = option(
        "",
        "Folder in which to keep the texts that people correct on the page, with their images: ocr_adapt --lines takes it. "
        "Whoever reaches the server can write to it, but no page of another site, whatever --cors_origins says. Empty: the "
        "page corrects nothing.",
    )
    tls_cert: str = option("", "PEM file with the certificate chain, to serve over TLS.")
    tls_key: str = option("", "PEM file with the private key of --tls_cert.")

    def __post_init__(self) -> None:
        values, ports = dataclasses.asdict(self), (0, 65_535)
        check_given(export_dir=self.export_dir, host=self.host)
        if not re.fullmatch(r"[\w.-]*\w[\w.-]*", self.model_name):
            raise InputError(f"--model_name={self.model_name}: must be of letters, digits, '.', '-' and '_'")
        policy = version_policy.parse_policy(self.model_version_policy)
        for label, number in version_policy.parse_labels(self.version_labels).items():
            if not policy.allowed([number]):
                served = f"--model_version_policy={self.model_version_policy}"
                raise InputError(f"--version_labels={self.version_labels}: {label}:{number} is not one of {served}")
        origins = self.cors_origins.split(",") if self.cors_origins not in ("", "*") else []
        for origin in origins:
            if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#\s]+", origin):
                raise InputError(f"--cors_origins: {origin!r} must be like https://example.org or http://localhost:3000")
        check_range(values, grpc_port=ports, rest_port=ports, max_batch=(1, 1024), max_waiting=(1, 10**6))
        check_range(values, max_lines=(1, 10_000), max_request_mb=(1, 1024), poll_s=(0.01, 3600.0), max_connections=(1, 10**5))
        if bool(self.tls_cert) != bool(self.tls_key):
            raise InputError("--tls_cert and --tls_key: give both or neither")
