"""
A serial bus without wires: N pseudo-terminals joined so that what one end says all others hear.

Both ends are real serial devices to pyserial (they have paths, modes and a baud rate), which a bare pseudo-terminal
pair does not give: its master has no path.  So every participant gets the slave of a pair of its own, and one task
here holds all masters and copies bytes between them, as the two wires of RS-485 do.  With two participants it is a
cable.
"""

from __future__ import annotations

import os
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

CHUNK_SIZE = 4096


@asynccontextmanager
async def serial_bus(count: int = 2) -> AsyncIterator[list[str]]:
    """
    The paths of `count` serial devices on one bus, which lasts as long as the block.

    The slaves are held open here as well: a master whose last slave closes would hang up the bus for good, and a
    meter that restarts is an everyday event.
    """
    pairs = [os.openpty() for _ in range(count)]
    masters = [master for master, _ in pairs]
    try:
        for master, slave in pairs:
            tty.setraw(slave)  # no echo and no line discipline before the first participant sets its mode
            os.set_blocking(master, False)
        async with trio.open_nursery() as nursery:
            for master in masters:
                nursery.start_soon(_copy, master, [other for other in masters if other != master])
            yield [os.ttyname(slave) for _, slave in pairs]
            nursery.cancel_scope.cancel()
    finally:
        for descriptor in (end for pair in pairs for end in pair):
            with suppress(OSError):
                os.close(descriptor)


async def _copy(source: int, others: list[int]) -> None:
    while True:
        await trio.lowlevel.wait_readable(source)
        try:
            data = os.read(source, CHUNK_SIZE)
        except BlockingIOError:
            continue
        for other in others:
            await _write(other, data)


async def _write(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(descriptor)
