"""
When this process began, as far as contributions are concerned, and whether it has ended without noticing.

A process that was killed leaves no trace of what it sent last, so the next one contributes no interval that began
before it.  A fork, or a machine that was stopped, copied or put back to a snapshot and goes on, is a new process too,
and is not informed.  A fork shows in the process id.  A machine that stood still shows in the difference between
CLOCK_REALTIME, which somebody sets right afterwards, and CLOCK_MONOTONIC, which does not count the time.  A copy whose
clock is not set right shows in nothing here; the nonces of docs/explanation/protocol.md are against those.

Where the gateways' clock is kept by a time service (node.timekeeping), its steps count as well: whoever sets it forward
within a quarter hour makes that a minute, and what is contributed for it the power of that minute.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import trio

JUMP_S = 30.0
_LOOK_S = 1.0


class ProcessStart:
    """
    `started_s` is the gateways' clock's time (Unix, s).

    The functions are the system's clocks, the process id, and the gateways' clock where that is not the system's.
    """

    __slots__ = ("_clocks", "_monotonic", "_offsets_s", "_process", "_process_id", "started_s")

    def __init__(
        self, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic,
        process_id: Callable[[], int] = os.getpid, kept: Callable[[], float] | None = None,
    ) -> None:  # fmt: skip
        self._clocks = (clock,) if kept is None else (clock, kept)
        self._monotonic = monotonic
        self._process_id = process_id
        self._process = process_id()
        self.started_s = self._clocks[-1]()
        self._offsets_s = self._offsets()

    def _offsets(self) -> list[float]:
        now_s = self._monotonic()
        return [clock() - now_s for clock in self._clocks]

    def is_over(self) -> bool:
        """Whether this is a fork of that process, or one of its clocks has jumped by over `JUMP_S`."""
        if self._process_id() != self._process:
            return True
        return any(abs(now - then) > JUMP_S for now, then in zip(self._offsets(), self._offsets_s, strict=True))

    async def wait_until_over(self) -> None:
        """Return when it is; asks each second."""
        while not self.is_over():
            await trio.sleep(_LOOK_S)
