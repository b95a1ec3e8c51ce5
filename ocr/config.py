"""Configurations: one frozen object a job, checked where it is made. That of a training is saved beside every result."""

import dataclasses
import json
import math
import pathlib
import string

from tfrecords import files
from tfrecords.errors import InputError, IntegrityError

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine")
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
    )
)


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    """What to pack, and how.

    Raises:
      InputError: a field's value is none that it takes.
    """

    output: str
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
    strict: bool = False

    def __post_init__(self) -> None:
        check_names(self.name, self.split)
        for field, choices in (("label_format", ("auto", "ids", "text")), ("image_format", ("keep", "png", "raw"))):
            if getattr(self, field) not in choices:
                raise InputError(f"--{field}={getattr(self, field)}: must be one of {', '.join(choices)}")
        for field, least in (("pixels_per_frame", 1), ("num_shards", 0), ("workers", 0)):
            if getattr(self, field) < least:
                raise InputError(f"--{field}={getattr(self, field)}: must be {least} or more")


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
    steps: int = 2000
    batch_size: int = 32
    optimizer: str = "adamw"
    learning_rate: float = 0.003
    weight_decay: float = 0.01
    clip_norm: float = 5.0
    schedule: str = "cosine"
    warmup_steps: int = 100
    seed: int = 0
    log_every: int = 50
    eval_every: int = 500
    checkpoint_every: int = 500
    keep_checkpoints: int = 3

    def __post_init__(self) -> None:
        for field, choices in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, field) not in choices:
                raise InputError(f"--{field}={getattr(self, field)}: must be one of {', '.join(choices)}")
        for field in ("steps", "batch_size", "log_every", "eval_every", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, field) < 1:
                raise InputError(f"--{field}={getattr(self, field)}: must be 1 or more")
        for field in ("weight_decay", "clip_norm", "warmup_steps", "seed"):
            if not 0 <= getattr(self, field) < math.inf:
                raise InputError(f"--{field}={getattr(self, field)}: must be 0 or more")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"--learning_rate={self.learning_rate}: must be above 0")


def write(path: pathlib.Path, config: TrainConfig, made_of: dict[str, str]) -> None:
    """Saves a configuration and the fingerprints of what went into the training."""
    files.write_json(path, {**dataclasses.asdict(config), "fingerprints": made_of})


def read(path: pathlib.Path) -> tuple[TrainConfig, dict[str, str]]:
    """Reads what `write` wrote.

    Raises:
      IntegrityError: it is damaged.
    """
    try:
        fields = json.loads(path.read_text("utf-8"))
        made_of = dict(fields.pop("fingerprints"))
        return TrainConfig(**fields), made_of
    except (ValueError, KeyError, TypeError, AttributeError, InputError) as error:
        raise IntegrityError(f"{path}: damaged configuration ({error})") from error


def differences(saved: TrainConfig, given: TrainConfig) -> list[str]:
    """Says where a configuration departs from the one a checkpoint was made with, `field: saved X, given Y` each."""
    fields = [field.name for field in dataclasses.fields(TrainConfig) if field.name not in _MAY_CHANGE]
    pairs = [(name, getattr(saved, name), getattr(given, name)) for name in fields]
    return [f"{name}: saved {was}, given {now}" for name, was, now in pairs if was != now]
