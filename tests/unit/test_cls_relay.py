"""Limits of a tunnel, and what the gateway's log has of many of them; on a clock that jumps."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from node.cls.relay import End, RateLimit, Traffic, relay
from node.cls.tunnel_log import PERIOD_S, TunnelLog
from protocol.errors import RemoteProtocolError
from protocol.logs.events import Event
from protocol.profiles.communication import ProxyProfile


class Talker:
    """An end that says something every `pause_s`, and takes what it gets after `slow_s`."""

    def __init__(self, pause_s: float = float("inf"), count: int = 1 << 30, slow_s: float = 0.0) -> None:
        self.pause_s, self.count, self.slow_s = pause_s, count, slow_s
        self.heard = 0
        self.error: Exception | None = None

    async def receive_some(self) -> bytes:
        await trio.sleep(self.pause_s)
        if self.error is not None:
            raise self.error
        self.count -= 1
        return b"x" * 100 if self.count >= 0 else b""

    async def send_all(self, content: bytes) -> None:
        await trio.sleep(self.slow_s)
        self.heard += len(content)


async def ended(home: Talker, remote: Talker, **limits: float) -> tuple[End, Traffic, float]:
    traffic, begun_s = Traffic(), trio.current_time()
    limits = {"idle_s": 600.0, "duration_s": 86_400.0} | limits
    end = await relay(home, remote, RateLimit(), traffic, **limits)
    return end, traffic, trio.current_time() - begun_s


async def test_a_tunnel_in_which_nothing_moves_ends(autojump_clock: MockClock) -> None:
    end, traffic, took_s = await ended(Talker(), Talker(60.0, count=3), idle_s=300)
    assert end is End.REMOTE  # closed at 240 s, before it was idle for 300
    assert (traffic.sent, traffic.received) == (0, 300)
    end, _, took_s = await ended(Talker(), Talker(301.0), idle_s=300)
    assert (end, took_s) == (End.IDLE, 300)


async def test_a_busy_tunnel_ends_at_its_duration(autojump_clock: MockClock) -> None:
    end, traffic, took_s = await ended(Talker(60.0), Talker(), duration_s=7_200)
    assert (end, took_s) == (End.DURATION, 7_200)
    assert traffic.sent == 100 * (7_200 // 60 - 1)


async def test_an_end_that_takes_nothing_is_idle(autojump_clock: MockClock) -> None:
    home, remote = Talker(1.0), Talker(slow_s=float("inf"))
    end, traffic, took_s = await ended(home, remote, idle_s=30)
    assert (end, took_s, traffic.sent) == (End.IDLE, 30, 0)
    assert (1 << 30) - home.count == 1  # no second part was read


@pytest.mark.parametrize("error", [RemoteProtocolError("tls"), trio.BrokenResourceError()])
async def test_whose_fault_it_was_is_told(autojump_clock: MockClock, error: Exception) -> None:
    home, remote = Talker(1.0), Talker()
    home.error = error
    assert (await ended(home, remote))[0] is End.HOME_FAULT
    home, remote = Talker(), Talker(1.0)
    remote.error = error
    assert (await ended(home, remote))[0] is End.REMOTE_FAULT


async def test_all_tunnels_together_move_so_much_in_a_second(autojump_clock: MockClock) -> None:
    rate = RateLimit(1_000)
    begun_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(rate.spend, 1_000)
    assert 9 <= trio.current_time() - begun_s <= 10
    await trio.sleep(100)  # what was not used does not gather
    begun_s = trio.current_time()
    for _ in range(10):
        await rate.spend(1_000)
    assert 9 <= trio.current_time() - begun_s <= 10


async def test_what_passes_is_what_was_sent() -> None:
    near, home = memory_stream_pair()
    remote, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: relay(home, remote, RateLimit(), Traffic(), idle_s=60, duration_s=60))
        await near.send_all(b"up")
        await far.send_all(b"down")
        assert (await far.receive_some(), await near.receive_some()) == (b"up", b"down")
        await near.send_eof()


def proxy(system: str = "heat-pump") -> ProxyProfile:
    return ProxyProfile(
        id=f"x-{system}", cls=system, participant="Stadtwerke", address="127.0.0.1:1", server_name="emp.example",
        participant_certificate="00" * 32, initiators=("cls",), valid_from=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


async def test_a_thousand_tunnels_a_minute_are_two_entries(autojump_clock: MockClock) -> None:
    noted: list[tuple[Event, dict[str, Any]]] = []
    log = TunnelLog(lambda event, **parameters: noted.append((event, parameters)))
    with trio.move_on_after(10 * PERIOD_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.run)
            for _ in range(1_000):
                log.ended(proxy(), End.HOME, Traffic(3, 5))
                await trio.sleep(PERIOD_S / 2_000)
    first, rest = (parameters for _, parameters in noted)
    assert (first["count"], first["sent"], first["received"]) == (1, 3, 5)
    assert (rest["count"], rest["sent"], rest["received"]) == (999, 2_997, 4_995)


async def test_what_has_gathered_is_written_at_the_end(autojump_clock: MockClock) -> None:
    noted: list[tuple[Event, dict[str, Any]]] = []
    log = TunnelLog(lambda event, **parameters: noted.append((event, parameters)))
    with trio.move_on_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.run)
            for _ in range(3):
                log.opened(proxy())
            log.opened(proxy("wallbox"))
            log.refused("-", "too_slow")
    assert [parameters["count"] for _, parameters in noted] == [1, 1, 1, 2]
