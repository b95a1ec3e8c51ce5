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
# Its optimizers, and what of ours comes closest.
OPTIMIZERS = {
    "LAMB": "lamb",
    "LazyAdam": "adam",
    "Lookahead": "adamw with --ema",
    "NovoGrad": "adamw",
    "RectifiedAdam": "adamw",
}


def optimizer(spec: str) -> tuple[str, dict[str, float]]:
    """Takes `tfa:NAME:ARGUMENT=NUMBER,…` apart.

    Returns:
      The name, and the arguments.

    Raises:
      InputError: it has no such optimizer, or an argument is no number.
    """
    name, _, given = spec.removeprefix(PREFIX).partition(":")
    if name not in OPTIMIZERS:
        raise InputError(f"--optimizer={spec}: must be one of {', '.join(PREFIX + name for name in OPTIMIZERS)}")
    arguments = {}
    for item in given.split(",") if given else ():
        argument, _, value = item.partition("=")
        try:
            arguments[argument] = int(value) if value.isdecimal() else float(value)
        except ValueError as error:
            raise InputError(f"--optimizer={spec}: {item!r} is no ARGUMENT=NUMBER") from error
    return name, arguments


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


def imported() -> ModuleType:
    """Returns TensorFlow Addons."""
    with warnings.catch_warnings(action="ignore"):  # which say that it has ended
        import tensorflow_addons as tfa

    return tfa


def made(spec: str, learning_rate: float) -> Any:
    """Returns an optimizer of TensorFlow Addons; Lookahead is put around its RectifiedAdam.

    Raises:
      InputError: it takes no such argument.
    """
    tfa = imported()
    name, arguments = optimizer(spec)
    try:
        if name == "Lookahead":
            return tfa.optimizers.Lookahead(tfa.optimizers.RectifiedAdam(learning_rate), **arguments)
        return getattr(tfa.optimizers, name)(learning_rate, **arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"--optimizer={spec}: {str(error).splitlines()[0]}") from error
