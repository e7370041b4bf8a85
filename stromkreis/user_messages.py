"""
Which failures a person can do something about, and how they read; all others are defects and keep their traceback.

What this project raises on purpose says what was wrong, where, and what was expected.  What the system says of a file
(missing, not ours to write, no space) needs no more than the file's name.  Anything else is for whoever mends it.
"""

from __future__ import annotations

from netem.errors import NetemError
from protocol.errors import StromkreisError


def user_messages(error: BaseException) -> list[str] | None:
    """What to tell the person, or None where a defect is among it."""
    match error:
        case BaseExceptionGroup():
            told = [user_messages(each) for each in error.exceptions]
            return None if None in told else [line for each in told if each is not None for line in each]
        case StromkreisError() | NetemError():
            return [str(error)]
        case OSError() if error.filename is not None:
            return [f"{error.filename}: {error.strerror}"]
        case _:
            return None


def exit_code(error: BaseException) -> int:
    """The exit status for an error: its own `exit_code`, the largest of a group's, else 1."""
    if isinstance(error, BaseExceptionGroup):
        return max(exit_code(each) for each in error.exceptions)
    return int(getattr(error, "exit_code", 1))
