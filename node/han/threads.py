"""Where what the home asks for is read: in few worker threads, since the interpreter belongs to meters and rings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import trio

_T = TypeVar("_T")
_THREADS: Final = 2  # of one process
_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("han threads")


async def in_thread(work: Callable[[], _T]) -> _T:
    """Do `work` in one of them; raises what it raises."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(_THREADS)
        _limiter.set(limiter)
    return await trio.to_thread.run_sync(work, limiter=limiter)
