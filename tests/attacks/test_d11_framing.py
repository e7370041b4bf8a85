"""
D11: liars that lie where the victim is in E, or say whatever may have it named, get nobody named but themselves.

In the first edition two of them had the victim named in 362 to 382 of 400 runs.  Here every statement is signed: what a
liar can do is lie to its own equation, or to a pair that the victim opens.
"""

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from loadtest.ring import LocalRing, RingSize, random_vectors
from loadtest.signing import sign_input
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite, Suite
from protocol.dcnet.machines.effects import (
    Ended,
    MemberEffect,
    ReportMisbehaviour,
    ToCoordinator,
    ToHead,
    ToMember,
)
from protocol.dcnet.setup.statements import words_text
from protocol.errors import RemoteProtocolError

SMALL = RingSize(n=8, k=7, t=5, t_c=5, k_min=5, n_min=5, rounds=24)
CIRCLE = RingSize(n=12, k=6, t=4, t_c=4, k_min=4, n_min=7, rounds=24)
VOID = wire.Outcome.VOID
Answer = Callable[["Framing", int, wire.MaskWords], wire.MaskWords | None]


class Framing(LocalRing):
    """`liars` spoil the first word of their inputs where the victim is in E, and answer as `answer` says."""

    def __init__(self, suite: Suite, size: RingSize, liars: set[int], victim: int, answer: Answer) -> None:
        self.liars, self.victim, self.answer = liars, victim, answer
        self.spoilt: dict[tuple[int, int], int] = {}
        self.opened: list[tuple[int, int]] = []
        self.rng = random.Random(7)
        super().__init__(suite, size)

    def from_member(self, index: int, instructions: list[MemberEffect]) -> None:  # type: ignore[override]
        out: list[MemberEffect] = []
        for each in instructions:
            message = each.message if isinstance(each, ToHead | ToCoordinator) else None
            if isinstance(message, wire.PairOpening):
                self.opened.append((index, message.position))
            if index in self.liars and isinstance(message, wire.MaskedInput):
                out.append(ToHead(self._spoil(index, message)))
            elif index in self.liars and isinstance(message, wire.MaskWords):
                said = self.answer(self, index, message)
                out += [] if said is None else [ToCoordinator(said)]
            else:
                out.append(each)
        super().from_member(index, out)

    def _spoil(self, index: int, message: wire.MaskedInput) -> wire.MaskedInput:
        current = self.members[index].current
        if not current.expected >> self.victim & 1:
            return message
        delta = self.spoilt[index, message.round] = self.rng.randrange(1, 2**64)
        word = (int.from_bytes(message.vector[:8], "little") + delta) % 2**64
        lie = replace(message, vector=word.to_bytes(8, "little") + message.vector[8:])
        return sign_input(self.view, self.secrets[index], current.context, lie)

    def said(self, index: int, message: wire.MaskWords, changes: dict[int, int]) -> wire.MaskWords:
        """An answer with other words towards some neighbours, signed."""
        context, _, neighbours, words = self.members[index]._answers._inquiries[message.round, message.attempt]
        values = [int.from_bytes(words[i : i + 8], "little") for i in range(0, len(words), 8)]
        for other, change in changes.items():
            values[neighbours.index(other)] += change if index < other else -change
        changed = b"".join((value % 2**64).to_bytes(8, "little") for value in values)
        signature = self.secrets[index].sign(words_text(self.view, index, context, changed))
        return replace(message, words=changed, signature=signature)

    def play(self, round_: int) -> Ended:
        vectors = random_vectors(np.random.default_rng(round_), self.view.size, self.view.word_count)
        return self.round(round_, vectors)


def denies(_ring: Framing, _index: int, message: wire.MaskWords) -> wire.MaskWords:
    """The true words: its own equation does not hold."""
    return message


def blames_the_victim(ring: Framing, index: int, message: wire.MaskWords) -> wire.MaskWords:
    """A word towards the victim that makes up for the lie."""
    return ring.said(index, message, {ring.victim: ring.spoilt[index, message.round]})


