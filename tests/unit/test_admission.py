"""Joins wait until their certificate is in the enrolment log, and hold nobody up meanwhile."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from coordinator.events import Event, JoinAccepted
from coordinator.gwa.admission import Admission
from coordinator.storage.gateways import GatewayRecord, GatewayStatus
from protocol import wire

NOW_S = 1_772_000_000.0
NAMES = [f"ESTK{index:010}" for index in range(100)]


def record(name: str) -> GatewayRecord:
    return GatewayRecord(name, "north", name.encode(), b"", b"", GatewayStatus.ACTIVE, 0, None, None)


class Directory:
    def some(self, names: Sequence[str]) -> dict[str, GatewayRecord]:
        return {name: record(name) for name in names}

    def revoked(self) -> list[str]:
        return []

    def count_by_area(self) -> dict[str, int]:
        return {"north": len(NAMES)}


async def at_once(call: Callable[..., Any], *arguments: object) -> Any:
    await trio.lowlevel.checkpoint()
    return call(*arguments)


async def test_a_join_waits_for_the_log_and_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr("coordinator.gwa.admission.check_join", lambda *_: "joined")
    monkeypatch.setattr("coordinator.gwa.admission.look_up", at_once)  # the clock would not wait for a thread
    missing = {hashlib.sha256(name.encode()).digest() for name in NAMES[:70]}  # more than are looked up at once
    accepted: list[str] = []
    every_known = trio.Event()

    def emit(event: Event) -> None:
        if isinstance(event, JoinAccepted):
            accepted.append(event.identity)
            if len(accepted) == len(NAMES) - 1:
                every_known.set()

    def logged(digests: Collection[bytes]) -> set[bytes]:
        return set(digests) - missing

    admission = Admission(cast("Any", Directory()), lambda: NOW_S + trio.current_time(), emit, logged)
    call = cast("Any", SimpleNamespace(epoch=1))
    message = cast("wire.Join", None)
    begun_s = NOW_S + trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admission.run)
        for name in NAMES:
            admission.join(call, name, message, begun_s + (1e6 if name != NAMES[0] else 5))
        await trio.sleep(3)
        assert sorted(accepted) == NAMES[70:]
        await trio.sleep(3)  # the first one's window closes
        missing.clear()
        with trio.fail_after(120):
            await every_known.wait()
        nursery.cancel_scope.cancel()
    assert sorted(accepted) == NAMES[1:]
