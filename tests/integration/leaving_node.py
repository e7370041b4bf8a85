"""
A node that kills itself with SIGKILL while a gateway of it leaves for good, run by test_leave.py.

`leaving_node.py MOMENT CONFIG`: it dies before or after the write of a state (`told`, `left`), or when the keys
(`keys`) or the rows (`rows`) of the gateway have just been deleted.
"""

import os
import signal
import sys
from typing import Any

from node.leave_records import Leave, LeaveRecords
from node.security.module import KeyDirectory
from node.storage.repositories.departed import DepartedRepository
from stromkreis.__main__ import main


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str) -> None:
    keep, erase, delete = LeaveRecords.keep, KeyDirectory.erase, DepartedRepository.delete

    def keeping(mine: LeaveRecords, leave: Leave) -> None:
        if moment == f"before-{leave.state}":
            die()
        keep(mine, leave)
        if moment == f"after-{leave.state}":
            die()

    def erasing(mine: KeyDirectory, identity: str) -> None:
        erase(mine, identity)
        if moment == "keys":
            die()

    async def deleting(mine: DepartedRepository, *arguments: Any) -> None:
        await delete(mine, *arguments)
        if moment == "rows":
            die()

    LeaveRecords.keep, KeyDirectory.erase = keeping, erasing  # type: ignore[method-assign, assignment]
    DepartedRepository.delete = deleting  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    arm(sys.argv[1])
    sys.argv[1:] = ["node", "--config", sys.argv[2], "--log-level", "DEBUG"]
    main()
