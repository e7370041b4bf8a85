"""
Counters that must never go back, over restarts and crashes: ours in ciphered DLMS, and what we took from meters.

A pair of system title and counter that is used twice under one key gives the key stream away.  So numbers are reserved
in blocks, and a block is durable before the first of it is used: after a crash the rest of it is lost, none is used
twice.  A block costs one durable write, and a restart skips at most one.

The name is the sender's system title, not the meter: meters that were given the same key by mistake then still never
see the same number twice.  A first block begins at the Unix second, so that a gateway whose store was lost is ahead of
whatever it used at less than one number a second.

What a meter sent under a number is taken once: the highest number taken from each sender is durable before the reading
goes on, or a recording played back after a restart would pass for a meter.  A meter that is given a new key may count
from 0 again (DLMS resets its invocation counters with the key), so numbers are remembered by sender and key.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

import trio
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

BLOCK_SIZE: Final = 16_384  # 2^32 numbers are 262,144 restarts; smaller blocks are more durable writes
_MARK_SIZE: Final = 8


class CounterStore(Protocol):
    """Where blocks of numbers come from."""

    async def reserve(self, name: str, size: int = BLOCK_SIZE) -> int:
        """The first of `size` consecutive numbers that nobody had before, and nobody will have again."""

    def taken(self, receiver: str) -> dict[str, int]:
        """The highest number that `receiver` took from each sender."""

    async def take(self, receiver: str, sender: str, number: int) -> None:
        """Remember that `receiver` took this number, the highest so far."""


class ReplayCounters:
    """What one receiver took from its meters, each number under the key that its sender has now: `key_of(sender)`."""

    def __init__(self, counters: CounterStore, receiver: str, key_of: Callable[[str], bytes | None]) -> None:
        self._counters = counters
        self._receiver = receiver
        self._key_of = key_of

    def highest(self) -> dict[str, int]:
        """The highest number of each sender under its present key."""
        named = (
            (name.partition("/")[0], name, number) for name, number in self._counters.taken(self._receiver).items()
        )
        return {sender: number for sender, name, number in named if name == self._name(sender)}

    async def keep(self, sender: str, number: int) -> None:
        """Return when it is durable: only then may the reading go on."""
        await self._counters.take(self._receiver, self._name(sender), number)

    def _name(self, sender: str) -> str:
        key = self._key_of(sender)
        if key is None:
            return sender
        mark = HKDF(SHA256(), _MARK_SIZE, None, b"stromkreis mark of a meter's key beside its counters").derive(key)
        return f"{sender}/{mark.hex()}"


class VolatileCounters:
    """For tools without a store: right for as long as less than one number a second is used."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._next: dict[str, int] = {}
        self._taken: dict[str, dict[str, int]] = {}

    async def reserve(self, name: str, size: int = BLOCK_SIZE) -> int:
        """The next block; a name's first begins at the Unix second."""
        await trio.lowlevel.checkpoint()
        first = self._next.get(name, int(self._clock()))
        self._next[name] = first + size
        return first

    def taken(self, receiver: str) -> dict[str, int]:
        """What was taken since the process began."""
        return dict(self._taken.get(receiver, {}))

    async def take(self, receiver: str, sender: str, number: int) -> None:
        """Remember it as long as the process lives."""
        await trio.lowlevel.checkpoint()
        self._taken.setdefault(receiver, {})[sender] = number


class CounterTable(Protocol):
    """What durable counters are kept in; see node.storage.repositories.counters."""

    def next_number(self, name: str) -> int | None: ...  # noqa: D102
    async def reserve_up_to(self, name: str, number: int) -> None: ...  # noqa: D102
    def taken(self, receiver: str) -> dict[str, int]: ...  # noqa: D102
    async def take(self, receiver: str, sender: str, number: int) -> None: ...  # noqa: D102


class DurableCounters:
    """Blocks out of the node's store; one for all gateways of the process.  Every method raises StoreError."""

    def __init__(self, table: CounterTable, clock: Callable[[], float] = time.time) -> None:
        self._table = table
        self._clock = clock
        self._lock = trio.Lock()

    async def reserve(self, name: str, size: int = BLOCK_SIZE) -> int:
        """The next block, once it is on the disk.  Raises StoreError: then nothing may be sent."""
        async with self._lock:
            first = max(int(self._clock()), self._table.next_number(name) or 0)
            await self._table.reserve_up_to(name, first + size)
            return first

    def taken(self, receiver: str) -> dict[str, int]:
        """What was taken ever."""
        return self._table.taken(receiver)

    async def take(self, receiver: str, sender: str, number: int) -> None:
        """Return when it is on the disk."""
        await self._table.take(receiver, sender, number)
