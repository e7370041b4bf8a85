"""
Gateways that leave for good: what they owe is paid, the coordinator is told, and then nothing of them stays.

The steps and what makes them resumable are `node.leave_records`'s.  Deleting is by key where it can be: a gateway's own
keys and epoch seeds go first, its rows in the store are overwritten; with the last gateway of a node its storage key
goes, without which no copy of the store opens, and then the files.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import httpx
import trio

from node.config import NodeConfig
from node.leave_records import Leave, LeaveRecords, LeaveState
from node.lmn.profiles import MeterProfile
from node.security.module import GatewaySecurityModule, KeyDirectory
from node.security.record import erase_file
from node.security.storage_key import FILE_NAME
from node.storage.engine import Store
from node.storage.repositories.departed import DepartedRepository
from node.wan.leaving import announce_leave
from protocol.errors import StromkreisError
from protocol.log_limit import LogLimiter

log = logging.getLogger(__name__)
_LOOK_S = 1.0  # between two looks for requests, and whether something is still owed
_LINE_S = 60.0  # between two log lines about one gateway whose leave does not get on
_PAUSE_S_MAX = 60.0  # between two attempts to tell the coordinator


class Leaver(Protocol):
    """A gateway that runs."""

    identity: str

    def leave(self) -> None: ...  # noqa: D102
    def owed(self, *, discard: bool) -> list[str]: ...  # noqa: D102
    async def stop(self) -> None: ...  # noqa: D102


class Departures:
    """
    Those of one node; `run` serves until the last of its gateways has left.

    `meters` are each gateway's, also of those that are revoked; `going` is called before one is deleted: nothing of it
    may be written any more.  `gone` is called after it has left, with nothing of it here any more.
    """

    def __init__(
        self, records: LeaveRecords, keys: KeyDirectory, store: Store, meters: Mapping[str, Sequence[MeterProfile]],
        going: Callable[[str], None], gone: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._records = records
        self._keys = keys
        self._departed = DepartedRepository(store)
        self._meters = meters
        self._going = going
        self._gone = gone
        self._staying = set(meters)
        self._lines = LogLimiter(_LINE_S, trio.current_time)
        self._pauses: dict[str, tuple[float, float]] = {}  # until when, and how long the next one is
        self.asked = 0
        """How many were asked to leave and have not yet."""

    async def finish(self) -> None:
        """Delete what a crash has left of gateways that are revoked.  Raises StromkreisError, OSError."""
        for leave in self._records.read().values():
            if leave.state is LeaveState.TOLD:
                await self._delete(leave)

    async def run(
        self, client: httpx.AsyncClient, running: Sequence[Leaver], modules: Sequence[GatewaySecurityModule]
    ) -> None:
        """Carry requests out, until nobody stays."""
        while self._staying:
            asked = [each for each in self._read() if each.gateway in self._staying]
            self.asked = len(asked)
            for leave in asked:
                gateway = next((each for each in running if each.identity == leave.gateway), None)
                module = next((each for each in modules if each.identity == leave.gateway), None)
                if gateway is not None and module is not None:
                    await self._advance(leave, gateway, partial(announce_leave, client, module))
            await trio.sleep(_LOOK_S)

    def _read(self) -> Iterable[Leave]:
        try:
            return self._records.read().values()
        except StromkreisError as error:
            self._say("the requests to leave", error)
            return ()

    async def _advance(self, leave: Leave, gateway: Leaver, announce: Callable[[], Awaitable[None]]) -> None:
        gateway.leave()
        until_s, pause_s = self._pauses.get(leave.gateway, (0.0, _LOOK_S))
        try:
            if leave.state is LeaveState.ASKED:
                owed = tuple(gateway.owed(discard=leave.discard))
                if owed != leave.owes:
                    self._records.keep(replace(leave, owes=owed))
                if owed:
                    return
                self._records.keep(leave := replace(leave, state=LeaveState.PAID, owes=()))
            if trio.current_time() < until_s:
                return
            if leave.state is not LeaveState.TOLD:  # else deleting has failed, and its keys may be gone
                await announce()
                self._records.keep(leave := replace(leave, state=LeaveState.TOLD))
            await gateway.stop()
            await self._delete(leave)
        except (httpx.HTTPError, OSError, StromkreisError) as error:
            self._pauses[leave.gateway] = trio.current_time() + pause_s, min(_PAUSE_S_MAX, 2 * pause_s)
            self._say(f"gateway {leave.gateway} leaves later", error)

    async def _delete(self, leave: Leave) -> None:
        """Nothing of it may stay, and none of it may be sent again: keys first."""
        name = leave.gateway
        self._going(name)
        self._keys.erase(name)
        mine = self._meters.get(name, ())
        await self._departed.delete(name, [each for meter in mine for each in (meter.device, meter.meter_id)])
        self._records.keep(replace(leave, state=LeaveState.LEFT, left_ms=round(time.time() * 1000)))
        self._staying.discard(name)
        log.warning("gateway %s has left for good; its keys and its data are deleted", name)
        self._gone(name)

    def _say(self, what: str, error: Exception) -> None:
        if self._lines.is_due(what):
            log.warning("%s, tried again: %s", what, str(error) or type(error).__name__)


def erase_node(config: NodeConfig) -> list[str]:
    """
    Delete what a node keeps for all of its gateways, once all have left; twice is no error.

    Returns the gateways whose keys are here all the same, since the configuration does not name them any more: they
    were never asked to leave, and nothing is deleted then.  Raises OSError.
    """
    if others := sorted(each.stem for each in config.keys_path.glob("*.json")):
        return others
    erase_file(config.keys_path / FILE_NAME)  # without it no copy of the store opens
    kept = [config.store_path, config.seeds_path]
    for path in (
        *kept,
        *(each.with_name(f"{each.name}{end}") for each in kept for end in ("-wal", "-shm", "-journal")),
    ):
        path.unlink(missing_ok=True)
    for name in ("coordinator.json", "revocation-lists.pem"):
        (config.data_dir / name).unlink(missing_ok=True)
    return []
