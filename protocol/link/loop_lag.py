"""How late the event loop is: a task that is due now waits so long until it is its turn."""

from __future__ import annotations

from collections.abc import Callable

import trio

_EVERY_S = 0.25


async def watch_loop(observe: Callable[[float], None]) -> None:
    """Hand each delay (s) over, four times a second, until cancelled."""
    while True:
        due_s = trio.current_time() + _EVERY_S
        await trio.sleep_until(due_s)
        observe(trio.current_time() - due_s)
