"""
The watchdog's own process (see coordinator.watchdog): the standard library alone, so that it takes some megabytes.

`watchdog_process.py PID SECONDS`, with the parent's pipe as standard input.
"""

import os
import select
import signal
import sys


def watch(parent: int, hang_s: float) -> None:
    """Return once the parent has ended, or kill it where no octet has come for `hang_s`."""
    while select.select([0], [], [], hang_s)[0]:
        if not os.read(0, 4096):
            return
    sys.stderr.write(f"coordinator, process {parent}: its event loop has stood still for {hang_s:g} s; it is killed\n")
    os.kill(parent, signal.SIGKILL)


if __name__ == "__main__":
    watch(int(sys.argv[1]), float(sys.argv[2]))
