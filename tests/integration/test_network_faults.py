"""Disks that fill, heads that die, gateways that are revoked, meters that send noise: the others go on, sums exact."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import tomli_w
import trio

from coordinator.gwa.ca import ROOT_FILE, CertificateAuthority
from coordinator.gwa.enrolment import Directory
from coordinator.storage.store import Store
from loadtest.meters.sml import SmlMeter
from loadtest.network import Network, Program
from loadtest.signing import sign_again
from node.aggregation.membership import Membership
from node.security.module import KeyDirectory
from node.wan.enrolment import Enroller
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines.effects import Ended
from protocol.errors import StromkreisError
from protocol.link import Keypair, LinkContext
from protocol.link.tls import client_context
from protocol.wire import Outcome

if TYPE_CHECKING:
    from tests.integration.conftest import Ledger

ROOT = Path(__file__).parents[2]


def full(network: Network, seen: int = 0) -> list[Ended]:
    return [each for each in network.ended()[seen:] if each.roster == 0xFF]


def of(network: Network, count: int, seen: int = 0) -> list[Ended]:
    return [each for each in network.ended()[seen:] if each.roster.bit_count() == count]


async def test_a_full_disk_stops_its_own_gateways_only_and_they_come_back(network: Network) -> None:
    network.rounds = 120
    network.origin_unix_s += 12  # the child has to be there when the epoch is called, on a busy machine as well
    log = network.directory / "child.log"
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        values = network.node_config(6, 2, "full").model_dump(mode="json", exclude_none=True)
        assert network.token is not None
        values["token"] = network.token.get_secret_value()
        config = network.directory / "full.toml"
        config.write_text(tomli_w.dumps({"node": values}), encoding="utf-8")
        with log.open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "stromkreis", "node", "--config", str(config)], stdout=output, stderr=output,
                env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, cwd=network.directory,
            )  # fmt: skip
        try:
            await network.wait_until(lambda: "gateways run" in log.read_text())
            await network.start_node(nursery, 0, 6, "steady")
            await network.wait_until(lambda: full(network)[2:])
            size = (network.directory / "full" / "registers.sqlite-wal").stat().st_size
            _, hard = resource.prlimit(child.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (size, hard))
            seen = len(network.ended())
            await network.wait_until(lambda: of(network, 6, seen)[1:])
            assert re.search("does not (contribute|log its meters)", log.read_text())
            assert "free disk space" in log.read_text()
            (address,) = set(re.findall(r"monitoring at (\S+)", log.read_text()))
            async with httpx.AsyncClient(timeout=120) as client:
                metrics = (await client.get(f"{address}/metrics")).text
            (errors,) = re.findall(r"^stromkreis_node_store_errors_total (\S+)", metrics, re.MULTILINE)
            assert float(errors) > 0
            resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (hard, hard))
            seen = len(network.ended())
            await network.wait_until(lambda: full(network, seen)[1:])
            assert child.poll() is None
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        nursery.cancel_scope.cancel()
    flown = network.flown("steady", "full")
    assert flown.gateways == 8
    assert flown.is_conserved


@pytest.mark.parametrize("relay", [False, True])
async def test_a_head_that_dies_in_a_round_is_replaced(
    network: Network, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, relay: bool
) -> None:
    network.rounds, network.relay = 120, relay
    network.origin_unix_s += 7
    programs: dict[str, Program] = {}
    dying: list[str] = []
    armed = False
    to_head = Membership._to_head

    async def sending(mine: Membership, message: wire.RingMessage) -> None:
        await to_head(mine, message)
        if armed and not dying and isinstance(message, wire.Confirm):
            assert mine._address is not None
            dying.append(mine.view.members[mine.view.head_of(mine._address.term)].identity)
            programs[dying[0]].cancel()

    monkeypatch.setattr(Membership, "_to_head", sending)
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        names = [f"node-{index}" for index in range(8)]
        for index, name in enumerate(names):
            programs[f"ESTK00{index:08d}"] = await network.start_node(nursery, index, 1, name)
        await network.wait_until(lambda: full(network))
        armed = True
        await network.wait_until(lambda: [e for e in network.ended() if e.term > 0 and len(of(network, 7)) > 1])
        first = int(dying[0][6:])
        seen = len(network.ended())
        await network.start_node(nursery, first, 1, names[first])
        await network.wait_until(lambda: full(network, seen))
        nursery.cancel_scope.cancel()
    assert ledger.check(network)
    flown = network.flown(*names)
    assert flown.gateways == 8
    assert flown.is_conserved


async def test_a_revoked_gateway_is_in_no_later_epoch_although_it_is_connected(network: Network) -> None:
    network.rounds = 5
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        await network.wait_until(lambda: full(network))
        assert network.coordinator_config is not None
        store = Store(network.coordinator_config.database_url)
        last = store.epochs.last_number()
        assert last is not None
        assert Directory(store.gateways).revoke("ESTK0000000003", datetime.now(UTC))
        store.close()
        await network.wait_until(
            lambda: [e for e in network.ended() if e.epoch > last + 1 and e.outcome is Outcome.OPENED]
        )
        members = network.members()
        nursery.cancel_scope.cancel()
    assert any("ESTK0000000003" in names for (epoch, _), names in members.items() if epoch <= last)
    assert not any("ESTK0000000003" in names for (epoch, _), names in members.items() if epoch > last + 1)
    assert network.flown("node").is_conserved


async def test_a_gateway_with_garbage_shares_is_named_to_the_operator(
    network: Network, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network.rounds = 120
    to_head = Membership._to_head
    liar: list[str] = []

    async def lying(membership: Membership, message: wire.RingMessage) -> None:
        if membership._position == 5 and isinstance(message, wire.MaskedInput):
            liar[:] = [membership.view.members[5].identity]
            lie = replace(message, vector=bytes(len(message.vector)))
            message = sign_again(lie, membership._member, membership.secrets)
        await to_head(membership, message)

    monkeypatch.setattr(Membership, "_to_head", lying)
    caplog.set_level("WARNING")
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        await network.wait_until(lambda: [e for e in network.ended() if e.roster == 0xFF & ~(1 << 5)][3:])
        assert network.coordinator_config is not None
        context = client_context(network.coordinator_config.pki_path / ROOT_FILE)
        async with httpx.AsyncClient(base_url=network.web[0], verify=context) as client:
            said = (await client.get("/api/v1/misbehaviour-reports")).json()["items"]
        nursery.cancel_scope.cancel()
    assert {(each["reported"], each["misbehaviour"], each["epochs"]) for each in said} == {(liar[0], "corrupt_sum", 1)}
    assert f"reports corrupt_sum of {liar[0]}" in caplog.text
    assert ledger.check(network)
    assert not any(each.roster >> 5 & 1 for each in network.ended())
    assert network.flown("node").is_conserved


async def test_a_key_that_was_not_enrolled_and_a_wrong_coordinator_key_get_no_word(network: Network) -> None:
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        config = network.node_config(0, 1, "node")
        keys = KeyDirectory(config.data_dir / "keys", StandardSuite())
        module = keys.open(config.gateways[0].id)
        async with Enroller(config) as enroller:
            service = endpoint, server, *_ = await enroller.enrol(module, config.all_gateways()[0])
            assert await enroller.enrol(module, config.all_gateways()[0]) == service
        hello = wire.encode(wire.Hello(wire.VERSION, -1, -1))

        async def answered(keys: Keypair, server: bytes, within_s: float) -> bool:
            async with LinkContext(max_sockets=8) as link, link.connect(endpoint, server, keys) as connection:
                with trio.move_on_after(within_s):
                    await connection.send(hello)
                    await connection.receive()
                    return True
            return False

        got: dict[str, bool] = {}

        async def ask(name: str, keys: Keypair, server: bytes, within_s: float = 6) -> None:
            got[name] = await answered(keys, server, within_s)

        async with trio.open_nursery() as asking:
            asking.start_soon(ask, "enrolled", module.curve, server, 120)
            asking.start_soon(ask, "stranger", Keypair.generate(), server)
            asking.start_soon(ask, "wrong server key", module.curve, Keypair.generate().public)
        keys.close()
        nursery.cancel_scope.cancel()
    assert got == {"enrolled": True, "stranger": False, "wrong server key": False}


async def test_a_node_that_trusts_another_pki_does_not_enrol(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.wan.enrolment._PATIENCE_S", 0.5)
    CertificateAuthority.create(tmp_path / "other-pki", datetime.now(UTC))
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        config = network.node_config(0, 1, "node")
        strange = config.model_copy(update={"root_certificate": tmp_path / "other-pki" / ROOT_FILE})
        keys = KeyDirectory(config.data_dir / "keys", StandardSuite())
        async with Enroller(strange) as enroller:
            with pytest.raises(StromkreisError, match="cannot be reached"):
                await enroller.enrol(keys.open(config.gateways[0].id), strange.all_gateways()[0])
        bad_token = config.model_copy(update={"token": None})
        async with Enroller(bad_token) as enroller:
            with pytest.raises(StromkreisError, match="has no token"):
                await enroller.enrol(keys.open(config.gateways[0].id), bad_token.all_gateways()[0])
        keys.close()
        nursery.cancel_scope.cancel()


async def test_a_meter_that_sends_noise_costs_only_itself_until_it_speaks_again(
    network: Network, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network.rounds = 120
    noisy = "1STK0000000002"
    noise = ["cut", "flip", "random", "flip", "cut"]
    done = False
    answer = SmlMeter.respond

    def damaged(meter: SmlMeter, *arguments: Any, **named: Any) -> bytes | None:
        data = answer(meter, *arguments, **named)
        if data is None or meter.device != noisy or done:
            return data
        return damage(data, noise[len(data) % len(noise)])

    monkeypatch.setattr(SmlMeter, "respond", damaged)
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        await network.wait_until(lambda: of(network, 7)[1:])
        assert not full(network)
        done = True
        await network.wait_until(lambda: full(network)[1:])
        nursery.cancel_scope.cancel()
    assert ledger.check(network)
    assert network.flown("node").is_conserved
    assert re.search(r"meter fault \w+ \(sml, ESTK0000000002/0\)", caplog.text) or "meter fault" in caplog.text


def damage(data: bytes, how: str) -> bytes:
    match how:
        case "cut":
            return data[: len(data) * 2 // 3]
        case "flip":
            return data[:40] + bytes([data[40] ^ 0x10]) + data[41:]
        case _:
            return bytes(range(1, 200))
