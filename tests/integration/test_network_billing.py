"""Bills over real sockets: the amounts are those of the meters' truth, and who lies on either side gets nowhere."""

import json
import logging
import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from coordinator.process import OPERATOR_TOKEN_FILE
from coordinator.storage.store import Store
from loadtest.children import config_file, process
from loadtest.households import households
from loadtest.network import Network
from node.aggregation.bills import BillingRules, Bills
from protocol import wire
from protocol.dcnet.crypto.group import Edwards25519
from protocol.dcnet.discipline.carried_energy import EnergyAccount, contribute
from protocol.dcnet.machines.effects import Ended
from protocol.link.tls import client_context

PERIOD_S = 3.0
REGISTER = "1-0:1.8.0*255"
FEW_HOURS = BillingRules(
    span_min_s=900, hiding_min=1, listed_only=False
)  # a month takes too long over sockets; see test_node_bills.py


@pytest.fixture
def network(network: Network, monkeypatch: pytest.MonkeyPatch) -> Network:
    network.verified = True
    network.rounds = 400
    network.period_s = PERIOD_S
    network.origin_unix_s = float(int(time.time()) + 8)  # meters stand still until all accounts have begun
    monkeypatch.setattr("node.fleet.billing_rules", lambda _: FEW_HOURS)
    return network


def prices(count: int) -> list[int]:
    """Ones that vary from interval to interval, with some negative ones and some that are 0."""
    return [3000 + 17 * i if i % 7 else -40 * i for i in range(count)]


def document(network: Network, count: int, **changes: object) -> dict[str, Any]:
    start = datetime.fromtimestamp(network.origin_unix_s, UTC)
    return {
        "name": "Dynamic", "obis": REGISTER, "unit": "Wh", "currency": "ct", "price_scaler": -5,
        "start": f"{start:%Y-%m-%dT%H:%M:%SZ}", "interval_s": 900, "prices": prices(count),
    } | changes  # fmt: skip


class Operator:
    """The operator's REST client."""

    def __init__(self, network: Network) -> None:
        config = network.coordinator_config
        assert config is not None
        token = (config.data_dir / OPERATOR_TOKEN_FILE).read_text().strip()
        self._network = network
        self._context = client_context(config.pki_path / "root.pem")
        self._headers = {"Authorization": f"Bearer {token}"}

    async def call(self, method: str, path: str, status: int, **how: Any) -> dict[str, Any]:
        address = f"{self._network.web[0]}/api/v1{path}"
        async with httpx.AsyncClient(verify=self._context, headers=self._headers, timeout=120) as client:
            answer = await client.request(method, address, **how)
        assert answer.status_code == status, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def publish(self, **document: object) -> str:
        return str((await self.call("POST", "/tariffs", 201, json=document))["digest"])

    async def ask(self, tariff: str, to_s: int, area: str = "north", status: int = 202) -> dict[str, Any]:
        to = f"{datetime.fromtimestamp(to_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
        body = {"area": area, "from": "1970-01-01T00:00:00Z", "to": to, "tariff": tariff}
        return await self.call("POST", "/bills", status, json=body)

    async def bills(self, **query: object) -> list[dict[str, Any]]:
        return list((await self.call("GET", "/bills", 200, params=query))["items"])

    async def wait_for_bills(self, count: int, **query: object) -> list[dict[str, Any]]:
        with trio.fail_after(120):
            while True:
                found = await self.bills(**query)
                if sum(each["status"] != "asked" for each in found) >= count:
                    return found
                await trio.sleep(0.2)


def verified(network: Network) -> list[Ended]:
    return [each for each in network.ended() if each.verified]


def interval_of(network: Network, ended: Ended) -> int:
    assert network.coordinator_config is not None
    store = Store(network.coordinator_config.database_url)
    try:
        return next(e for e in store.epochs.all() if e.epoch == ended.epoch).interval_of(ended.round)
    finally:
        store.close()


async def after_rounds(network: Network, count: int) -> int:
    """Wait for so many verified rounds of each ring; the end of the last interval that all of them reached."""

    def enough() -> bool:
        by_ring: dict[tuple[int, int], int] = {}
        for each in verified(network):
            by_ring[each.epoch, each.ring] = by_ring.get((each.epoch, each.ring), 0) + 1
        return len(by_ring) >= 1 + len(network.more_areas) and min(by_ring.values()) >= count

    await network.wait_until(enough)
    newest = {}
    for each in verified(network):
        newest[each.epoch, each.ring] = interval_of(network, each)
    return min(newest.values()) + 900


