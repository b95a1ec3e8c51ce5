"""The two ways a run can fail through no fault of the code: what was given is wrong, or what is on disk is damaged."""


class InputError(Exception):
    """A flag, file or line that cannot be used. The message is one line: what, its value, the rule (exit status 1)."""


class IntegrityError(Exception):
    """Data that is not what it was when it was written, or numbers that are none (exit status 2)."""
