"""
Worker threads for what blocks: the coordinator's own, apart from the web's.

trio counts all threads of a run together unless told otherwise, and the web's requests are run by that count.  With a
database that stalls, viewers would take every thread, and no round could be written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

_THREADS = 16  # more than the tasks that wait for a thread at the same moment
_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("coordinator threads")
R = TypeVar("R")


async def in_thread(call: Callable[..., R], *arguments: object) -> R:
    """What `call` returns or raises; a cancellation waits for it, as a transaction is not left half way."""
    return await trio.to_thread.run_sync(call, *arguments, limiter=_own())


async def look_up(call: Callable[..., R], *arguments: object) -> R:
    """The same for what only reads: a cancellation leaves it behind."""
    return await trio.to_thread.run_sync(call, *arguments, limiter=_own(), abandon_on_cancel=True)


def _own() -> trio.CapacityLimiter:
    try:
        return _limiter.get()
    except LookupError:
        _limiter.set(trio.CapacityLimiter(_THREADS))
        return _limiter.get()
