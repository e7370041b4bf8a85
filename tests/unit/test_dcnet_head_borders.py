"""
Borders of the head: each of these was once a mutant that nothing noticed.

Round 300 opens at 3,000 s, so that no number is small and no time is zero.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from loadtest.ring import LocalRing, RingSize, knowing, random_vectors, ready
from loadtest.signing import sign_confirm, sign_input, sign_ready
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.machines.effects import HeadEffect, Note, ToCoordinator, ToMember
from protocol.dcnet.machines.head import Head
from protocol.dcnet.machines.head_states import State
from protocol.dcnet.machines.masks import seed_commitment
from protocol.dcnet.setup.rings import Timing, bitmap, positions_of
from protocol.errors import RemoteProtocolError

SUITE = CheapSuite()
COMPLETE = RingSize(n=7, k=6, t=4, t_c=4, k_min=4, n_min=4, rounds=400)
SPARSE = RingSize(n=12, k=4, t=3, t_c=3, k_min=3, n_min=8, rounds=400)
ROUND, OPEN_S = 300, 3000.0
STALE = [Note("head_stale_message")]
VOID, OPENED = wire.Outcome.VOID, wire.Outcome.OPENED


class Late:
    """A head of round 300, everybody there and the round open; messages' numbers are other objects than its own."""

    def __init__(self, size: RingSize = COMPLETE, gone: Sequence[int] = ()) -> None:
        self.ring = LocalRing(SUITE, size)
        self.view = self.ring.view
        self.known = knowing(self.view, ROUND)
        self.head = Head(SUITE, self.view, 0, OPEN_S - 1, first_round=ROUND, known=self.known)
        for position in range(size.n):
            self.ready(position)
        for position in gone:
            self.head.lost(position, OPEN_S - 0.5)
        self.opened = self.head.on_timer(OPEN_S)

    def ready(self, position: int, now_s: float = OPEN_S - 1) -> list[HeadEffect]:
        return self.head.receive(position, ready(self.view, position, history=self.known.history), now_s)

    def share(self, position: int, now_s: float = OPEN_S + 0.5) -> list[HeadEffect]:
        message = wire.MaskedInput(
            1, 0, int("300"), self.head.current.attempt, bytes(32), seed_commitment(bytes(32)), bytes(16), b"", b"",
            bytes(64),
        )  # fmt: skip
        secrets = self.ring.secrets[position]
        return self.head.receive(position, sign_input(self.view, secrets, self.head.current.context, message), now_s)

    def confirm(self, position: int, now_s: float = OPEN_S + 0.75) -> list[HeadEffect]:
        current, neighbours = self.head.current, self.view.neighbourhoods[position]
        macs = 16 * (neighbours & current.roster).bit_count()
        dropped = bytes(32 * bool(neighbours & current.gone))
        message = wire.Confirm(1, 0, int("300"), current.attempt, bytes(macs), dropped, b"", bytes(64))
        signed = sign_confirm(self.view, self.ring.secrets[position], current.context, current.roster, message)
        return self.head.receive(position, signed, now_s)

    def reveal(self, position: int, now_s: float = OPEN_S + 1) -> list[HeadEffect]:
        return self.head.receive(position, wire.Reveal(1, 0, int("300"), self.head.current.attempt, bytes(32)), now_s)

    def to_confirming(self) -> None:
        for position in self.members():
            self.share(position)

    def to_revealing(self) -> None:
        self.to_confirming()
        for position in self.members():
            self.confirm(position)

    def members(self, *gone: int) -> list[int]:
        return [position for position in range(self.view.size) if position not in gone]


def test_each_phase_is_waited_for_from_when_it_begins() -> None:
    late = Late()
    timing = late.view.timing
    assert late.head.next_timer_s() == OPEN_S + timing.share_s
    for position in late.members():
        late.share(position)
    assert (late.head.state, late.head.next_timer_s()) == (State.CONFIRMING, OPEN_S + 0.5 + timing.confirm_s)
    for position in late.members():
        late.confirm(position)
    assert (late.head.state, late.head.next_timer_s()) == (State.REVEALING, OPEN_S + 0.75 + timing.reveal_s)
    for position in late.members(6):
        late.reveal(position)
    late.head.on_timer(OPEN_S + 3)
    assert (late.head.state, late.head.next_timer_s()) == (State.RECOVERING, OPEN_S + 3 + timing.reveal_s)


def test_a_head_of_a_round_under_way_waits_for_its_members_from_now_on() -> None:
    view = LocalRing(SUITE, COMPLETE).view
    head = Head(SUITE, view, 0, OPEN_S + 1, first_round=ROUND, known=knowing(view, ROUND))
    assert head.next_timer_s() == OPEN_S + 1 + view.timing.gather_s


def test_the_attempt_of_a_round_that_is_known_goes_on() -> None:
    view = LocalRing(SUITE, COMPLETE).view
    known = knowing(view, ROUND)
    head = Head(SUITE, view, 0, OPEN_S, first_round=int("300"), first_attempt=2, known=known)
    for position in range(7):
        out = head.receive(position, ready(view, position, history=known.history), OPEN_S)
    assert {(each.message.round, each.message.attempt) for each in out} == {(ROUND, 2)}  # type: ignore[union-attr]


