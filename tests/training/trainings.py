"""Configurations of small trainings, and what is left of them."""

import json
import pathlib

import numpy as np
import tensorflow as tf

from ocr.config import TrainConfig


def config(records: str, workdir: pathlib.Path, **fields) -> TrainConfig:
    """Returns a training of 12 steps."""
    often = {"steps": 12, "batch_size": 8, "log_every": 4, "eval_every": 6, "checkpoint_every": 4, "warmup_steps": 2}
    return TrainConfig(**{"train_data": records, "eval_data": records, "workdir": str(workdir), **often, **fields})


def digits_config(trained, workdir: pathlib.Path, **fields) -> TrainConfig:
    """Returns a training of 20 steps on lines of digits."""
    often = {"steps": 20, "batch_size": 16, "log_every": 5, "eval_every": 10, "checkpoint_every": 5, "warmup_steps": 5}
    data = {"train_data": str(trained.records), "eval_data": str(trained.records)}
    return TrainConfig(**{**data, "workdir": str(workdir), **often, **fields})


def journal(workdir: pathlib.Path) -> list[dict]:
    """Returns the lines of `metrics.jsonl`."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def metric(workdir: pathlib.Path, name: str) -> dict[int, float]:
    """Returns a metric by step."""
    return {line["step"]: line[name] for line in journal(workdir) if name in line}


def tensors(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Returns the contents of a checkpoint."""
    reader = tf.train.load_checkpoint(str(workdir / "checkpoints" / f"ckpt-{step}"))
    names = [name for name in reader.get_variable_to_shape_map() if not name.startswith(("_CHECK", "save_counter"))]
    return {name: reader.get_tensor(name) for name in names}
