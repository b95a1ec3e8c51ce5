"""Optimizers and learning-rate schedules, by name."""

import math

import keras

from ocr.config import TrainConfig


def optimizer(config: TrainConfig, lines: int) -> keras.optimizers.Optimizer:
    """Builds the optimizer of a configuration, its schedule inside; `lines` are those of an epoch."""
    rate, clip = _schedule(config, lines), config.clip_norm or None
    if config.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=0.9, global_clipnorm=clip)
    if config.optimizer == "adamw":
        # A short memory for the gradients' size: it changes by orders of magnitude when CTC's slow start ends.
        return keras.optimizers.AdamW(rate, weight_decay=config.weight_decay, beta_2=0.98, global_clipnorm=clip)
    return keras.optimizers.Adam(rate, global_clipnorm=clip)


def _schedule(config: TrainConfig, lines: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "epoch_decay":  # of confusing-ctc
        epoch = math.ceil(lines / config.batch_size)
        return keras.optimizers.schedules.ExponentialDecay(config.learning_rate, epoch, 0.4, staircase=True)
    warmup = min(config.warmup_steps, config.steps - 1)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else config.learning_rate,
        decay_steps=config.steps - warmup,
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