class Timed(LocalRing):
    """A ring that keeps how long the head says that its phases took, and why it gave up."""

    def __init__(self, size: RingSize, timing: Timing | None = None) -> None:
        self.timed: list[Note] = []
        self.voids: list[wire.RingVoid] = []
        super().__init__(SUITE, size, timing=timing)

    def from_head(self, position: int, effects: Sequence[HeadEffect]) -> None:
        self.timed += [each for each in effects if isinstance(each, Note)]
        self.voids += [
            each.message
            for each in effects
            if isinstance(each, ToCoordinator) and isinstance(each.message, wire.RingVoid)
        ]
        super().from_head(position, effects)

    def play(self, round_: int, *losses: tuple[int, type[wire.Message]]) -> None:
        vectors = random_vectors(np.random.default_rng(5), self.view.size, self.view.word_count)
        self.round(round_, vectors, lambda position, message: (position, type(message)) in losses)


def test_phases_are_timed_from_the_opening_of_their_round() -> None:
    ring = Timed(COMPLETE)
    ring.play(0)
    ring.timed.clear()
    ring.play(1, (3, wire.Confirm))
    waited_s = ring.view.timing.confirm_s
    timed = [each for each in ring.timed if each.seconds or each.name == "collect"]
    assert [each.name for each in timed] == ["collect", "confirm", "reveal", "sum", "round"]
    assert [each.seconds for each in timed] == pytest.approx([0.0] + [waited_s] * 4)


def test_who_was_silent_and_who_did_not_help_it_are_told_together() -> None:
    ring = Timed(SPARSE, replace(Timing.spread(0.0, 10.0), silent_s=9.0))
    ring.play(0, (3, wire.Reveal), (2, wire.Partial), (4, wire.Partial))
    assert positions_of(ring.view.from_wire(ring.voids[0].silent)) == [2, 3, 4]


@pytest.mark.parametrize("gone", [1, 3])
def test_who_is_not_in_e_does_not_count_though_others_after_it_are(gone: int) -> None:
    late = Late(gone=[gone])
    late.ready(gone, OPEN_S + 0.1)
    assert late.share(gone) == STALE
    for position in late.members(gone):
        late.share(position)
    assert late.confirm(gone) == STALE
    assert positions_of(late.head.current.unconfirmed) == late.members(gone)


def test_who_has_not_confirmed_reveals_nothing_though_others_after_it_do() -> None:
    late = Late()
    late.to_confirming()
    for position in late.members(3):
        late.confirm(position)
    late.head.on_timer(late.head.next_timer_s())
    assert late.reveal(3) == STALE
    assert late.reveal(4) == []
    assert list(late.head.current.seeds) == [4]


def test_parts_of_those_who_are_no_neighbours_do_not_count() -> None:
    late = Late(SPARSE)
    late.to_revealing()
    for position in late.members(6):
        late.reveal(position)
    late.head.on_timer(late.head.next_timer_s())
    part = wire.Partial(1, 0, ROUND, 0, 6, SUITE.group.multiply_base(9), bytes(64))
    counted = [i for i in late.members() if late.head.receive(i, part, OPEN_S + 3) != STALE]
    assert counted == positions_of(late.view.neighbourhoods[6])


def test_an_end_that_comes_before_the_last_attempt_tells_who_was_silent() -> None:
    for outcome, said in ((VOID, [bitmap([5])]), (OPENED, [])):
        late = Late()
        for position in late.members(3):
            late.share(position)
        late.head.on_timer(late.head.next_timer_s())
        for position in late.members(3, 5):
            late.confirm(position)
        late.head.on_timer(late.head.next_timer_s())
        assert (late.head.state, late.head.current.attempt) == (State.COLLECTING, 1)
        end = wire.Result(1, 0, int("300"), int(outcome), late.view.to_wire(0), bytes(64))
        out = late.head.result(end, OPEN_S + 4)
        asked = [each.message for each in out if isinstance(each, ToCoordinator)]
        assert [late.view.from_wire(each.silent) for each in asked if isinstance(each, wire.RingVoid)] == said
        assert (late.head.state, late.head.next_timer_s()) == (State.IDLE, OPEN_S + 10)


def test_the_end_of_an_earlier_round_leaves_the_open_one_as_it_is() -> None:
    late = Late()
    end = wire.Result(1, 0, ROUND - 1, VOID, late.view.to_wire(0), bytes(64))
    assert late.head.result(end, OPEN_S + 1) == [ToMember(position, end) for position in late.members()]
    assert late.head.state is State.COLLECTING


def test_ready_for_a_later_term_does_not_count() -> None:
    late = Late()
    assert late.head.receive(2, ready(late.view, 2, term=1, history=late.known.history), OPEN_S) == STALE


