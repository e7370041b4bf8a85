"""A supervisor as a process of its own, run by test_firmware_supervisor.py: `supervised.py DIRECTORY CONFIRM_S`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import trio

from node.firmware.slots import FirmwareDirectory
from node.firmware.supervisor import Supervisor


async def main(supervisor: Supervisor) -> None:
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run, stop)
            async for _ in signals:
                stop.set()
                return


if __name__ == "__main__":
    made = Supervisor(FirmwareDirectory(Path(sys.argv[1])), [], float(sys.argv[2]))
    trio.run(main, made)
    sys.exit(made.exit_code)
