"""The configuration of a training, which is saved beside its results as `config.json`."""

import dataclasses
import pathlib
from typing import Any

from ocr import addons
from ocr.options import check_choice, check_given, check_range, option, required
from tfrecords import files
from tfrecords.errors import InputError, IntegrityError

OPTIMIZERS = ("adam", "adamw", "sgd", "lamb", "muon")
SCHEDULES = ("constant", "cosine", "exponential", "epoch_decay")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
STRATEGIES = ("auto", "one", "mirrored", "multiworker")
TRAINERS = ("loop", "keras")
AUGMENTERS = ("ours", "tfa")
FINGERPRINTS = ("alphabet", "train_data", "eval_data")  # of what goes into a training


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
        "(--model=mobile). Where alphabets differ, the characters in both keep their weights.",
        may_change=True,
        path=True,
    )
    keep: float = option(
        0.0,
        "With --init_from: weight of a loss that keeps what that model knows, without the lines it was trained on. Its own "
        "outputs on the new lines are to stay as they are, unless a line's label contradicts them, and batch norm keeps its "
        "statistics. Characters that it lacks are learned first, alone. 1 is a good value; 0: no such loss.",
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
