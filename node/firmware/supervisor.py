"""
The supervisor of a node: starts the release in force, tries a staged one, and goes back where that does not come up.

It is the program that was installed by hand, and stays that: nothing that comes over the network replaces it.  The node
is a child process with the slot's files first on its path.  A new release must confirm itself in time
(`FirmwareDirectory.confirm`); one that ends before, or is still not ready then, is stopped and never started again
under the same order.  What of all this was done stands in the firmware directory before the next step, so a supervisor
that is killed goes on: a trial that was cut off is started once more, and no oftener.

    stateDiagram: in force -> tried (staged, due or restarted) -> in force (confirmed) | the one before (rolled back)

The child ends with the supervisor: it holds the end of a pipe (STROMKREIS_LIFELINE).
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import trio

from node.firmware.slots import FirmwareDirectory, FirmwareStatus, SlotRecord
from protocol.errors import RemoteProtocolError
from protocol.profiles.firmware import version_numbers

log = logging.getLogger(__name__)
SUPERVISED: Final = "STROMKREIS_SUPERVISED"
"""Set in the environment of a node that has a supervisor."""
TRIAL_STARTS_MAX: Final = 2
"""A machine may lose power while a release is tried; one that fails each time is not tried for ever."""
STOP_S: Final = 60.0
"""For a node that is not ready in time to end by itself: longer than it waits for a round (`drain_s`)."""


def is_supervised() -> bool:
    """Whether this process is a node with a supervisor."""
    return os.environ.get(SUPERVISED) == "1"


class Supervisor:
    """
    Runs `python -m stromkreis` with `arguments` from the slots of a directory.

    `confirm_s` is how long a new release has to confirm itself.  `installed` is the version that was installed by hand:
    no older release is started, which may lack what it mends.
    """

    def __init__(
        self, directory: FirmwareDirectory, arguments: Sequence[str], confirm_s: float, installed: str
    ) -> None:  # fmt: skip
        self._directory = directory
        self._arguments = arguments
        self._confirm_s = confirm_s
        self._installed = installed
        self.exit_code = 0

    async def run(self, stop: trio.Event) -> None:
        """
        Serve until the node ends by itself, or `stop` is set and it has ended; `exit_code` is its then.

        Raises OSError where the firmware directory cannot be written.
        """
        while True:
            slot, is_trial = self._choose()
            self.exit_code, is_late = await self._run_node(slot, stop, is_trial=is_trial)
            if stop.is_set():
                return
            status = self._directory.read()
            if is_trial and status.trial is not None:
                self._roll_back(status, "not_confirmed" if is_late else "ended")
            elif not status.is_due:
                return

    def _choose(self) -> tuple[str | None, bool]:
        """The slot to start, None for the installed program, and whether it is tried; durable before it is started."""
        status = self._directory.read()
        try:
            if status.staged is not None:
                status = self._directory.begin_trial()
            if status.trial is not None and self._may_try(status):
                self._directory.count_start()
                return status.trial, True
        except OSError as error:  # a full disk must not keep the release in force from running
            log.error("no firmware is tried, the state cannot be written: %s", error.strerror)
        status = self._directory.read()
        if status.current is not None and not self._directory.is_whole(status.current):
            log.error("slot %s was altered: the program runs that was installed by hand", status.current)
            status = self._directory.drop_current("altered")
        elif self._is_superseded(status.record(status.current)):
            log.warning("slot %s is older than the program that was installed by hand, which runs", status.current)
            status = self._directory.drop_current("superseded")
        return status.current, False

    def _may_try(self, status: FirmwareStatus) -> bool:
        """Whether the release may be started as a trial; where it may not, it is rolled back."""
        if status.starts >= TRIAL_STARTS_MAX:
            self._roll_back(status, "cut_off")
        elif status.trial is None or not self._directory.is_whole(status.trial):
            self._roll_back(status, "altered")
        elif self._is_superseded(status.record(status.trial)):
            self._roll_back(status, "superseded")
        else:
            return True
        return False

    def _is_superseded(self, record: SlotRecord | None) -> bool:
        try:
            return record is not None and version_numbers(record.version) < version_numbers(self._installed)
        except RemoteProtocolError:  # a version under development cannot be compared, and must not keep a node down
            return False

    def _roll_back(self, status: FirmwareStatus, reason: str) -> None:
        record = status.record(status.trial)
        version = "" if record is None else record.version
        log.error("firmware %s did not come up (%s): the release before it runs again", version, reason)
        self._directory.roll_back(reason)

    async def _run_node(self, slot: str | None, stop: trio.Event, *, is_trial: bool) -> tuple[int, bool]:
        """The exit code of the node, and whether it was ended because it had not confirmed itself in time."""
        record = self._directory.read().record(slot)
        log.info("the node starts: %s", "installed program" if record is None else f"firmware {record.version}")
        node = await trio.lowlevel.open_process(
            [*_program(slot), *self._arguments], stdin=subprocess.PIPE, env=self._environment(slot), process_group=0,
        )  # fmt: skip
        is_late = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_stop_with, node, stop)
                if is_trial:
                    with trio.move_on_after(self._confirm_s) as patience:
                        await node.wait()
                    if patience.cancelled_caught and self._directory.read().trial is not None:
                        is_late = True
                        await _end(node)
                await node.wait()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await _end(node)
                if node.stdin is not None:
                    await node.stdin.aclose()
        code = await node.wait()
        return (code if code >= 0 else 128 - code), is_late

    def _environment(self, slot: str | None) -> Mapping[str, str]:
        environment = {**os.environ, SUPERVISED: "1", "STROMKREIS_LIFELINE": "stdin"}
        if slot is not None:
            paths = [str((self._directory.path / slot).resolve()), os.environ.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        return environment


def _program(slot: str | None) -> list[str]:
    # -P: a slot's files come first, not those of the working directory.
    return [sys.executable, *(() if slot is None else ("-P",)), "-m", "stromkreis"]


async def _stop_with(node: trio.Process, stop: trio.Event) -> None:
    await stop.wait()
    node.send_signal(signal.SIGTERM)


async def _end(node: trio.Process) -> None:
    """Have it end by itself, and kill it where it does not in time."""
    if node.poll() is not None:
        return
    node.send_signal(signal.SIGTERM)
    with trio.move_on_after(STOP_S):
        await node.wait()
        return
    log.error("the node does not end: killed")
    node.kill()
    await node.wait()
