"""
The number of a process among others alike, and texts that hold it: a StatefulSet's pods share one configuration.

`{ordinal}` in a text of a section stands for the number, `{ordinal:04}` for the same with four digits.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from typing import Any

HOST_NAME = "hostname"
_HOLDER = re.compile(r"\{ordinal(?::0(\d))?\}")
_PRIVATE = frozenset({"keys", "token", "pin"})  # taken as they are


def resolve(ordinal: Any, host_name: str | None = None) -> Any:
    """
    The number that `hostname` stands for, from the end of the host's name (`gateways-3`); anything else as it is.

    Raises ValueError where the host's name ends in no number.
    """
    if ordinal != HOST_NAME:
        return ordinal
    name = (socket.gethostname() if host_name is None else host_name).partition(".")[0]
    found = re.search(r"-(\d{1,9})$", name)
    if found is None:
        raise ValueError(f"a number for ordinal, because the host's name {name!r} does not end in one (as gateways-3)")
    return int(found[1])


def filled(value: Any, ordinal: Any) -> Any:
    """
    The value, text or table, with the number in the place of each `{ordinal}`; secrets stay as they are.

    Raises ValueError for a text that wants a number where there is none.
    """
    match value:
        case str():
            if ordinal is None and _HOLDER.search(value):
                raise ValueError(f"an ordinal, because {value!r} is made from it")
            return _HOLDER.sub(lambda found: f"{ordinal:0>{found[1] or 1}}", value)
        case Mapping():
            return {name: each if name in _PRIVATE else filled(each, ordinal) for name, each in value.items()}
        case list() | tuple():
            return [filled(each, ordinal) for each in value]
        case _:
            return value
