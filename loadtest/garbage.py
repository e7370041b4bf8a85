"""
Garbage of every message type: well-formed at random or at its bounds, and bytes that are none.

What a field may hold is read off the very checks of `protocol.wire`, so a message added there is thrown here too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields
from random import Random
from typing import Any, get_args, get_type_hints

import msgpack

from protocol import wire

_MANY = 12  # items of a list at most: a frame stays small


def messages(kinds: frozenset[type[wire.Message]], random: Random, count: int, **known: int) -> Iterator[wire.Message]:
    """`count` messages of each kind; fields named in `known` (epoch, ring, ...) have that value two times in three."""
    kind: type[Any]
    for kind in sorted(kinds, key=lambda kind: kind.__name__):
        hints = get_type_hints(kind, include_extras=True)
        for _ in range(count):
            values: dict[str, Any] = {
                field.name: known[field.name]
                if field.name in known and random.random() < 2 / 3
                else _value(get_args(hints[field.name])[1], random)
                for field in fields(kind)
            }
            yield kind(**values)


def frames(kinds: frozenset[type[wire.Message]], random: Random, count: int, **known: int) -> Iterator[bytes]:
    """The messages' bytes, most of them damaged: truncated, with a flipped bit, a field too many, or noise."""
    for message in messages(kinds, random, count, **known):
        data = wire.encode(message)
        match random.randrange(6):
            case 0:
                yield data[: random.randrange(1, len(data) + 1)]
            case 1:
                place = random.randrange(len(data))
                yield data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]
            case 2:
                yield msgpack.packb([*msgpack.unpackb(data), None])
            case 3:
                yield random.randbytes(random.randrange(1, 64))
            case _:
                yield data


def _value(check: Callable[[Any], Any], random: Random) -> Any:
    bounds = inspect.getclosurevars(check).nonlocals
    match check.__qualname__.partition(".")[0]:
        case "integer":
            low, high = bounds["low"], bounds["high"]
            return random.choice([low, high, random.randint(low, high), min(high, low + random.randrange(10))])
        case "octets":
            step = bounds["multiple"]
            most = min(bounds["top"], 64 * step)
            size = random.choice([bounds["low"], most, random.randint(bounds["low"], max(most, bounds["low"]))])
            size = max(bounds["low"], size - size % step)
            return random.choice([bytes(size), b"\xff" * size, random.randbytes(size)])
        case "text":
            return "".join(random.choice("abcäß:/*%{}'\"<> ") for _ in range(random.randint(1, bounds["high"])))
        case "many":
            return tuple(_value(bounds["item"], random) for _ in range(random.randint(0, min(_MANY, bounds["high"]))))
        case "record":
            return tuple(_value(item, random) for item in bounds["items"])
        case name:
            raise NotImplementedError(f"no garbage for {name} yet")