def blames_a_liar(ring: Framing, index: int, message: wire.MaskWords) -> wire.MaskWords:
    """A word towards another liar that makes up for it: neither need open the pair."""
    others = sorted(ring.liars - {index})
    return ring.said(index, message, {others[0]: ring.spoilt[index, message.round]}) if others else message


def makes_it_up_with_two(ring: Framing, index: int, message: wire.MaskWords) -> wire.MaskWords:
    """The lie spread over the victim and another honest neighbour."""
    honest = next(i for i in range(ring.view.size) if i not in ring.liars | {ring.victim} and _near(ring, index, i))
    half = ring.spoilt[index, message.round] // 2
    return ring.said(index, message, {ring.victim: half, honest: ring.spoilt[index, message.round] - half})


def is_silent(_ring: Framing, _index: int, _message: wire.MaskWords) -> None:
    """No answer at all."""


def _near(ring: Framing, index: int, other: int) -> bool:
    return bool(ring.view.neighbourhoods[index] >> other & 1)


@pytest.mark.parametrize("answer", [denies, blames_the_victim, makes_it_up_with_two, blames_a_liar, is_silent])
@pytest.mark.parametrize(
    ("size", "liars", "victim"),
    [(SMALL, {1}, 5), (SMALL, {2, 6}, 3), (SMALL, {0, 4}, 7), (CIRCLE, {4, 6}, 5), (CIRCLE, {0, 1}, 2)],
    ids=["one", "two", "the head and one", "on a circle", "the head on a circle"],
)
def test_liars_that_frame_name_nobody_but_themselves(
    answer: Answer, size: RingSize, liars: set[int], victim: int
) -> None:
    ring = Framing(CheapSuite(), size, liars, victim, answer)
    ended = [ring.play(round_) for round_ in range(8)]
    assert ring.named <= liars
    voids = [each.round for each in ended if each.outcome is VOID]
    assert 1 <= len(voids) <= 5
    assert all(each.outcome is wire.Outcome.OPENED for each in ended[5:])
    assert all(each.roster >> victim & 1 for each in ended[5:])
    if answer not in {is_silent, blames_a_liar}:
        assert ring.named == liars
    assert all(set(pair) & liars for pair in ring.opened), "a pair of two honest members is never opened"


def test_the_victim_opens_the_pair_with_the_real_primitives() -> None:
    ring = Framing(StandardSuite(), SMALL, {2}, 5, blames_the_victim)
    assert ring.play(0).reason == "the masks did not cancel"
    assert (ring.named, ring.opened) == ({2}, [(5, 2)])
    assert ring.play(1).roster == ring.view.everybody & ~(1 << 2)


def test_liars_that_never_answer_stay_out_and_come_back_with_their_answer() -> None:
    ring = Framing(CheapSuite(), SMALL, {2}, 5, is_silent)
    assert ring.play(0).outcome is VOID
    for round_ in (1, 2):
        assert ring.play(round_).roster == ring.view.everybody & ~(1 << 2)
    assert ring.named == set()
    ring.answer = denies
    ring.play(3)
    assert ring.named == {2}, "asked again when a round ends, it answered and is named"


def test_an_honest_member_that_was_away_is_out_until_it_answers() -> None:
    ring = Framing(CheapSuite(), SMALL, {2}, 5, blames_a_liar)
    away = {6}
    deliver = ring._deliver

    def losing(target: str, index: int, message: wire.Message) -> None:
        if not (index in away and isinstance(message, wire.Inquiry)):
            deliver(target, index, message)

    ring._deliver = losing  # type: ignore[method-assign]
    ring.answer = is_silent
    assert ring.play(0).outcome is VOID
    assert ring.play(1).roster == ring.view.everybody & ~(1 << 2) & ~(1 << 6)
    away.clear()
    ring.play(2)
    assert ring.play(3).roster == ring.view.everybody & ~(1 << 2)
    assert ring.named == set()


