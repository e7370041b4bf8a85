"""The enrolment log in a living network: who is not in it gets no deal, and a rewritten log stops every ring."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import trio
from sqlalchemy import text
from typer.testing import CliRunner

from coordinator.gwa.log_writer import LOG_FILE, LOG_KEY_FILE
from coordinator.rings.log_proofs import LogProofs
from coordinator.storage.store import Store
from node.storage.repositories.enrolment_log import Evidence, read_evidence
from protocol import wire
from protocol.enrolment_log.merkle import MerkleTree
from protocol.link.tls import client_context
from protocol.wire import Outcome
from stromkreis.__main__ import build

if TYPE_CHECKING:
    from loadtest.network import Network


def opened(network: Network, epoch: int) -> bool:
    return any((each.epoch, each.outcome) == (epoch, Outcome.OPENED) for each in network.ended())


def evidence_of(network: Network) -> list[Evidence]:
    path = network.directory / "node" / "registers.sqlite"
    return read_evidence(path) if path.exists() else []


def audit(*arguments: str) -> str:
    result = CliRunner().invoke(build(["audit"]), ["audit", *arguments])
    return f"{result.output}{result.stderr if result.stderr_bytes else ''}{result.exception or ''}"


async def test_members_are_in_the_log_and_a_rewritten_log_opens_nothing(network: Network, tmp_path: Path) -> None:
    network.rounds = 12
    state = tmp_path / "head.json"
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        coordinator = await network.start_coordinator(nursery)
        assert network.coordinator_config is not None
        root = str(network.coordinator_config.pki_path / "root.pem")
        node = await network.start_node(nursery, 0, 8, "node")
        await network.wait_until(lambda: opened(network, 0))
        where = "--coordinator", network.web[0], "--root", root
        said = await trio.to_thread.run_sync(lambda: audit("verify", *where, "--state", str(state)))
        assert "8 entries, head 8:" in said, said
        assert "certificate  ESTK0000000003" in await trio.to_thread.run_sync(lambda: audit("log", *where))
        node.cancel()
        await coordinator.stop()
        rewrite(network)  # with its key, file and database: all that a coordinator has
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        await network.wait_until(lambda: len(evidence_of(network)) >= 8)
        where = "--coordinator", network.web[0], "--root", root
        said = await trio.to_thread.run_sync(lambda: audit("verify", *where, "--state", str(state)))
        assert "the log was rewritten: its first 8 entries" in said, said
        nursery.cancel_scope.cancel()
    found = evidence_of(network)
    assert {each.reason.partition(":")[0] for each in found} == {"log_rewritten"}
    told = [wire.decode(each, wire.FROM_COORDINATOR) for each in found[0].messages]
    assert [type(each) for each in told] == [wire.EpochCall, wire.EpochList, wire.EpochLayout, wire.LogProof]
    epoch = found[0].epoch
    assert not opened(network, epoch), "no gateway has dealt"


def rewrite(network: Network) -> None:
    """Another history of the same gateways: entered in another order, at another time."""
    assert network.coordinator_config is not None
    data = network.coordinator_config.data_dir
    lines = [json.loads(line) for line in (data / LOG_FILE).read_text().splitlines()]
    (data / LOG_FILE).unlink()
    store = Store(network.coordinator_config.database_url)
    with store.database.write() as connection:
        connection.execute(text("DELETE FROM log_entries"))
        connection.execute(text("DELETE FROM log_heads"))
    store.close()
    assert len(lines) == 8


async def test_a_fork_that_the_logs_key_has_not_signed_is_refused(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ring service shows a tree of its own, with an invention in it; the log's key lies elsewhere."""
    answer = LogProofs._answer

    def forked(mine: LogProofs, head: object, question: object) -> wire.LogProof | None:
        shown = answer(mine, head, question)  # type: ignore[arg-type]
        if shown is None:
            return None
        fork = MerkleTree([*(each.entry.leaf for each in mine._repository.entries(0)), bytes(32)])
        members = tuple((at, ms, tuple(fork.inclusion_proof(at, fork.size))) for at, ms, _ in shown.members)
        return replace(shown, size=fork.size, root=fork.root(), consistency=(), members=members)

    monkeypatch.setattr(LogProofs, "_answer", forked)
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        await network.wait_until(lambda: len(evidence_of(network)) >= 8)
        nursery.cancel_scope.cancel()
    assert {each.reason.partition(":")[0] for each in evidence_of(network)} == {"forged_tree_head"}
    assert not opened(network, evidence_of(network)[0].epoch)


async def test_histories_of_rings_are_entered_and_found_by_their_members(network: Network) -> None:
    network.rounds = 10
    addresses: list[str] = []
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node", addresses.append)
        await network.wait_until(lambda: opened(network, 2))
        counted = re.compile(r'stromkreis_node_ring_events_total\{event="history_logged"\} (\d+)')
        async with httpx.AsyncClient(timeout=120) as client:
            with trio.fail_after(120):  # a gateway asks in its own time, if it had a ring that ended
                shown = ""
                while (found := counted.search(shown)) is None or int(found[1]) < 1:
                    await trio.sleep(0.2)
                    shown = (await client.get(f"{addresses[0]}/metrics")).text
        nursery.cancel_scope.cancel()
    assert "history_differs" not in shown


async def test_the_log_is_served_to_auditors_page_by_page(network: Network) -> None:
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        assert network.coordinator_config is not None
        tls = client_context(network.coordinator_config.pki_path / "root.pem")
        async with httpx.AsyncClient(base_url=network.web[0], verify=tls) as client:
            with trio.fail_after(120):
                while (await client.get("/api/v1/enrolment-log/head")).json()["size"] < 8:
                    await trio.sleep(0.1)
            first = (await client.get("/api/v1/enrolment-log/entries?limit=5")).json()
            rest = (await client.get(f"/api/v1/enrolment-log/entries?from={first['next']}")).json()
        nursery.cancel_scope.cancel()
    told = [*first["items"], *rest["items"]]
    assert [each["number"] for each in told] == list(range(8))
    assert told == [
        json.loads(line) for line in (network.directory / "coordinator" / LOG_FILE).read_text().splitlines()
    ]
    assert rest["next"] is None
    assert LOG_KEY_FILE in {path.name for path in (network.directory / "coordinator").iterdir()}
    assert datetime.now(UTC).timestamp() * 1000 - first["items"][0]["time_ms"] < 600_000
