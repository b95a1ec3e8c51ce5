"""TensorFlow Addons, which ended in 2024 and needs TensorFlow 2.15: what of it a training can be told to take.

It is imported where it is used, and nowhere else.
"""

import importlib.util
import warnings
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
      InputError: it has no such optimizer, an argument is no number, or it is not installed.
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
    if importlib.util.find_spec("tensorflow_addons") is None:
        needed = "TensorFlow Addons is not installed: pip install 'line-ocr[addons]' with Python 3.11"
        raise InputError(f"--optimizer={spec}: {needed}; of those that need nothing, {OPTIMIZERS[name]} comes closest")
    return name, arguments


def made(spec: str, learning_rate: float) -> Any:
    """Returns an optimizer of TensorFlow Addons; Lookahead is put around its RectifiedAdam.

    Raises:
      InputError: it takes no such argument.
    """
    with warnings.catch_warnings(action="ignore"):  # which say that it has ended
        import tensorflow_addons as tfa

    name, arguments = optimizer(spec)
    try:
        if name == "Lookahead":
            return tfa.optimizers.Lookahead(tfa.optimizers.RectifiedAdam(learning_rate), **arguments)
        return getattr(tfa.optimizers, name)(learning_rate, **arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"--optimizer={spec}: {str(error).splitlines()[0]}") from error
