"""D9, varied: a member that has the round ledger judge, without end, what costs it thousands of group operations."""

from dataclasses import replace

import pytest

from loadtest.ring import LocalRing
from protocol import wire
from protocol.dcnet.crypto import prf
from protocol.dcnet.machines.effects import Note, ToMember
from protocol.errors import RemoteProtocolError
from tests.attacks.test_d09_blame import SIZE, SUITE, Blaming, another_commitment, honest_evidence
from tests.attacks.test_d11_framing import SMALL, Framing, blames_a_liar

UNPROVED = tuple((helper, SUITE.group.multiply_base(7), bytes(64)) for helper in (0, 1, 2, 4, 5, 6, 7))


def test_a_head_doubts_few_commitments_in_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some 50 ms each in a ring of 64, on the thread that keeps all rings: a hundred a second void every round."""
    ring, message = honest_evidence()
    lie = replace(another_commitment(ring, message), parts=UNPROVED)
    checked = []
    monkeypatch.setattr(prf, "verify_partial", lambda *_: bool(checked.append(1)))
    said = [note for _ in range(100) for note in ring.ledger.receive(0, lie, 1.0)]
    assert said.count(Note("commitment_not_refuted")) == 8
    assert len(checked) == 8 * len(UNPROVED)
    ring.ledger.inquiries._doubts = 1, 1
    assert ring.ledger.receive(0, lie, 1.0) == [Note("too_many_doubts")]  # of an earlier round: that is over
    assert len(checked) == 8 * len(UNPROVED)


def test_doubts_are_about_a_round_of_the_heads_own() -> None:
    """After a restart every member has a term in the past; and a round that is to come would have its doubts now."""
    ring, message = honest_evidence()
    lie = another_commitment(ring, message)
    with pytest.raises(RemoteProtocolError, match="no_such_round"):
        ring.ledger.receive(0, replace(lie, round=9), 1.0)
    ring.ledger._next_term(1.0)
    ring.play(1)
    assert ring.ledger.receive(0, replace(lie, round=1), ring.now_s) == [Note("report_out_of_turn")]
    assert ring.ledger.inquiries.named == {}


def test_an_opening_that_was_not_asked_for_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Blaming()
    ring.play(0)
    monkeypatch.setattr(type(SUITE), "opened", lambda *_: pytest.fail("checked"))
    opening = wire.PairOpening(1, 0, 4, ring.secrets[3].open_pair(4))
    assert ring.ledger.receive(3, opening, ring.now_s) == [Note("answer_out_of_turn")]


def test_a_pair_that_was_opened_for_a_good_deal_is_judged_once() -> None:
    ring = Blaming()
    ring.play(0)
    asked = ring.ledger.receive(3, wire.BadDeal(1, 0, 4), ring.now_s)
    assert asked
    ring.ledger.receive(3, wire.PairOpening(1, 0, 4, ring.secrets[3].open_pair(4)), ring.now_s)
    assert ring.ledger.inquiries.named == {}
    assert ring.ledger.receive(3, wire.BadDeal(1, 0, 4), ring.now_s) == []


def test_a_replaced_head_has_those_who_were_there_asked_no_more() -> None:
    """One message for each member of the ring, and its answer, as often as a liar likes."""
    ring = LocalRing(SUITE, SIZE)
    said = wire.RingVoid(1, 0, 0, 0, "all are silent", ring.view.to_wire(0b1111_1110))
    asked = []
    for _ in range(50):
        for each in ring.ledger.receive(0, said, 1.0):
            if isinstance(each, ToMember) and isinstance(each.message, wire.PresenceRequest):
                asked.append(each.position)
                ring.ledger.receive(each.position, wire.Presence(1, 0, 0), 1.0)
    assert ring.ledger.term == 1
    assert sorted(asked) == list(range(1, 8))


def test_words_that_are_said_again_have_nobody_asked_again() -> None:
    """Two liars that dispute a pair, and open it never: each repetition would be passed on to all who differ."""
    said: list[tuple[int, wire.MaskWords]] = []

    class Disputing(Framing):
        def to_coordinator(self, position: int, message: wire.Message) -> None:
            if isinstance(message, wire.MaskWords):
                said.append((position, message))
            if not isinstance(message, wire.PairOpening):
                super().to_coordinator(position, message)

    ring = Disputing(SUITE, SMALL, {2, 3}, 5, blames_a_liar)
    ring.play(0)
    assert {2, 3} <= {position for position, _ in said}
    for position, message in said:
        assert ring.ledger.receive(position, message, ring.now_s) == [Note("answer_out_of_turn")]