def truth(network: Network, tariff: dict[str, Any], to_s: int) -> dict[str, Decimal]:
    """
    Σ price · energy, from the meters themselves and who was in which verified total.

    Where a round was void, on a loaded machine, what it missed comes slowly, at later intervals' prices.
    """
    start_s = int(network.origin_unix_s)
    homes = {f"ESTK00{i:08d}": home for i, home in enumerate(households(network.meters_config()))}
    begun = {name: home.registers(0).import_tenth_wh for name, home in homes.items()}
    accounts = {name: EnergyAccount(register, register) for name, register in begun.items()}
    members, sums = network.members(), dict.fromkeys(homes, 0)
    for each in sorted(verified(network), key=lambda e: (e.epoch, e.round)):
        interval_s = interval_of(network, each)
        q = (interval_s - start_s) // 900
        for position, name in enumerate(members[each.epoch, each.ring]):
            if interval_s >= to_s or not each.roster >> position & 1:
                continue
            register = homes[name].registers(q).import_tenth_wh
            energy, accounts[name] = contribute(accounts[name], register, interval_s, length_s=900)
            sums[name] += tariff["prices"][q] * energy
    return {name: Decimal(amount).scaleb(-6) for name, amount in sums.items()}


def metric(text: str, name: str) -> float:
    return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(name)), 0.0)


@asynccontextmanager
async def running(network: Network) -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        yield nursery
        nursery.cancel_scope.cancel()


