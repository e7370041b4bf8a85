"""
A small process beside a coordinator, which kills it where it hangs: else it would keep its ports from who takes over.

A coordinator that hangs (stopped, swapped out, in an endless loop) has lost its lease after STALLED_S, and the one that
stands by is the ring service; but on the same machine the hanging one still has the port that gateways call.  Nobody
can take a port away from a process that lives, so the process has to end.  It cannot end itself, so another one does:
its parent's event loop writes an octet each second, and after `hang_s` without one it sends SIGKILL, which also ends a
process that was stopped.  The end of its parent closes the pipe, and with it the watchdog.

Systems that restart services have the same (systemd's WatchdogSec, a liveness probe of Kubernetes); this one is there
where none is, and ends a process before its lease is taken, not after.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

log = logging.getLogger(__name__)
BEAT_S: Final = 1.0
HANG_S: Final = 12.0  # less than a lease stands without a beat (storage.lease.STALLED_S): the port is free by then
_PROCESS: Final = Path(__file__).with_name("watchdog_process.py")


async def watch_over_us(
    hang_s: float = HANG_S, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """
    Have this process killed once its event loop has stood still for `hang_s`; serves until cancelled.

    Reports the watchdog's process id.  A watchdog that is killed itself is started again.
    """
    while True:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)  # a watchdog that hangs must not have us hang
        with open(writer, "wb", buffering=0) as pipe:
            command = [sys.executable, "-I", "-S", str(_PROCESS), str(os.getpid()), str(hang_s)]
            try:  # in a session of its own: what stops our process group is to leave it running
                process = await trio.lowlevel.open_process(command, stdin=reader, start_new_session=True)
            finally:
                os.close(reader)
            task_status.started(process.pid)
            task_status = trio.TASK_STATUS_IGNORED
            try:
                while process.poll() is None:
                    with suppress(BrokenPipeError):
                        pipe.write(b"\n")
                    await trio.sleep(BEAT_S)
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
        log.warning("the watchdog has ended and is started again")
