"""Optimizers and learning-rate schedules, by name."""

import keras

from ocr.config import TrainConfig


def optimizer(config: TrainConfig) -> keras.optimizers.Optimizer:
    """Builds the optimizer of a configuration, its schedule inside."""
    rate = _schedule(config)
    if config.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=0.9)
    if config.optimizer == "adamw":
        return keras.optimizers.AdamW(rate, weight_decay=config.weight_decay)
    return keras.optimizers.Adam(rate)


def _schedule(config: TrainConfig) -> float | keras.optimizers.schedules.LearningRateSchedule:
    if config.schedule == "constant":
        return config.learning_rate
    warmup = min(config.warmup_steps, config.steps - 1)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else config.learning_rate,
        decay_steps=config.steps - warmup,
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
