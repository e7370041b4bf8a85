"""Peers that send garbage in every message type cost themselves their connection; totals stay exact, rounds go on."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio

from loadtest.garbage import frames, messages
from loadtest.network import Network
from node.aggregation.head import HeadDriver
from node.aggregation.membership import Membership
from node.security.module import KeyDirectory
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.setup.rings import RingView
from protocol.errors import RemoteProtocolError
from protocol.link import Keypair, LinkContext

if TYPE_CHECKING:
    from tests.integration.conftest import Ledger

SEED = 20_260_301


def test_a_message_of_garbage_is_one_that_the_table_takes() -> None:
    for kinds in (wire.FROM_GATEWAY, wire.FROM_COORDINATOR, wire.FROM_MEMBER, wire.FROM_HEAD):
        for message in messages(kinds, Random(SEED), 30, epoch=1, ring=0):
            assert wire.decode(wire.encode(message), kinds) == message
        outcomes: set[object] = set()
        for data in frames(kinds, Random(SEED), 30, epoch=1, ring=0):
            try:
                outcomes.add(type(wire.decode(data, kinds)))
            except RemoteProtocolError as error:
                outcomes.add(error.reason)
        assert kinds <= outcomes
        assert "malformed_message" in outcomes


@pytest.fixture
def head_at(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RingView, wire.HeadAt]]:
    """The head's address as the members heard it, newest last: (view, message)."""
    heard = []
    on_head_at = Membership._on_head_at

    async def noted(mine: Membership, message: wire.HeadAt) -> None:
        await on_head_at(mine, message)
        heard.append((mine.view, message))

    monkeypatch.setattr(Membership, "_on_head_at", noted)
    return heard


async def throw(link: LinkContext, endpoint: str, server: bytes, keys: Keypair, garbage: list[bytes]) -> int:
    """Send each frame, on a new connection after every few, as one that was revoked has to; returns how many."""
    sent = 0
    for first in range(0, len(garbage), 6):
        async with link.connect(endpoint, server, keys) as connection:
            for data in garbage[first : first + 6]:
                with trio.move_on_after(2):
                    await connection.send(data)
                    sent += 1
    return sent


async def test_a_members_garbage_harms_neither_coordinator_nor_head(
    network: Network, ledger: Ledger, head_at: list[tuple[RingView, wire.HeadAt]], caplog: pytest.LogCaptureFixture
) -> None:
    network.rounds = 120
    random = Random(SEED)
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        rogue = await network.start_node(nursery, 7, 1, "rogue")  # first: no ring forms without it
        await network.start_node(nursery, 0, 7, "steady")
        await network.wait_until(lambda: [e for e in network.ended() if e.roster == 0xFF])
        rogue.cancel()
        directory = KeyDirectory(network.directory / "rogue" / "keys", StandardSuite())
        keys = directory.open("ESTK0000000007").curve
        known = {"epoch": 0, "ring": 0, "term": 0, "version": wire.VERSION}
        told = json.loads((network.directory / "rogue" / "coordinator.json").read_text())
        async with LinkContext(max_sockets=64) as link:
            garbage = list(frames(wire.FROM_GATEWAY | wire.FROM_MEMBER, random, 6, **known))
            assert await throw(link, told["endpoint"], bytes.fromhex(told["curve_key"]), keys, garbage) > 50
            # As READY at the right term would, a lie about its share costs rounds: those are left out here.
            kinds = wire.FROM_MEMBER - {wire.MaskedInput}
            for _ in range(3):
                view, address = head_at[-1]
                server = view.members[view.head_of(address.term)].curve_key
                known["term"], known["round"] = address.term, len(network.ended())
                garbage = list(frames(kinds | {wire.Open, wire.RingTotal}, random, 5, **known))
                await throw(link, address.endpoint, server, keys, garbage)
        directory.close()
        seen = len(network.ended())
        await network.wait_until(lambda: [e for e in network.ended()[seen:] if e.roster.bit_count() == 7][2:])
        await network.start_node(nursery, 7, 1, "rogue")
        await network.wait_until(lambda: [e for e in network.ended()[seen:] if e.roster == 0xFF])
        nursery.cancel_scope.cancel()
    assert ledger.check(network)
    assert network.flown("steady", "rogue").is_conserved
    assert "gateway ESTK0000000007 broke the protocol" in caplog.text
    assert "member ESTK0000000007 broke the protocol" in caplog.text


async def test_a_heads_garbage_harms_no_member(
    network: Network, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.rounds = 120
    random = Random(SEED)
    send = HeadDriver._send
    thrown = 0

    def lying(head: HeadDriver, position: int, data: bytes) -> None:
        nonlocal thrown
        known = {"epoch": 0, "ring": 0, "term": head.term, "round": max(0, len(ledger.contributed) // 8)}
        kinds = wire.FROM_HEAD | wire.FROM_COORDINATOR
        for garbage in random.sample(list(frames(kinds, random, 1, **known)), 3):
            thrown += 1
            send(head, position, garbage)
        send(head, position, data)

    monkeypatch.setattr(HeadDriver, "_send", lying)
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        await network.wait_until(lambda: [e for e in network.ended() if e.roster == 0xFF][3:])
        nursery.cancel_scope.cancel()
    assert thrown > 100
    assert ledger.check(network)
    assert network.flown("node").is_conserved
