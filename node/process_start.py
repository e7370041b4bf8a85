"""
When this process began, as far as contributions are concerned, and whether it has ended without noticing.

A process that was killed leaves no trace of what it sent last, so the next one contributes no interval that began
before it.  A fork, or a machine that was stopped, copied or put back to a snapshot and goes on, is a new process too,
and is not informed.  A fork shows in the process id.  A machine that stood still shows in the difference between
CLOCK_REALTIME, which somebody sets right afterwards, and CLOCK_MONOTONIC, which does not count the time.  A copy whose
clock is not set right shows in nothing here; the nonces of docs/explanation/protocol.md are against those.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import trio

JUMP_S = 30.0
_LOOK_S = 1.0


class ProcessStart:
    """`started_s` is the own clock's time (Unix, s).  The three functions are the clocks and the process id."""

    __slots__ = ("_clock", "_monotonic", "_offset_s", "_process", "_process_id", "started_s")

    def __init__(
        self, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic,
        process_id: Callable[[], int] = os.getpid,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._monotonic = monotonic
        self._process_id = process_id
        self._process = process_id()
        self.started_s = clock()
        self._offset_s = self.started_s - monotonic()

    def is_over(self) -> bool:
        """Whether this is a fork of that process, or its clock has jumped by over `JUMP_S`."""
        if self._process_id() != self._process:
            return True
        return abs(self._clock() - self._monotonic() - self._offset_s) > JUMP_S

    async def wait_until_over(self) -> None:
        """Return when it is; asks each second."""
        while not self.is_over():
            await trio.sleep(_LOOK_S)
