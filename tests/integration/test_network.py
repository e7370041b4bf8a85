"""Whole networks over real sockets: sums that are exact, and what comes back after something was taken away."""

import time
from collections import Counter
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec

from loadtest.config import MeterProtocol
from loadtest.network import Network
from loadtest.ports import free_port
from node.aggregation.membership import Membership
from node.security.module import KeyDirectory
from node.storage.cipher import store_cipher
from node.storage.repositories.gateway_logs import read_beside
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines.effects import Ended
from protocol.logs.chain import verify
from protocol.logs.events import Log
from protocol.wire import Outcome
from stromkreis.gateway_log import SignatureCheck


def opened(ended: Iterable[Ended]) -> list[Ended]:
    return [each for each in ended if each.outcome is Outcome.OPENED]


def full(network: Network) -> list[Ended]:
    """The opened rounds of which nobody is missing."""
    return [each for each in opened(network.ended()) if each.roster == (1 << network.ring_size) - 1]


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path, origin_unix_s=float(int(time.time())), period_s=1.0)


async def test_every_gateway_is_in_the_totals_and_epochs_follow_without_a_gap(network: Network) -> None:
    network.rounds = 6
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        await network.wait_until(lambda: len(full(network)) >= 5 and full(network)[-1].epoch > 0)
        ended = network.ended()
        nursery.cancel_scope.cancel()
    last = ended[-1].epoch
    assert [(each.epoch, each.round) for each in ended if each.epoch < last] == list(product(range(last), range(6)))
    assert all(each.total[0] == each.roster.bit_count() for each in opened(ended))


@pytest.mark.rounds
@pytest.mark.parametrize("line", ["tcp", "pty"])
async def test_one_ring_of_every_protocol_has_exact_totals(
    tmp_path: Path, line: Any, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network(
        tmp_path, gateways=27, ring_size=27, rounds=20, period_s=2.0, line=line,
        protocols=get_args(MeterProtocol),
        origin_unix_s=float(int(time.time()) + 30),  # meters stand still until all accounts have begun
    )  # fmt: skip
    caplog.set_level("DEBUG", "node")
    caplog.set_level("DEBUG", "loadtest")
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        assert Counter(entry.protocol for entry in network.meter_list) == dict.fromkeys(network.protocols, 3)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 27, "node")
        await network.wait_until(lambda: len(network.ended()) >= 7 and len(full(network)) >= 3)
        verdict = network.judged(network.ended())
        nursery.cancel_scope.cancel()
    assert verdict.differences == ()
    assert verdict.conservation_error_wh == 0
    assert verdict.energy_import_wh > 0
    assert verdict.energy_export_wh > 0
    public = {"system_title", "certificate", "meter_certificate"}
    secrets = [key for entry in network.meter_list for name, key in entry.keys.items() if name not in public]
    assert len(secrets) == 3 * (1 + 2 + 2 + 1 + 1)  # lks1, dlms and its push, wmbus, p1-encrypted
    assert not [key for key in secrets if key in caplog.text]
    assert not [key for key in secrets if key in repr(network.meter_list)]


async def test_rings_run_through_the_coordinators_relay(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    network.relay = True
    ways: set[tuple[int, int]] = set()
    on_relay = Membership._on_relay

    async def noted(mine: Membership, message: wire.Relay) -> None:
        ways.add((message.position, mine._position))
        await on_relay(mine, message)

    monkeypatch.setattr(Membership, "_on_relay", noted)
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 4, "a")
        await network.start_node(nursery, 4, 4, "b")
        await network.wait_until(lambda: len(full(network)) >= 3)
        nursery.cancel_scope.cancel()
    head = full(network)[0].term % 8
    others = set(range(8)) - {head}
    assert {(head, each) for each in others} | {(each, head) for each in others} <= ways
    assert network.flown("a", "b").is_conserved


async def test_totals_are_verified_where_the_gateways_commit(network: Network) -> None:
    network.verified = True
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        with trio.fail_after(120):
            while len(opened(network.ended())) < 3:
                await trio.sleep(0.2)
        ended = network.ended()
        nursery.cancel_scope.cancel()
    assert all(each.verified for each in opened(ended))


async def test_a_restarted_coordinator_goes_on_with_the_epoch(network: Network) -> None:
    network.rounds = 120
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        coordinator = await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        before = await network.wait_for_rounds(3)
        await coordinator.stop()
        await network.start_coordinator(nursery)
        seen = len(await network.wait_for_rounds(len(before)))
        with trio.fail_after(120):
            while not [e for e in opened(network.ended())[len(before) :] if e.term > 0]:
                await trio.sleep(0.2)
        ended = network.ended()
        nursery.cancel_scope.cancel()
    assert len(ended) > seen
    assert len({each.epoch for each in ended}) == 1
    assert ended[: len(before)] == before


async def test_a_dead_head_is_replaced_within_the_round(network: Network) -> None:
    """A member that waits for the dead head's link must still hear who follows it."""
    network.gateways = network.ring_size = 12
    network.dropout = 0.3
    network.rounds = 60
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        nodes = [await network.start_node(nursery, first, 4, f"node-{first}") for first in (0, 4, 8)]
        before = await network.wait_for_rounds(2)
        nodes[int(network.head_of(before[-1])[-8:]) // 4].cancel()
        with trio.fail_after(120):
            while not [each for each in opened(network.ended()) if each.term > before[-1].term]:
                await trio.sleep(0.2)
        nursery.cancel_scope.cancel()


async def test_gateways_keep_their_logs_over_a_restart_and_the_chain_is_whole(network: Network) -> None:
    network.time_port = free_port()
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        for rounds in (1, 3):
            async with trio.open_nursery() as node_nursery:
                await network.start_node(node_nursery, 0, 8, "node")
                await network.wait_until(lambda count=rounds: len(opened(network.ended())) >= count)  # type: ignore[misc]
                node_nursery.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    settings = network.node_config(0, 8, "node")
    keys = KeyDirectory(settings.keys_path, StandardSuite())
    with read_beside(settings.store_path, store_cipher(keys)) as logs:
        assert len(logs.gateways()) == 8
        for gateway in logs.gateways():
            key = keys.open(gateway).signature_key.certificate.public_key()
            assert isinstance(key, ec.EllipticCurvePublicKey)
            entries = logs.entries(gateway, Log.CALIBRATION)
            assert verify(entries, SignatureCheck(key)).findings == ()
            assert [each.event for each in entries] == [1001, 2002, 2001, 1001, 2002]
            assert [each.event for each in logs.entries(gateway, Log.SYSTEM) if each.event != 3001] == [
                1001, 2002, 2001, 1002, 1001, 2002, 1002,
            ]  # fmt: skip
    keys.close()
