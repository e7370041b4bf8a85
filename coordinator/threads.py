"""
Worker threads for what blocks: the coordinator's own, apart from the web's.

trio counts all threads of a run together by default, and the web's requests are run by that count.  With a
database that stalls, viewers would take every thread, and no round could be written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import outcome
import trio

_THREADS = 16  # more than the tasks that wait for a thread at the same moment
RETRY_S = 1.0  # between two attempts at what the database refused
GRACE_S = 10.0  # for a write when the process is stopped; longer than a slow disk, shorter than systemd waits
_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("coordinator threads")
R = TypeVar("R")


async def in_thread(call: Callable[..., R], *arguments: object) -> R:
    """
    What `call` returns or raises; a cancellation waits for it, as a transaction is better not left half way.

    For GRACE_S at most: what a database that does not answer made of it is found at the next start, as after kill -9.
    """
    patience = trio.CancelScope(shield=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end, patience)
        with patience:
            # What it raises is captured in there: out of here the nursery would wrap it in a group.
            made = await trio.to_thread.run_sync(
                outcome.capture, call, *arguments, limiter=_own(), abandon_on_cancel=True
            )
        nursery.cancel_scope.cancel()
    if patience.cancelled_caught:
        await trio.sleep_forever()  # the cancellation that ended the patience is still there
    return made.unwrap()


async def _end(patience: trio.CancelScope) -> None:
    try:
        await trio.sleep_forever()
    finally:
        patience.deadline = trio.current_time() + GRACE_S


async def look_up(call: Callable[..., R], *arguments: object) -> R:
    """The same for what only reads: a cancellation leaves it behind."""
    return await trio.to_thread.run_sync(call, *arguments, limiter=_own(), abandon_on_cancel=True)


def _own() -> trio.CapacityLimiter:
    try:
        return _limiter.get()
    except LookupError:
        _limiter.set(trio.CapacityLimiter(_THREADS))
        return _limiter.get()
