"""A supervisor as a process of its own, run by test_firmware_supervisor.py: `supervised.py DIRECTORY VERSION`."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import trio

from node.firmware.slots import FirmwareDirectory
from node.firmware.supervisor import Supervisor

CONFIRM_S = 600.0


class Clock(trio.abc.Clock):
    """Real time, and what is added to it."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def start_clock(self) -> None:
        """It always runs."""

    def current_time(self) -> float:
        return time.monotonic() + self.ahead_s

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - self.current_time()


async def main(supervisor: Supervisor, clock: Clock) -> None:
    """Serve until SIGTERM; after SIGUSR1 a release has had its time to confirm itself."""
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGUSR1) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run, stop)
            async for each in signals:
                if each == signal.SIGTERM:
                    stop.set()
                    return
                clock.ahead_s += CONFIRM_S


if __name__ == "__main__":
    made = Supervisor(FirmwareDirectory(Path(sys.argv[1])), [], CONFIRM_S, sys.argv[2])
    its_clock = Clock()
    trio.run(main, made, its_clock, clock=its_clock)
    sys.exit(made.exit_code)
