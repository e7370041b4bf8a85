"""
A serial bus without wires: N pseudo-terminals joined so that what one end says all others hear.

Both ends are real serial devices to pyserial (they have paths, modes and a baud rate), which a bare pseudo-terminal
pair does not give: its master has no path.  So every participant gets the slave of a pair of its own, and one task
here holds all masters and copies bytes between them, as the two wires of RS-485 do.  With two participants it is a
cable.
"""

from __future__ import annotations

import math
import os
import termios
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

CHUNK_SIZE = 4096


@asynccontextmanager
async def serial_bus(count: int = 2, *, forget_s: float = math.inf) -> AsyncIterator[list[str]]:
    """
    The paths of `count` serial devices on one bus, which lasts as long as the block.

    The slaves are held open here as well: a master whose last slave closes would hang up the bus for good, and a
    meter that restarts is an everyday event.  After a pause of `forget_s` on the bus, what a participant has not read
    is lost, as in a UART that nobody has opened; without it, it waits.
    """
    pairs = [os.openpty() for _ in range(count)]
    masters = [master for master, _ in pairs]
    try:
        for master, slave in pairs:
            tty.setraw(slave)  # no echo and no line discipline before the first participant sets its mode
            os.set_blocking(master, False)
        async with trio.open_nursery() as nursery:
            for master in masters:
                nursery.start_soon(_copy, master, [pair for pair in pairs if pair[0] != master], forget_s)
            yield [os.ttyname(slave) for _, slave in pairs]
            nursery.cancel_scope.cancel()
    finally:
        for descriptor in (end for pair in pairs for end in pair):
            with suppress(OSError):
                os.close(descriptor)


async def _copy(source: int, others: list[tuple[int, int]], forget_s: float) -> None:
    last_s = trio.current_time()
    while True:
        await trio.lowlevel.wait_readable(source)
        now_s = trio.current_time()
        if now_s - last_s >= forget_s:
            for master, slave in others:
                termios.tcflush(slave, termios.TCIFLUSH)
                termios.tcflush(master, termios.TCOFLUSH)
        last_s = now_s
        try:
            data = os.read(source, CHUNK_SIZE)
        except BlockingIOError:
            continue
        for master, _ in others:
            await _write(master, data)


async def _write(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(descriptor)
