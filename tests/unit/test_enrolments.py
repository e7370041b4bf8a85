"""A node's gateways while the coordinator is away or refuses: who is enrolled serves."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import node.wan.enrolments
from node.gateway_config import GatewayConfig
from node.wan.enrolment import CoordinatorAwayError, EnrolmentRefusedError, RingService
from node.wan.enrolments import Enrolments
from protocol.errors import StromkreisError

IDS = ("ESTK0000000001", "ESTK0000000002", "ESTK0000000003")


class Coordinator:
    """Stands for `Enroller`: away until `is_here`, and it refuses some for good."""

    def __init__(self, refused: tuple[str, ...] = ()) -> None:
        self.is_here = False
        self.may_pass = False
        self._refused = refused

    async def __aenter__(self) -> "Coordinator":
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def enrol(self, module: Any, gateway: GatewayConfig) -> RingService:
        if module.certificate is None:
            await trio.sleep(120)
            if gateway.id in self._refused:
                raise EnrolmentRefusedError(f"gateway {gateway.id}: refused", may_pass=self.may_pass)
            if not self.is_here:
                raise CoordinatorAwayError("nobody answers")
        return RingService("tcp://c", bytes(32), bytes(32), bytes(32))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Enrolments]:
    def make(coordinator: Coordinator, *enrolled: str) -> Enrolments:
        monkeypatch.setattr(node.wan.enrolments, "Enroller", lambda _config: coordinator)

        async def begin(_gateway: str, _what: object) -> None:
            await trio.lowlevel.checkpoint()

        keys: Any = SimpleNamespace(
            open=lambda name: SimpleNamespace(identity=name, certificate=b"" if name in enrolled else None)
        )
        gateways = [GatewayConfig(id=name, meters=("sml+tcp://a:1",)) for name in IDS]
        store: Any = SimpleNamespace(begin=begin)
        config: Any = None
        return Enrolments(config, gateways, keys, store, store, lambda: 0.0)

    return make


def names(enrolments: Enrolments) -> list[str]:
    return sorted(each.module.identity for each in enrolments.enrolled)


async def test_an_enrolled_gateway_waits_for_no_other(
    autojump_clock: MockClock, made: Callable[..., Enrolments], caplog: pytest.LogCaptureFixture
) -> None:
    coordinator = Coordinator()
    enrolments = made(coordinator, IDS[1])
    async with trio.open_nursery() as nursery:
        await nursery.start(enrolments.run)
        assert names(enrolments) == [IDS[1]]
        await trio.sleep(3600)
        assert (names(enrolments), enrolments.waiting) == ([IDS[1]], 2)
        assert f"gateway {IDS[0]} waits to be enrolled, the others serve: nobody answers" in caplog.text
        coordinator.is_here = True
    assert names(enrolments) == sorted(IDS)
    assert sorted(each.place for each in enrolments.enrolled) == [0, 1, 2]


async def test_a_refused_gateway_costs_no_other(
    autojump_clock: MockClock, made: Callable[..., Enrolments], caplog: pytest.LogCaptureFixture
) -> None:
    coordinator = Coordinator(refused=(IDS[0],))
    coordinator.is_here = True
    enrolments = made(coordinator)
    changed = enrolments.changed
    await enrolments.run()
    assert changed.is_set()
    assert (names(enrolments), enrolments.waiting) == (list(IDS[1:]), 0)
    assert f"gateway {IDS[0]} stays out until it is enrolled at the next start" in caplog.text


async def test_a_gateway_whose_id_is_released_is_enrolled_without_a_restart(
    autojump_clock: MockClock, made: Callable[..., Enrolments], caplog: pytest.LogCaptureFixture
) -> None:
    coordinator = Coordinator(refused=(IDS[0],))
    coordinator.is_here = coordinator.may_pass = True
    enrolments = made(coordinator)
    async with trio.open_nursery() as nursery:
        await nursery.start(enrolments.run)
        await trio.sleep(1_000)
        assert (names(enrolments), enrolments.waiting) == (list(IDS[1:]), 0)  # the others are whole without it
        assert f"gateway {IDS[0]} stays out and asks again" in caplog.text
        coordinator._refused = ()
    assert (names(enrolments), enrolments.waiting) == (sorted(IDS), 0)


async def test_a_node_whose_gateways_are_all_refused_ends(
    autojump_clock: MockClock, made: Callable[..., Enrolments]
) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await made(Coordinator(refused=IDS)).run()
    assert caught.group_contains(StromkreisError, match="refused")
