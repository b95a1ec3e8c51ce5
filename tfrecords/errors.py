"""The two ways a run can fail without a bug: its input cannot be used, or data on disk is damaged."""


class InputError(Exception):
    """A flag, file or line that cannot be used (exit status 1); the message is one line: what, its value, the rule."""


class IntegrityError(Exception):
    """Data that differs from what was written, or numbers that are not finite (exit status 2)."""


def damage_errors() -> tuple[type[Exception], ...]:
    """Returns what TensorFlow, protobuf and Python raise, between them, when they read a damaged file of any format.

    For `except damage_errors() as error`, which imports TensorFlow only after an error.
    """
    import tensorflow as tf

    python = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, AssertionError)
    return (*python, tf.errors.OpError)


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or the error's name if the message is empty."""
    return (str(error) or type(error).__name__).splitlines()[0]
