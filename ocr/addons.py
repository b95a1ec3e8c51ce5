"""TensorFlow Addons, which ended in 2024 and needs TensorFlow 2.15: what of it a training can be told to take.

It is imported when it is used, and nowhere else than here.
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
# Its optimizers: what of ours comes closest, and the least and most of each argument. Those for rates are left out: the rate is
# the schedule's.
OPTIMIZERS: dict[str, tuple[str, dict[str, tuple[float, float]]]] = {
    "LAMB": ("lamb", _BETAS | _DECAY),
    "LazyAdam": ("adam", _BETAS | _AMSGRAD),
    "Lookahead": ("adamw with --ema", {"sync_period": (1, 10**6), "slow_step_size": (0.0, 1.0)}),
    "NovoGrad": ("adamw", _BETAS | _DECAY | _AMSGRAD | {"grad_averaging": (False, True)}),
    "RectifiedAdam": ("adamw", _BETAS | _DECAY | _AMSGRAD | {"sma_threshold": (4.0, 1000.0)}),
}


def parse_optimizer(spec: str) -> tuple[str, dict[str, float]]:
    """Takes `tfa:NAME:ARGUMENT=NUMBER,…` apart.

    Returns:
      The name, and the arguments.

    Raises:
      InputError: it has no such optimizer, or that takes no such argument or value.
    """
    name, colon, given = spec.removeprefix(PREFIX).partition(":")
    if name not in OPTIMIZERS:
        raise InputError(f"--optimizer={spec}: must be one of {', '.join(PREFIX + name for name in OPTIMIZERS)}")
    ranges, arguments = OPTIMIZERS[name][1], {}
    for item in given.split(",") if colon else ():
        argument, _, value = item.partition("=")
        if argument not in ranges:
            raise InputError(f"--optimizer={spec}: {argument!r} is none of its arguments: {', '.join(ranges)}")
        if argument in arguments:
            raise InputError(f"--optimizer={spec}: {argument} is given twice")
        arguments[argument] = _number(f"--optimizer={spec}", argument, value, *ranges[argument])
    return name, arguments


def _number(given: str, argument: str, value: str, low: float, high: float) -> float:
    whole = isinstance(low, int)
    try:
        if low <= (number := int(value) if whole else float(value)) <= high:  # nor is a NaN
            return type(low)(number)
    except ValueError:
        pass
    raise InputError(f"{given}: {argument} must be a {'whole ' if whole else ''}number, {low:g} to {high:g}")


def check_usable(given: str, closest: str) -> None:
    """Makes sure that it is installed, with a TensorFlow that it works with.

    Args:
      given: the flag that asks for it, and its value.
      closest: what of ours is most like what was asked for.

    Raises:
      InputError: it is not.
    """
    # With Keras 3 it cannot even be imported, which would take seconds to find out.
    if importlib.util.find_spec("tensorflow_addons") is None or not importlib.metadata.version("keras").startswith("2."):
        needed = "takes TensorFlow Addons with TensorFlow 2.15: pip install 'line-ocr[addons]' with Python 3.11"
        raise InputError(f"{given}: {needed}; of what needs neither, {closest} comes closest")


def load() -> ModuleType:
    """Returns TensorFlow Addons."""
    with warnings.catch_warnings(action="ignore"):  # which say that it has ended
        import tensorflow_addons as tfa

    return tfa


def build(spec: str, learning_rate: float) -> Any:
    """Returns an optimizer of TensorFlow Addons; Lookahead is put around its RectifiedAdam."""
    optimizers = load().optimizers
    name, arguments = parse_optimizer(spec)
    if name == "Lookahead":
        return optimizers.Lookahead(optimizers.RectifiedAdam(learning_rate), **arguments)
    return getattr(optimizers, name)(learning_rate, **arguments)
