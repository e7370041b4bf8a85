"""The time service over real TLS: gateways set their clocks by it, and nobody else gets anything from it."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
import trio

import coordinator.gwa.time_service
from coordinator.gwa.ca import ROOT_FILE, TLS_CHAIN_FILE, TLS_KEY_FILE, CertificateAuthority
from coordinator.gwa.participants import administrator_keys
from coordinator.gwa.time_service import TimeService, kernel_state, vouched_state
from node.timekeeping.clock import Correction, Deviation, GatewayClock
from node.timekeeping.keeper import TimeKeeper, TimeServer
from protocol.link.tls import client_context, server_context
from protocol.ntp import ServerState

OFF_S = 5_000.0


@dataclass
class Service:
    """A running time service, its outcomes, and what a client needs."""

    pki: Path
    port: int
    client: ssl.SSLContext
    outcomes: Counter[str] = field(default_factory=Counter)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pki")
    now = datetime.now(UTC)
    administrator_keys(path, CertificateAuthority.create(path, now, hosts=["127.0.0.1"]), now)
    return path


@asynccontextmanager
async def serving(directory: Path, state: Callable[[], ServerState] = vouched_state) -> AsyncIterator[Service]:
    outcomes: Counter[str] = Counter()
    context = server_context(directory / TLS_CHAIN_FILE, directory / TLS_KEY_FILE, client_root=directory / ROOT_FILE)
    service = TimeService(state, lambda outcome: outcomes.update([outcome]))
    async with trio.open_nursery() as nursery:
        port = await nursery.start(service.serve, "127.0.0.1", 0, context)
        # Any certificate of the SM-PKI will do for a client; the administrator's is at hand.
        client = client_context(
            directory / ROOT_FILE, chain=directory / "gwa-tls.pem", key=directory / "gwa-tls.key"
        )  # fmt: skip
        yield Service(directory, port, client, outcomes)
        nursery.cancel_scope.cancel()


def keeper(service: Service, context: ssl.SSLContext | None = None) -> tuple[TimeKeeper, Counter[str]]:
    """A keeper whose clock is `OFF_S` behind."""
    outcomes: Counter[str] = Counter()
    clock = GatewayClock(lambda: datetime.now(UTC).timestamp() - OFF_S, trio.current_time)
    server = TimeServer("127.0.0.1", service.port, context or service.client)
    random = Random(1)
    return TimeKeeper(
        clock, server, 3_600, random.getrandbits, random, lambda outcome: outcomes.update([outcome])
    ), outcomes  # fmt: skip


async def test_clock_is_set_by_the_first_answer_and_slewed_by_the_next(directory: Path) -> None:
    async with serving(directory) as service:
        mine, outcomes = keeper(service)
        seen: list[Deviation] = []
        with mine.listening(seen.append):
            assert await mine.poll()
            assert await mine.poll()
        assert [each.correction for each in seen] == [Correction.FIRST, Correction.SLEWED]
        assert seen[0].offset_us == pytest.approx(OFF_S * 1_000_000, abs=20_000_000)
        assert mine.clock() == pytest.approx(datetime.now(UTC).timestamp(), abs=10)
        assert mine.is_for_billing()
        assert outcomes == {"taken": 2}
        assert service.outcomes["answered"] == 2


async def test_service_without_time_sets_no_clock(directory: Path) -> None:
    async with serving(directory, lambda: ServerState(is_synchronised=False)) as service:
        mine, outcomes = keeper(service)
        assert not await mine.poll()
        assert outcomes == {"ntp_not_synchronised": 1}
        assert not mine.clock.is_synchronised


async def test_client_without_certificate_gets_no_time(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(directory) as service:
        mine, outcomes = keeper(service, client_context(directory / ROOT_FILE))
        assert not await mine.poll()
        assert not await mine.poll()
        assert outcomes == {"ntp_no_connection": 2}
        assert service.outcomes["answered"] == 0
    lines = [each.message for each in caplog.records if each.name == "node.timekeeping.keeper"]
    assert len(lines) == 1  # once, until an answer comes again


async def test_server_of_another_pki_is_not_believed(directory: Path, tmp_path: Path) -> None:
    CertificateAuthority.create(tmp_path, datetime.now(UTC), hosts=["127.0.0.1"])
    async with serving(directory) as service:
        mine, outcomes = keeper(service, client_context(tmp_path / ROOT_FILE))
        assert not await mine.poll()
        assert outcomes == {"ntp_no_connection": 1}


async def test_service_that_is_not_there_is_named_once(directory: Path) -> None:
    async with serving(directory) as service:
        pass
    mine, outcomes = keeper(service)
    assert not await mine.poll()
    assert outcomes == {"ntp_no_connection": 1}


async def test_clock_that_runs_free_for_too_long_suspends_billing(directory: Path) -> None:
    async with serving(directory) as service:
        mine, _ = keeper(service)
        now_s = [0.0]
        mine.clock = GatewayClock(lambda: datetime.now(UTC).timestamp(), lambda: now_s[0])
        told: list[bool] = []
        with mine.listening(lambda _: None, told.append):
            assert await mine.poll()
            assert told == []
            mine.server = TimeServer("127.0.0.1", 1, service.client)
            now_s[0] += 6 * 86_400  # 50 ppm of 6 days are 26 s, of 7 days over 27
            assert not await mine.poll()
            assert told == []
            now_s[0] += 86_400
            for _ in range(2):
                assert not await mine.poll()
            assert told == [False]
            late: list[bool] = []
            with mine.listening(lambda _: None, late.append):
                assert late == [False]
            mine.server = TimeServer("127.0.0.1", service.port, service.client)
            while not mine.is_for_billing():  # one answer sets the clock, at most another one shows that it is right
                assert await mine.poll()
        assert told == [False, True]


async def test_octets_that_are_no_request_close_their_connection_alone(directory: Path) -> None:
    async with serving(directory) as service:
        bad = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", service.port, ssl_context=service.client, https_compatible=True
        )  # fmt: skip
        await bad.send_all(bytes(48))
        with trio.fail_after(120):
            assert await bad.receive_some(48) == b""
        await trio.aclose_forcefully(bad)
        assert service.outcomes == {"bad_ntp_request": 1}
        mine, _ = keeper(service)
        assert await mine.poll()


async def test_connections_are_bounded_and_come_free_again(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator.gwa.time_service, "_CONNECTIONS_MAX", 2)
    async with serving(directory) as service:
        silent = [await trio.open_tcp_stream("127.0.0.1", service.port) for _ in range(2)]
        mine, outcomes = keeper(service)
        with trio.fail_after(120):
            while not service.outcomes["too_many_connections"]:
                assert not await mine.poll()
        for each in silent:
            await each.aclose()
        with trio.fail_after(120):
            while not await mine.poll():
                await trio.sleep(0.01)
        assert outcomes["taken"] == 1


def test_kernel_says_whether_the_machines_clock_is_right() -> None:
    state = kernel_state()
    assert state.root_dispersion_us >= 0
    assert isinstance(state.is_synchronised, bool)
    assert abs(state.reference_us / 1_000_000 - datetime.now(UTC).timestamp()) < 5
