"""
The table of messages: each class registers itself with its code and with who may send it.

A message is declared in one place, as a class under `@message`; encoding, strict decoding and the sets of what a kind
of peer may send follow from that. A code is never given twice, also not to another message after a change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from enum import Flag, auto
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform, get_args, get_type_hints

from protocol.errors import InvariantError
from protocol.records import record
from protocol.wire.fields import Epoch, Read, Ring


class Sender(Flag):
    """Who sends a message, and to whom."""

    GATEWAY = auto()  # to the coordinator
    COORDINATOR = auto()  # to a gateway
    MEMBER = auto()  # of a ring, to its head
    HEAD = auto()  # of a ring, to a member


@record
class Message:
    """Any message; the fields are those of the class, in its order."""


class RingMessage(Message):
    """A message of one round of one ring, between member and head."""

    __slots__ = ()
    epoch: Epoch
    ring: Ring


TABLE: dict[int, type[Message]] = {}
CODES: dict[type[Message], int] = {}
FIELDS: dict[type[Message], tuple[str, ...]] = {}
VALUES: dict[type[Message], Callable[[Any], tuple[Any, ...]]] = {}
READS: dict[type[Message], tuple[Read, ...]] = {}
_SENDERS: dict[type[Message], Sender] = {}

_M = TypeVar("_M", bound=Message)


def values_of(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """What takes the fields of these names off a message, in this order: all of several in one call."""
    if len(names) < 2:
        return lambda message: tuple(getattr(message, name) for name in names)
    values: Callable[[Any], tuple[Any, ...]] = attrgetter(*names)
    return values


@dataclass_transform(frozen_default=True)
def message(code: int, senders: Sender) -> Callable[[type[_M]], type[_M]]:
    """
    Make a class of annotated fields a message: a record that `encode` and `decode` know.

    Every field is annotated with its type and a `Read` that holds a peer to its bound. Raises InvariantError for a
    code that is taken.
    """

    def register(cls: type[_M]) -> type[_M]:
        if code in TABLE:
            raise InvariantError(f"message code {code} is that of {TABLE[code].__name__}")
        kind = record(cls)
        hints = get_type_hints(kind, include_extras=True)
        TABLE[code], CODES[kind], _SENDERS[kind] = kind, code, senders
        FIELDS[kind] = tuple(field.name for field in fields(kind))
        VALUES[kind] = values_of(FIELDS[kind])
        READS[kind] = tuple(get_args(hints[name])[1] for name in FIELDS[kind])
        return kind

    return register


def sent_by(sender: Sender) -> frozenset[type[Message]]:
    """The messages that this side may send."""
    return frozenset(kind for kind, senders in _SENDERS.items() if sender in senders)