def test_a_large_ring_that_is_all_there_opens_a_late_round_at_once() -> None:
    view = LocalRing(SUITE, SPARSE).view
    head = Head(SUITE, view, 0, 1.0)
    said = [len(head.receive(position, ready(view, position), 1.0)) for position in range(12)]
    assert said == [0] * 11 + [12]


@pytest.mark.parametrize("nonce", [bytes(16), b"\xff" * 16])
def test_a_member_that_was_started_anew_is_hardly_waited_for(nonce: bytes) -> None:
    late = Late()
    for position in late.members(3):
        late.share(position)
    again = sign_ready(late.view, late.ring.secrets[3], ready(late.view, 3, history=late.known.history), nonce)
    late.head.receive(3, again, OPEN_S + 0.6)
    assert late.head.next_timer_s() == pytest.approx(OPEN_S + 0.6 + late.view.timing.share_s / 16)


def test_a_head_keeps_eight_events_for_each_member() -> None:
    late = Late()
    for _ in range(100):
        late.head.lost(3, OPEN_S)
    assert len(late.head.bug_report()["events"]) == 56


@pytest.mark.parametrize(("over_s", "due_s"), [(1.0, 8.2), (8.0, 9.5)])
def test_a_result_is_waited_for_until_the_round_is_void_at_least(over_s: float, due_s: float) -> None:
    late = Late()
    late.to_revealing()
    for position in late.members():
        late.reveal(position, OPEN_S + over_s)
    assert late.head.state is State.REPORTED
    assert late.head.next_timer_s() == pytest.approx(OPEN_S + due_s)


def test_shares_that_are_late_are_waited_for_until_the_round_is_almost_over() -> None:
    late = Late()
    assert late.head.on_timer(OPEN_S + 2) == []
    assert late.head.next_timer_s() == pytest.approx(OPEN_S + 2.75)
    assert late.head.on_timer(OPEN_S + 7) == []
    assert late.head.next_timer_s() == pytest.approx(OPEN_S + 7.45)
    assert late.head.on_timer(OPEN_S + 7.46) != []


def test_a_reveal_of_a_broken_link_is_hardly_waited_for_once_it_is_the_last() -> None:
    late = Late()
    late.to_revealing()
    for position in late.members(3, 5):
        late.reveal(position)
    late.head.lost(3, OPEN_S + 1.1)
    assert late.head.next_timer_s() == OPEN_S + 0.75 + late.view.timing.reveal_s, "5 is there"
    late.reveal(5, OPEN_S + 1.2)
    assert late.head.next_timer_s() == pytest.approx(OPEN_S + 1.2 + late.view.timing.reveal_s / 16)


def test_a_broken_link_hurries_nobody_while_the_first_member_is_missing() -> None:
    late = Late()
    for position in late.members(0, 6):
        late.share(position)
    late.head.lost(6, OPEN_S + 0.6)
    assert late.head.next_timer_s() == OPEN_S + late.view.timing.share_s


def test_who_reveals_a_wrong_seed_is_there_and_who_is_silent_is_not() -> None:
    late = Late()
    late.to_revealing()
    for position in late.members(3, 5):
        late.reveal(position)
    late.head.receive(5, wire.Reveal(1, 0, ROUND, 0, bytes(31) + b"\1"), OPEN_S + 1)
    late.head.on_timer(late.head.next_timer_s())
    assert positions_of(late.head.presence.caught) == [5]
    assert positions_of(late.head.presence.present) == late.members(3)


def test_who_cannot_be_recovered_is_told_at_the_end_of_the_round() -> None:
    late = Late(SPARSE)
    late.to_revealing()
    for position in late.members(2, 3, 4):
        late.reveal(position)
    out: list[HeadEffect] = []
    while not out:
        out = late.head.on_timer(late.head.next_timer_s())
    reason = "a silent member has fewer than 3 neighbours to recover it"
    void = wire.RingVoid(1, 0, ROUND, 0, reason, late.view.to_wire(bitmap([2, 3, 4])))
    assert [each.name for each in out if isinstance(each, Note)] == ["reveal"]
    assert out[1:] == [ToCoordinator(void)]


def test_messages_of_an_earlier_round_or_attempt_or_epoch_do_not_count() -> None:
    late = Late()
    message = wire.Reveal(1, 0, ROUND - 1, 0, bytes(32))
    late.to_revealing()
    assert late.head.receive(1, message, OPEN_S + 1) == STALE
    again = Late()
    for position in again.members(3):
        again.share(position)
    again.head.on_timer(again.head.next_timer_s())
    for position in again.members(3, 5):
        again.confirm(position)
    again.head.on_timer(again.head.next_timer_s())
    old = wire.MaskedInput(1, 0, ROUND, 0, bytes(32), bytes(32), bytes(16), b"", b"", bytes(64))
    assert again.head.current.attempt == 1
    assert again.head.receive(1, old, OPEN_S + 4) == STALE
    view = replace(late.view, epoch=2)
    with pytest.raises(RemoteProtocolError, match="wrong_ring"):
        Head(SUITE, view, 0, 0.0).receive(1, ready(late.view, 1), 0.0)
