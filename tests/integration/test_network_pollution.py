"""Who lies about committed slots, member or head, against the real coordinator: its ring is caught, no other is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio
from sqlalchemy import select

from coordinator.emp.billing import Billing
from coordinator.storage.store import Store
from coordinator.storage.tables import ring_commitments
from loadtest.network import Network
from loadtest.signing import sign_again
from node.aggregation.membership import Membership
from protocol import wire
from protocol.dcnet.billing.tariff import Tariff
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.group import Edwards25519
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.machines.attempt import Attempt
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.rings import RingView, positions_of
from protocol.dcnet.setup.schema import WORD_MODULUS, signed
from protocol.wire import Outcome

if TYPE_CHECKING:
    from tests.integration.conftest import Ledger

LIAR = "ESTK0000000003"
TOO_MUCH = 5000


@pytest.mark.parametrize("slot", [1, 2])
async def test_a_lie_in_one_committed_slot_enters_no_verified_total(
    network: Network, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, slot: int
) -> None:
    to_head = Membership._to_head

    async def lying(mine: Membership, message: wire.RingMessage) -> None:
        """What it shares is not what it commits to, by one word."""
        if isinstance(message, wire.MaskedInput) and mine._context.module.identity == LIAR:
            words = bytearray(message.vector)
            word = int.from_bytes(words[8 * slot : 8 * slot + 8], "little") + TOO_MUCH
            words[8 * slot : 8 * slot + 8] = (word % WORD_MODULUS).to_bytes(8, "little")
            message = sign_again(replace(message, vector=bytes(words)), mine._member, mine.secrets)
        await to_head(mine, message)

    monkeypatch.setattr(Membership, "_to_head", lying)
    network.verified, network.gateways, network.ring_size, network.rounds = True, 14, 7, 200
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 14, "node")
        await network.wait_until(lambda: min(map(len, _sorted(network))) >= 3)
        nursery.cancel_scope.cancel()
    members = network.members()
    with_liar, without = _sorted(network)
    opened = with_liar + without
    assert not any(each.verified for each in with_liar)
    assert all(each.verified for each in without)
    for each in with_liar:
        assert f"epoch {each.epoch} ring {each.ring} round {each.round} is not verified" in caplog.text
    for each in without:
        assert f"epoch {each.epoch} ring {each.ring} round {each.round} is not verified" not in caplog.text
    for each in opened:  # the lie is in the total, to the last digit: opened, but worth nothing
        names = [members[each.epoch, each.ring][position] for position in positions_of(each.roster)]
        true = sum(ledger.contributed[name, each.epoch, each.round][slot] for name in names)
        assert signed(each.total[slot]) - true == (TOO_MUCH if LIAR in names and not each.verified else 0)
    assert network.coordinator_config is not None
    store = Store(network.coordinator_config.database_url)
    try:
        totals = store.totals.totals(0, 2**40, area="north")
        lied = {_interval(store, each) for each in with_liar}
        assert lied
        assert [total for total in totals if total.verified and total.interval_start_s in lied] == []
        billing = Billing(store, Pedersen(Edwards25519()))
        end_s = max(_interval(store, each) for each in opened) + 900
        start_s = min(_interval(store, each) for each in opened)
        count = (end_s - start_s) // 900
        tariff = Tariff("Dynamic", "1-0:1.8.0*255", "Wh", "ct", -5, start_s, 900, (3000,) * count)
        digest = billing.publish(tariff, b"", b"", 0).digest
        billing.ask("north", start_s, end_s, digest, 0)
        ring_of_liar = next(names for names in members.values() if LIAR in names)
        asked = {name for name, _ in billing.bills.outstanding()}
        assert asked
        assert asked.isdisjoint(ring_of_liar)  # nobody is billed by commitments that do not add up
    finally:
        store.close()


async def test_a_head_that_swaps_two_members_commitments_has_nobody_billed_by_them(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Attempt.report

    def swapping(mine: Attempt, suite: Suite, view: RingView) -> wire.RingTotal | None:
        """The sum stays what it is, and so what the commitments add up to."""
        said = report(mine, suite, view)
        if said is None or view.ring != 0:
            return said
        size = 32 * view.committed_count
        rows = said.commitments
        return replace(said, commitments=rows[size : 2 * size] + rows[:size] + rows[2 * size :])

    monkeypatch.setattr(Attempt, "report", swapping)
    network.verified, network.gateways, network.ring_size, network.rounds = True, 14, 7, 200
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 14, "node")
        await network.wait_until(lambda: min(len(_opened(network, ring)) for ring in (0, 1)) >= 3)
        nursery.cancel_scope.cancel()
    assert not any(each.verified for each in _opened(network, 0))
    assert all(each.verified for each in _opened(network, 1))
    assert network.coordinator_config is not None
    store = Store(network.coordinator_config.database_url)
    try:
        assert {ring for _, ring in _kept(store)} == {1}
    finally:
        store.close()


def _opened(network: Network, ring: int) -> list[Ended]:
    return [each for each in network.ended() if each.outcome is Outcome.OPENED and each.ring == ring]


def _kept(store: Store) -> list[tuple[int, int]]:
    """Epoch and ring of all the commitments that bills could be verified by."""
    with store.database.engine.connect() as connection:
        return [(row.epoch, row.ring) for row in connection.execute(select(ring_commitments))]


def _sorted(network: Network) -> tuple[list[Ended], list[Ended]]:
    """The opened rounds with the liar and those without it."""
    opened, members = [each for each in network.ended() if each.outcome is Outcome.OPENED], network.members()
    return (
        [each for each in opened if _is_in(LIAR, each, members)],
        [each for each in opened if not _is_in(LIAR, each, members)],
    )


def _is_in(name: str, ended: Ended, members: Mapping[tuple[int, int], Sequence[str]]) -> bool:
    names = members[ended.epoch, ended.ring]
    return name in names and bool(ended.roster >> names.index(name) & 1)


def _interval(store: Store, ended: Ended) -> int:
    return next(e for e in store.epochs.latest() if e.epoch == ended.epoch).interval_of(ended.round)