def test_malformed_and_unsigned_answers_are_refused_and_the_first_counts() -> None:
    ring = Framing(CheapSuite(), SMALL, {2}, 5, is_silent)
    ring.play(0)
    receive = ring.ledger.receive
    with pytest.raises(RemoteProtocolError, match="bad_answer"):
        receive(2, wire.MaskWords(1, 0, 0, 0, bytes(8), bytes(64)), 9.0)
    with pytest.raises(RemoteProtocolError, match="bad_signature"):
        receive(2, wire.MaskWords(1, 0, 0, 0, bytes(56), bytes(64)), 9.0)
    true = ring.said(2, wire.MaskWords(1, 0, 0, 0, b"", b""), {})
    receive(3, wire.MaskWords(1, 0, 0, 0, bytes(56), bytes(64)), 9.0)  # it has answered: what comes later is not read
    assert ring.named == set()
    ring.from_ledger(receive(2, true, 9.0))
    assert ring.named == {2}


def test_evidence_with_a_recovered_unconfirmed_member_holds() -> None:
    ring = Framing(CheapSuite(), SMALL, {2}, 5, denies)
    vectors = random_vectors(np.random.default_rng(0), 8, 4)
    ended = ring.round(0, vectors, lambda who, message: who == 6 and isinstance(message, wire.Confirm))
    assert ended.reason == "the masks did not cancel"
    assert ring.named == {2}
    assert ring.play(1).roster & (1 << 6 | 1 << 2) == 0, "6 owes its answer"


def test_cases_that_are_open_are_bounded() -> None:
    """Who owes an answer is out, so there are hardly two at once; a ledger does not rely on it."""
    ring = Framing(CheapSuite(), replace(SMALL, rounds=40), {2}, 5, is_silent)
    ring.ledger.inquiries.excluded = lambda round_, now_s: 0  # type: ignore[method-assign] # noqa: ARG005
    for round_ in range(20):
        ring.play(round_)
    assert len(ring.ledger.inquiries._cases) == 16


def test_a_corrupt_sum_of_an_ended_round_or_former_head_changes_nothing() -> None:
    ring = Framing(CheapSuite(), SMALL, {2}, 5, is_silent)
    ring.play(0)
    evidence = next(iter(ring.ledger.inquiries._cases.values()))[0].evidence
    again = ring.ledger.receive(0, evidence, 9.0)
    assert [type(each) for each in again] == [ToMember]
    ring.ledger._next_term(9.5)
    late = replace(evidence, round=1)
    assert ring.ledger.receive(0, late, 11.0) == []
    assert set(ring.ledger.ended) == {0}


def test_a_head_that_is_named_passes_its_successor_whom_to_leave_out() -> None:
    ring = Framing(CheapSuite(), SMALL, {0}, 5, denies)
    ring.play(0)
    assert (ring.named, ring.head_position) == ({0}, 1)
    assert ring.play(1).roster == ring.view.everybody & ~1
    for _ in range(7):
        ring.ledger._next_term(ring.now_s)
    assert ring.view.head_of(ring.ledger.term) != 0
    ring.ledger.inquiries.named.clear()
    told = [each for each in ring.ledger._next_term(ring.now_s) if isinstance(each, ToMember)]
    assert [each.message for each in told] == [wire.LeftOut(1, 0, b"\0")], "it may remember its last turn"


def test_a_pair_opened_for_its_deal_names_nobody_in_a_case_that_waits() -> None:
    """A liar owes its words, so its case is open when others settle what they say of a deal."""
    ring = Framing(CheapSuite(), SMALL, {2}, 5, is_silent)
    assert ring.play(0).outcome is VOID
    ring.ledger.receive(3, wire.BadDeal(1, 0, 4), ring.now_s)
    opening = wire.PairOpening(1, 0, 4, ring.secrets[3].open_pair(4))
    out = ring.ledger.receive(3, opening, ring.now_s)
    assert not [each for each in out if isinstance(each, ReportMisbehaviour)]
