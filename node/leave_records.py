"""
Which gateways of a node leave for good, and how far each has come: a small file for each, durable at every step.

The command `stromkreis leave` writes a request, the node does the rest, also after a crash at any point:

- ASKED: it joins no further epoch, and pays what it owes: its epochs' ends, bills, deliveries;
- PAID: it owes nothing, and the coordinator is told; whether it knows already is not known, so nothing is asked of it;
- TOLD: the coordinator has revoked it; nothing of it may start or be sent any more, what is here is being deleted;
- LEFT: nothing of it is here but this file, which keeps a configuration that still names it from enrolling it anew.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from protocol.durable import flush_directory
from protocol.errors import StromkreisError

_DIRECTORY: Final = "leaving"


class LeaveState(StrEnum):
    """How far a gateway has come."""

    ASKED = "asked"
    PAID = "paid"
    TOLD = "told"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Leave:
    """
    One gateway's file.

    `discard`: it does not wait for bills and deliveries.  `owes` is what it waits for, in words.  Times are Unix, ms.
    """

    gateway: str
    state: LeaveState
    asked_ms: int
    discard: bool = False
    owes: tuple[str, ...] = ()
    left_ms: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether the coordinator knows: the gateway must not start any more."""
        return self.state in {LeaveState.TOLD, LeaveState.LEFT}


class LeaveRecords:
    """The files of one node, below its `data_dir`."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self.directory = data_dir / _DIRECTORY

    def read(self) -> Mapping[str, Leave]:
        """All of them by gateway.  Raises StromkreisError for a file that is damaged: none of it may start then."""
        return {each.gateway: each for each in map(_load, sorted(self.directory.glob("*.json")))}

    def ask(self, gateway: str, now_ms: int, *, discard: bool) -> Leave:
        """
        Ask a gateway to leave; durable on return.  One that was asked before only takes `discard` along, if it is set.

        Raises OSError.
        """
        known = self.read().get(gateway)
        if known is not None and (known.state is not LeaveState.ASKED or known.discard or not discard):
            return known
        asked = Leave(gateway, LeaveState.ASKED, now_ms) if known is None else known
        self.keep(asked := replace(asked, discard=discard))
        return asked

    def keep(self, leave: Leave) -> None:
        """Write a file, whole and durable.  Raises OSError."""
        is_new = not self.directory.exists()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # By descriptors: the command may be root's, and whoever owns the directory could have links in it.
        opened = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            self._put(opened, leave)
            os.fsync(opened)
        finally:
            os.close(opened)
        if is_new:
            flush_directory(self._data_dir)

    def _put(self, directory: int, leave: Leave) -> None:
        temporary = f".{leave.gateway}.{secrets.token_hex(8)}"
        created = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
        try:
            with os.fdopen(created, "w") as file:
                file.write(json.dumps(asdict(leave)))
                file.flush()
                os.fsync(file.fileno())
                if os.geteuid() == 0:  # the node is not root's
                    owner = self._data_dir.stat()
                    for each in (file.fileno(), directory):
                        os.fchown(each, owner.st_uid, owner.st_gid)
            os.replace(temporary, f"{leave.gateway}.json", src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
            raise


def _load(path: Path) -> Leave:
    try:
        stored: dict[str, Any] = json.loads(path.read_text())
        if stored["gateway"] != path.stem:
            raise ValueError
        state, owes = LeaveState(stored.pop("state")), tuple(map(str, stored.pop("owes")))
        return Leave(**stored, state=state, owes=owes)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StromkreisError(
            f"{path}: expected the state of a gateway that leaves ({type(error).__name__}). Remove the file only where"
            " the gateway is to stay, and ask it anew to leave where it is not"
        ) from error
