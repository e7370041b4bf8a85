"""When a gateway begins a tunnel by itself: times, events, attempts; on a clock that jumps."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import trio
from pydantic import ValidationError
from trio.testing import MockClock

from node.cls.initiator import ATTEMPTS, CONNECTED, EVENT_PAUSE_S, PAUSE_S, TunnelInitiator
from protocol.logs.events import Event
from protocol.profiles import communication
from protocol.profiles.base import canonical_json
from protocol.profiles.communication import ProxyProfile

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)


def proxy(**changed: Any) -> ProxyProfile:
    given: dict[str, Any] = {
        "id": "x1", "cls": "heat-pump", "participant": "Stadtwerke", "address": "127.0.0.1:1",
        "server_name": "emp.example", "participant_certificate": "00" * 32, "initiators": ("gateway",),
        "cls_address": "127.0.0.1:2", "valid_from": MIDNIGHT,
    }  # fmt: skip
    return ProxyProfile(**given | changed)


@dataclass
class Profiles:
    proxy: tuple[ProxyProfile, ...]
    changed: trio.Event = field(default_factory=trio.Event)

    @property
    def current(self) -> Profiles:
        return self


@dataclass
class Home:
    """In the place of `Tunnels`: time goes on with trio's clock, and steps by `step_s`."""

    profiles: Profiles
    step_s: float = 0.0

    def __post_init__(self) -> None:
        self.start_s = trio.current_time()

    def now(self) -> datetime:
        return MIDNIGHT + timedelta(seconds=trio.current_time() - self.start_s + self.step_s)

    async def home_key(self) -> None:
        return None


class Recorder(TunnelInitiator):
    """Writes down when it begins, and says what has become of it."""

    def __init__(self, home: Home) -> None:
        super().__init__(home, random.Random(0))  # type: ignore[arg-type]
        self.home = home
        self.begun_s: list[float] = []
        self.outcome = CONNECTED

    async def begin(self, proxy_id: str, initiator: str, duration_s: int | None = None) -> str:
        assert (proxy_id, initiator, duration_s) == ("x1", "gateway", None)
        self.begun_s.append(trio.current_time() - self.home.start_s)
        return self.outcome


async def test_a_gateway_begins_at_multiples_of_the_period(autojump_clock: MockClock) -> None:
    recorder = Recorder(Home(Profiles((proxy(begin_every_s=3_600, begin_offset_s=600),))))
    with trio.move_on_after(3 * 3_600):
        await recorder.run()
    assert [round(each) for each in recorder.begun_s] == [600, 4_200, 7_800]


async def test_a_clock_that_is_set_begins_an_occasion_once(autojump_clock: MockClock) -> None:
    home = Home(Profiles((proxy(begin_every_s=3_600),)))
    recorder = Recorder(home)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.run)
        await trio.sleep(3_700)
        home.step_s = -200  # the hour comes again
        await trio.sleep(400)
        assert len(recorder.begun_s) == 1
        home.step_s = 2 * 3_600
        await trio.sleep(60)
        assert len(recorder.begun_s) == 2
        nursery.cancel_scope.cancel()


async def test_events_that_repeat_begin_once_a_minute(autojump_clock: MockClock) -> None:
    recorder = Recorder(Home(Profiles((proxy(begin_events=("meter_fault",)),))))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.run)
        for _ in range(3 * int(EVENT_PAUSE_S)):
            recorder.on_event(Event.METER_FAULT)
            recorder.on_event(Event.STARTED)
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert len(recorder.begun_s) == 3


async def test_what_was_noted_before_the_start_counts(autojump_clock: MockClock) -> None:
    recorder = Recorder(Home(Profiles((proxy(begin_events=("started",)),))))
    recorder.on_event(Event.STARTED)
    with trio.move_on_after(10):
        await recorder.run()
    assert len(recorder.begun_s) == 1


async def test_a_failed_beginning_is_tried_again_and_then_given_up(autojump_clock: MockClock) -> None:
    recorder = Recorder(Home(Profiles((proxy(begin_every_s=3_600),))))
    recorder.outcome = "no_answer"
    with trio.move_on_after(7_100):
        await recorder.run()
    assert len(recorder.begun_s) == ATTEMPTS
    assert all(PAUSE_S[0] <= after - before <= PAUSE_S[1] for before, after in pairwise(recorder.begun_s))


async def test_before_it_runs_nothing_is_opened() -> None:
    home = Home(Profiles((proxy(),)))
    assert await TunnelInitiator(home, random.Random(0)).begin("x1", "gateway") == "not_running"  # type: ignore[arg-type]


@pytest.mark.parametrize("changed", [{"initiators": ("cls",)}, {"cls_address": None}])
def test_times_want_a_gateway_that_may_begin_and_an_address(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="want gateway among initiators, and cls_address"):
        proxy(begin_every_s=60, **changed)


def test_a_profile_without_the_later_fields_has_the_octets_of_before() -> None:
    plain = canonical_json(proxy(cls_address=None))
    assert not any(each.encode() in plain for each in communication._LATER)
    full = proxy(begin_every_s=60, begin_offset_s=5, begin_events=("started",))
    assert ProxyProfile.model_validate_json(canonical_json(full)) == full
