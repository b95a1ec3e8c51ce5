"""Optimizers of TensorFlow Addons (tfa), whose development ended in 2024 and which needs TensorFlow 2.15.

This is the only module that imports it, and it does so only when it is used.
"""

import importlib.metadata
import importlib.util
import warnings
from types import ModuleType
from typing import Any

from tfrecords.errors import InputError

PREFIX = "tfa:"
_BETAS = {"beta_1": (0.0, 0.999999), "beta_2": (0.0, 0.999999), "epsilon": (1e-12, 1.0)}
_DECAY, _AMSGRAD = {"weight_decay": (0.0, 1000.0)}, {"amsgrad": (False, True)}
# For each optimizer, the closest alternative without tfa, and the range of each argument. Those that set a learning rate are
# absent, since the schedule sets it.
OPTIMIZERS: dict[str, tuple[str, dict[str, tuple[float, float]]]] = {
    "LAMB": ("lamb", _BETAS | _DECAY),
    "LazyAdam": ("adam", _BETAS | _AMSGRAD),
    "Lookahead": ("adamw with --ema", {"sync_period": (1, 10**6), "slow_step_size": (0.0, 1.0)}),
    "NovoGrad": ("adamw", _BETAS | _DECAY | _AMSGRAD | {"grad_averaging": (False, True)}),
    "RectifiedAdam": ("adamw", _BETAS | _DECAY | _AMSGRAD | {"sma_threshold": (4.0, 1000.0)}),
}


def parse_optimizer(spec: str) -> tuple[str, dict[str, float]]:
    """Parses `tfa:NAME` or `tfa:NAME:ARGUMENT=NUMBER,…`.

    Returns:
      The name of the optimizer, and its arguments.

    Raises:
      InputError: there is no such optimizer or argument, or the number is out of range.
    """
    name, colon, given = spec.removeprefix(PREFIX).partition(":")
    if name not in OPTIMIZERS:
        raise InputError(f"--optimizer={spec}: must be one of {', '.join(PREFIX + name for name in OPTIMIZERS)}")
    ranges, arguments = OPTIMIZERS[name][1], {}
    for item in given.split(",") if colon else ():
        argument, _, value = item.partition("=")
        if argument not in ranges:
            raise InputError(f"--optimizer={spec}: {argument!r} is not one of its arguments: {', '.join(ranges)}")
        if argument in arguments:
            raise InputError(f"--optimizer={spec}: {argument} is given twice")
        arguments[argument] = _number(f"--optimizer={spec}", argument, value, *ranges[argument])
    return name, arguments


def _number(given: str, argument: str, value: str, low: float, high: float) -> float:
    integer = isinstance(low, int)
    try:
        if low <= (number := int(value) if integer else float(value)) <= high:  # NaN is refused too
            return type(low)(number)
    except ValueError:
        pass
    raise InputError(f"{given}: {argument} must be a {'whole ' if integer else ''}number, {low:g} to {high:g}")


def check_usable(given: str, closest: str) -> None:
    """Checks that tfa is installed, beside a TensorFlow that it works with.

    Args:
      given: the flag that requests it, with its value.
      closest: the alternative to suggest.

    Raises:
      InputError: it is not installed, or TensorFlow is too new.
    """
    # Beside Keras 3 its import fails, after several seconds.
    if importlib.util.find_spec("tensorflow_addons") is None or not importlib.metadata.version("keras").startswith("2."):
        needed = "needs TensorFlow Addons with TensorFlow 2.15: pip install 'line-ocr[addons]' with Python 3.11"
        raise InputError(f"{given}: {needed}; the closest alternative is {closest}")


def load() -> ModuleType:
    """Imports tfa and returns it."""
    with warnings.catch_warnings(action="ignore"):  # that its development has ended
        import tensorflow_addons as tfa

    return tfa


def build(spec: str, learning_rate: float) -> Any:
    """Returns an optimizer of tfa. Lookahead wraps RectifiedAdam.

    Args:
      spec: as `parse_optimizer` takes it.
      learning_rate: the initial learning rate.
    """
    optimizers = load().optimizers
    name, arguments = parse_optimizer(spec)
    if name == "Lookahead":
        return optimizers.Lookahead(optimizers.RectifiedAdam(learning_rate), **arguments)
    return getattr(optimizers, name)(learning_rate, **arguments)
