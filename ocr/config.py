"""Configurations: one frozen object a job, checked where it is made. That of a training is saved beside every result."""

import dataclasses
import pathlib
import string
from collections.abc import Mapping, Sequence
from typing import Any

from ocr import addons
from tfrecords import files
from tfrecords.errors import InputError, IntegrityError

OPTIMIZERS = ("adam", "adamw", "sgd", "lamb")
SCHEDULES = ("constant", "cosine", "exponential", "epoch_decay")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
STRATEGIES = ("auto", "one", "mirrored", "multiworker")
TRAINERS = ("loop", "keras")
AUGMENTERS = ("ours", "tfa")
PATHS = ("train_data", "eval_data", "workdir", "charset", "init_from", "picture_font")  # which mean nothing elsewhere
FINGERPRINTS = ("alphabet", "train_data", "eval_data")  # of what goes into a training
# What may change when a training goes on: how far, where things lie, and how often it tells.
_MAY_CHANGE = frozenset(
    (
        "train_data",
        "eval_data",
        "workdir",
        "charset",
        "steps",
        "log_every",
        "eval_every",
        "checkpoint_every",
        "keep_checkpoints",
        "patience",
        "bad_steps",
        "trainer",
        "strategy",
        "replicas",
        "deterministic",
        "init_from",
        "picture_font",
        "augment",
        "augmenter",
        "frame_loss",
        "override",
    )
)


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    """What to pack, and how.

    Raises:
      InputError: a field's value is none that it takes.
    """

    output: str = ""
    images: str = ""
    labels: str = ""
    charset: str = ""
    name: str = "lines"
    split: str = "train"
    label_format: str = "auto"
    image_format: str = "keep"
    pixels_per_frame: int = 4
    num_shards: int = 0
    workers: int = 0
    check: str = "full"
    strict: bool = False
    resume: bool = False
    engine: str = "local"
    beam_options: str = ""

    def __post_init__(self) -> None:
        check_names(self.name, self.split)
        fields = dataclasses.asdict(self)
        check_given(output=self.output)
        check_choice(fields, label_format=("auto", "ids", "text"), image_format=("keep", "png", "raw"))
        check_choice(fields, check=("full", "header"), engine=("local", "beam"))
        if self.beam_options and self.engine == "local":
            raise InputError("--beam_options: taken only with --engine=beam")
        check_range(fields, pixels_per_frame=(1, 1000), num_shards=(0, 99_999), workers=(0, 1000))


def check_given(**values: str | int) -> None:
    """Makes sure that no value is empty, or 0.

    Raises:
      InputError: one is; the message names its flag.
    """
    if empty := [name for name, value in values.items() if not value]:
        raise InputError(f"--{empty[0]}: has to be given")


def check_choice(fields: Mapping[str, Any], **choices: Sequence[str]) -> None:
    """Makes sure that fields have one of the values they may have.

    Raises:
      InputError: one has not; the message names its flag.
    """
    for name, allowed in choices.items():
        if fields[name] not in allowed:
            raise InputError(f"--{name}={fields[name]}: must be one of {', '.join(allowed)}")


def check_range(fields: Mapping[str, Any], **ranges: tuple[float, float]) -> None:
    """Makes sure that fields lie between two bounds, both allowed.

    Raises:
      InputError: one does not; the message names its flag.
    """
    for name, (low, high) in ranges.items():
        if not low <= fields[name] <= high:  # nor is a NaN
            raise InputError(f"--{name}={fields[name]}: must be {low} to {high}")


def parse_weighted(item: str) -> tuple[str, float | None]:
    """Takes `NAME:WEIGHT` apart; the weight is None where none is given.

    Raises:
      InputError: it is no number from 1e-6 to 1e6.
    """
    name, colon, weight = item.rpartition(":")
    if not colon or pathlib.Path(item).exists():  # a name with a colon in it
        return item, None
    try:
        if 1e-6 <= (number := float(weight)) <= 1e6:
            return name, number
    except ValueError:
        pass
    raise InputError(f"{item}: the weight {weight!r} must be a number from 1e-6 to 1e6")