async def test_bills_are_exact_and_each_interval_is_in_one(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    for room in ("node", "coordinator", "protocol"):
        caplog.set_level(logging.DEBUG, room)
    async with running(network) as nursery:
        await network.start_node(nursery, 0, 8, "node")
        to_s = await after_rounds(network, 14)
        operator, tariff = Operator(network), document(network, 400)
        digest = await operator.publish(**tariff)
        assert await operator.publish(**tariff) == digest
        assert (await operator.ask(digest, to_s + 900_000, status=409))["reason"] == "period_not_over"
        asked = await operator.ask(digest, to_s)
        assert (asked["bills"], asked["nothing_left"]) == (8, 0)
        found = await operator.wait_for_bills(8)
        expected = truth(network, tariff, to_s)
        again = await operator.ask(digest, to_s)
        other = await operator.publish(**document(network, 400, name="Dearer", prices=[9000] * 400))
        instead = await operator.ask(other, to_s)
        async with httpx.AsyncClient(verify=operator._context) as client:
            metrics = (await client.get(f"{network.web[0]}/metrics")).text
            shown = (await client.get(f"{network.web[0]}/dashboard/data")).json()
            refused = await client.get(f"{network.web[0]}/api/v1/bills")
    assert {each["status"] for each in found} == {"verified"}
    assert {each["gateway"]: Decimal(each["amount"]) for each in found} == expected
    assert sum(amount > 0 for amount in expected.values()) >= 4
    assert again == instead == {"bills": 0, "intervals": 0, "nothing_left": 8, "unranged": 0}
    assert metric(metrics, 'stromkreis_bills_total{outcome="verified"}') == 8
    assert shown["bills"] == {"asked": 0, "verified": 8, "refused": 0, "declined": 0}
    assert (refused.status_code, refused.json()["reason"]) == (401, "not_logged_in")
    for each in (bill for bill in found if Decimal(bill["amount"])):  # the customer's affair: no log has it
        assert each["amount"] not in caplog.text
        assert str(int(Decimal(each["amount"]).scaleb(6))) not in caplog.text


async def test_only_the_gateway_that_lies_about_its_bill_is_refused(
    network: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    honest = Bills.answer

    async def lying(mine: Bills, request: wire.BillRequest) -> wire.Bill | None:
        bill = await honest(mine, request)
        if bill is None or mine._gateway[-1] not in "012":
            return bill
        amount = int.from_bytes(bill.sums[0], "little", signed=True)
        blinding = int.from_bytes(bill.blindings[0], "little")
        match mine._gateway[-1]:
            case "0":
                amount -= 1
            case "1":
                blinding = (blinding + 1) % Edwards25519.order
            case "2":  # beyond every amount that prices and readings can give
                amount += 2**120
        sums = amount.to_bytes(16, "little", signed=True), *bill.sums[1:]
        return replace(bill, sums=sums, blindings=(blinding.to_bytes(32, "little"), *bill.blindings[1:]))

    monkeypatch.setattr(Bills, "answer", lying)
    async with running(network) as nursery:
        await network.start_node(nursery, 0, 8, "node")
        to_s = await after_rounds(network, 10)
        operator, tariff = Operator(network), document(network, 400)
        await operator.ask(await operator.publish(**tariff), to_s)
        found = await operator.wait_for_bills(8)
        expected = truth(network, tariff, to_s)
    status = {each["gateway"][-1]: each["status"] for each in found}
    assert status == dict.fromkeys("012", "refused") | dict.fromkeys("34567", "verified")
    for each in found:
        if each["status"] == "verified":
            assert Decimal(each["amount"]) == expected[each["gateway"]]
        else:
            assert each["amount"] is None
            assert each["reason"] == "the amount is not the one for what the gateway committed to"
    assert caplog.text.count("is refused: it is not the one for what was committed to") == 3


async def test_a_bill_waits_for_its_gateway_across_a_restart_of_the_coordinator(network: Network) -> None:
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        coordinator = await network.start_coordinator(nursery)
        node = await network.start_node(nursery, 0, 8, "node")
        to_s = await after_rounds(network, 10)
        node.cancel()
        operator, tariff = Operator(network), document(network, 400)
        assert (await operator.ask(await operator.publish(**tariff), to_s))["bills"] == 8
        expected = truth(network, tariff, to_s)
        await coordinator.stop()
        await network.start_coordinator(nursery)
        assert {each["status"] for each in await operator.bills()} == {"asked"}
        await network.start_node(nursery, 0, 8, "node")
        found = await operator.wait_for_bills(8)
        nursery.cancel_scope.cancel()
    assert {each["status"] for each in found} == {"verified"}
    assert {each["gateway"]: Decimal(each["amount"]) for each in found} == expected


async def command(network: Network, *arguments: str, status: int = 0) -> tuple[str, str]:
    """Run `stromkreis bill` as an operator does."""
    config = network.coordinator_config
    assert config is not None
    places = ["--coordinator", network.web[0], "--root", str(config.pki_path / "root.pem")]
    token = ["--token-file", str(config.data_dir / OPERATOR_TOKEN_FILE)]
    done = await trio.run_process(
        [sys.executable, "-m", "stromkreis", "bill", *places, *token, *arguments], capture_stdout=True,
        capture_stderr=True, check=False, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == status, done.stderr.decode()
    return done.stdout.decode(), done.stderr.decode()


async def test_the_command_bills_the_area_that_was_asked_for_and_no_other(network: Network, tmp_path: Path) -> None:
    network.gateways, network.more_areas = 12, ("south",)
    async with running(network) as nursery:
        await network.start_node(nursery, 0, 6, "north")
        await network.start_node(nursery, 6, 6, "south", area="south")
        to_s = await after_rounds(network, 10)
        tariff = document(network, 400)
        (tmp_path / "tariff.json").write_text(json.dumps(tariff, indent=2))
        digest, told = await command(network, "publish", str(tmp_path / "tariff.json"))
        assert "Dynamic: 400 prices from" in told
        to = f"{datetime.fromtimestamp(to_s, UTC):%Y-%m-%dT%H:%M:%S}"
        period = ("--from", "1970-01-01", "--to", to, "--tariff", digest.strip())
        waited, _ = await command(network, "ask", "--area", "south", *period, "--wait")
        again, _ = await command(network, "ask", "--area", "south", *period)
        lines, _ = await command(network, "list", "--format", "json")
        table, _ = await command(network, "list", "--area", "south", "--status", "verified")
        none, _ = await command(network, "list", "--area", "north")
        named, _ = await command(network, "tariffs")
        _, wrong = await command(network, "ask", "--area", "west", *period, status=1)
        (tmp_path / "tariff.json").write_text(json.dumps(tariff | {"prices": [1.5]}))
        _, broken = await command(network, "publish", str(tmp_path / "tariff.json"), status=1)
        expected = truth(network, tariff, to_s)
    found = [json.loads(line) for line in lines.splitlines()]
    assert {each["gateway"]: Decimal(each["amount"]) for each in found} == {
        name: amount for name, amount in expected.items() if name >= "ESTK0000000006"
    }
    assert {(each["area"], each["status"]) for each in found} == {("south", "verified")}
    total = sum(Decimal(each["amount"]) for each in found)
    assert waited.startswith("6 bills over ")
    assert waited.endswith(f"6 verified; verified in all: {total:f} ct\n")
    assert again == "nothing to bill: the intervals of 6 gateways are in bills already\n"
    assert all(f"{each['gateway']} " in table and f"{each['amount']} ct" in table for each in found)
    assert none.endswith("no bills\n")
    assert digest.strip() in named
    assert "refuses: period_not_over: no round of area west has ended; is it one of coordinator.areas?" in wrong
    assert "no tariff: bad_tariff: prices: expected whole numbers" in broken


@pytest.mark.parametrize("stage", ["before", "after", "sent"])
async def test_a_node_killed_around_its_bill_gives_the_same_bill_once(
    network: Network, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.emp.billing_service._AGAIN_S", 4.0)  # who comes back is not asked before
    network.origin_unix_s += 10  # all of them are in the first epoch
    async with running(network) as nursery:
        config = str(config_file(network, 6, 2, "dying"))
        script = str(Path(__file__).with_name("dying_node.py"))
        await network.start_node(nursery, 0, 6, "steady")
        with process(network, script, f"BILL-{stage}", "0", config) as child:
            to_s = await after_rounds(network, 10)
            operator, tariff = Operator(network), document(network, 400)
            assert (await operator.ask(await operator.publish(**tariff), to_s))["bills"] == 8
            await network.wait_until(lambda: child.poll() is not None)
            assert child.returncode == -signal.SIGKILL
        store = sqlite3.connect(network.directory / "dying" / "registers.sqlite")
        before = store.execute("SELECT * FROM bill").fetchall()
        assert bool(before) == (stage != "before")  # or both: the second gateway is not held up by the first
        with process(network, script, "BILL-never", "0", config):
            found = await operator.wait_for_bills(8)
        expected = truth(network, tariff, to_s)
        after = store.execute("SELECT * FROM bill").fetchall()
        values = store.execute("SELECT count(*) FROM committed WHERE bill NOT NULL AND value NOT NULL").fetchone()
        store.close()
    assert {each["status"] for each in found} == {"verified"}
    assert {each["gateway"]: Decimal(each["amount"]) for each in found} == expected
    assert set(before) <= set(after)
    assert len(after) == 2
    assert values == (0,)


async def test_a_node_as_configured_declines_bills_of_hours(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """D4b over real sockets: the rules of a node's default configuration, against an operator that asks too early."""
    monkeypatch.undo()
    monkeypatch.setattr("coordinator.service._PRICE_SHEETS_S", 0.1)
    async with running(network) as nursery:
        operator = Operator(network)
        tariff = await operator.publish(**document(network, 400, prices=[3000] * 400))
        await trio.sleep(1)  # the call of the first epoch lists it
        await network.start_node(nursery, 0, 8, "node")
        await operator.ask(tariff, await after_rounds(network, 3))
        found = await operator.wait_for_bills(8)
    assert {(each["status"], each["reason"]) for each in found} == {("declined", "span_too_short")}


async def test_an_unlisted_tariff_and_one_of_another_name_are_declined(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """7.4: who is asked by a sheet of its own is asked by one that nobody else was shown."""
    rules = BillingRules(span_min_s=900, hiding_min=1, tariff="Dynamic")
    monkeypatch.setattr("node.fleet.billing_rules", lambda _: rules)
    monkeypatch.setattr("coordinator.service._PRICE_SHEETS_S", 0.1)
    flat, foreign, late = (
        document(network, 400, prices=[3000 + more] * 400, name=name)
        for more, name in ((0, "Dynamic"), (0, "Static"), (7, "Dynamic"))
    )
    async with running(network) as nursery:
        operator = Operator(network)
        listed, other = [await operator.publish(**each) for each in (flat, foreign)]
        await trio.sleep(1)
        await network.start_node(nursery, 0, 8, "node")
        to_s = await after_rounds(network, 4)
        for tariff, reason in ((await operator.publish(**late), "tariff_not_listed"), (other, "wrong_tariff")):
            await operator.ask(tariff, to_s)
            found = await operator.wait_for_bills(8, tariff=tariff)
            assert {(each["status"], each["reason"]) for each in found} == {("declined", reason)}
        await operator.ask(listed, to_s)
        found = await operator.wait_for_bills(8, tariff=listed)
        assert {each["status"] for each in found} == {"verified"}