def check_names(name: str, split: str) -> None:
    """Makes sure that a data set and its split can be told apart in a file's name.

    Raises:
      InputError: they hold more than letters, digits and underscores.
    """
    for flag, value in (("name", name), ("split", split)):
        if not value or set(value) - set(string.ascii_letters + string.digits + "_"):
            raise InputError(f"--{flag}={value}: must be of letters, digits and underscores")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """All that a training is told. A flag of `ocr_train` has the name of its field.

    Raises:
      InputError: a field's value is none that it takes.
    """

    train_data: str
    eval_data: str
    workdir: str
    charset: str = ""
    model: str = "lite"
    trainer: str = "loop"
    steps: int = 2000
    batch_size: int = 32
    optimizer: str = "adamw"
    learning_rate: float = 0.003
    weight_decay: float = 0.01
    clip_norm: float = 5.0
    schedule: str = "cosine"
    warmup_steps: int = 100
    ema: float = 0.0
    frame_loss: float = 0.0
    precision: str = "float32"
    strategy: str = "auto"
    replicas: int = 0
    sync_batch_norm: bool = True
    deterministic: bool = False
    init_from: str = ""
    seed: int = 0
    log_every: int = 50
    eval_every: int = 500
    checkpoint_every: int = 500
    keep_checkpoints: int = 3
    patience: int = 0
    bad_steps: int = 10
    augment: float = 0.0
    augmenter: str = "ours"
    picture_font: str = ""
    override: bool = False

    def __post_init__(self) -> None:
        fields = dataclasses.asdict(self)
        check_given(train_data=self.train_data, eval_data=self.eval_data, workdir=self.workdir)
        check_choice(fields, trainer=TRAINERS, schedule=SCHEDULES)
        if self.optimizer.startswith(addons.PREFIX):
            addons.optimizer(self.optimizer)
        else:
            check_choice(fields, optimizer=(*OPTIMIZERS, *(addons.PREFIX + name for name in addons.OPTIMIZERS)))
        check_choice(fields, precision=PRECISIONS, strategy=STRATEGIES, augmenter=AUGMENTERS)
        if self.augmenter == "tfa" and not self.augment:
            raise InputError("--augmenter=tfa: taken only with --augment above 0")
        counts = ("steps", "log_every", "eval_every", "checkpoint_every", "keep_checkpoints")
        check_range(fields, **dict.fromkeys(counts, (1, 10**9)), batch_size=(1, 2**20))
        check_range(fields, **dict.fromkeys(("warmup_steps", "patience", "bad_steps"), (0, 10**9)))
        check_range(fields, seed=(0, 2**32 - 1), weight_decay=(0, 1000), clip_norm=(0, 1e30))
        check_range(
            fields, learning_rate=(1e-30, 1e30), augment=(0, 1), ema=(0, 0.999999), frame_loss=(0, 1), replicas=(0, 1024)
        )


def write(path: pathlib.Path, config: TrainConfig, provenance: dict[str, str]) -> None:
    """Saves a configuration and the fingerprints of what went into the training."""
    files.write_json(path, {**dataclasses.asdict(config), "fingerprints": provenance})


def read(path: pathlib.Path) -> tuple[TrainConfig, dict[str, str]]:
    """Reads what `write` wrote.

    Raises:
      IntegrityError: it is damaged.
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
    """Says where a configuration departs from the one a checkpoint was made with, `field: saved X, given Y` each."""
    fields = [field.name for field in dataclasses.fields(TrainConfig) if field.name not in _MAY_CHANGE]
    pairs = [(name, getattr(saved, name), getattr(given, name)) for name in fields]
    return [f"{name}: saved {was}, given {now}" for name, was, now in pairs if was != now]


@dataclasses.dataclass(frozen=True)
class ServeConfig:
    """All that a server is told. A flag of `ocr_serve` has the name of its field.

    Raises:
      InputError: a field's value is none that it takes.
    """

    export_dir: str
    host: str = "127.0.0.1"
    grpc_port: int = 8500
    rest_port: int = 8501
    max_batch: int = 32
    max_waiting: int = 256
    max_lines: int = 128
    max_request_mb: int = 64
    poll_s: float = 1.0
    tls_cert: str = ""
    tls_key: str = ""

    def __post_init__(self) -> None:
        fields, ports = dataclasses.asdict(self), (0, 65_535)
        check_given(export_dir=self.export_dir, host=self.host)
        check_range(fields, grpc_port=ports, rest_port=ports, max_batch=(1, 1024), max_waiting=(1, 10**6))
        check_range(fields, max_lines=(1, 10_000), max_request_mb=(1, 1024), poll_s=(0.01, 3600.0))
        if bool(self.tls_cert) != bool(self.tls_key):
            raise InputError("--tls_cert and --tls_key: give both or none")
