"""
D9: a member that spoils rounds is named with a proof or is left out, and a head that blames is replaced.

In the first edition a member that dealt nothing usable and withheld REVEAL voided 96 of 96 rounds, and nobody was
named.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from loadtest.ring import LocalRing, RingSize, ledger_secrets, random_vectors
from loadtest.signing import sign_again
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.crypto import prf
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines.blame import Case, context_of
from protocol.dcnet.machines.effects import (
    Ended,
    HeadEffect,
    MemberEffect,
    Misbehaviour,
    Note,
    ReportMisbehaviour,
    ToCoordinator,
    ToHead,
)
from protocol.dcnet.machines.ledger import RoundLedger
from protocol.dcnet.machines.masks import seed_commitment
from protocol.dcnet.setup.rings import positions_of
from protocol.dcnet.setup.secrets import mask_label
from protocol.dcnet.setup.statements import blame_half, input_text, inquiry_text, words_text
from protocol.errors import RemoteProtocolError

SUITE = CheapSuite()
SIZE = RingSize(n=8, k=7, t=5, t_c=5, k_min=5, n_min=5, rounds=48)
OPENED, VOID = wire.Outcome.OPENED, wire.Outcome.VOID
Bend = Callable[[wire.CorruptSum], wire.CorruptSum]


class Blaming(LocalRing):
    """A ring whose head says of each sum that it is corrupt, with evidence that `bend` may change."""

    def __init__(self, bend: Bend | None = None, size: RingSize = SIZE) -> None:
        self.bend = bend
        self.evidence: list[wire.CorruptSum] = []
        self.inquiries: list[wire.Inquiry] = []
        super().__init__(SUITE, size)

    def from_head(self, position: int, effects: list[HeadEffect]) -> None:  # type: ignore[override]
        out: list[HeadEffect] = []
        for each in effects:
            if isinstance(each, ToCoordinator) and isinstance(each.message, wire.RingTotal):
                self.evidence.append(self.head.current.evidence(self.view))
                if self.bend is not None and position == 0:
                    out.append(ToCoordinator(self.bend(self.evidence[-1])))
                    continue
            out.append(each)
        super().from_head(position, out)

    def from_coordinator(self, target: int, message: wire.Message) -> None:
        if isinstance(message, wire.Inquiry):
            self.inquiries.append(message)
        super().from_coordinator(target, message)

    def play(self, round_: int) -> Ended:
        vectors = random_vectors(np.random.default_rng(round_), self.view.size, self.view.word_count)
        return self.round(round_, vectors)


def first_changed(message: wire.CorruptSum, index: int, value: bytes) -> wire.CorruptSum:
    first, *others = message.evidence
    parts = list(first)
    parts[index] = value
    return replace(message, evidence=(tuple(parts), *others))  # type: ignore[arg-type]


BENT: dict[str, Bend] = {
    "as it is": lambda said: said,
    "another first word": lambda said: first_changed(said, 0, bytes(8)),
    "another seed": lambda said: first_changed(said, 5, bytes(32)),
    "no evidence": lambda said: replace(said, evidence=()),
    "of one less": lambda said: replace(said, evidence=said.evidence[1:]),
    "two swapped": lambda said: replace(said, evidence=(said.evidence[1], said.evidence[0], *said.evidence[2:])),
    "another attempt": lambda said: replace(said, attempt=1),
    "another E": lambda said: replace(said, expected=b"\xfe", nonces=said.nonces[16:], roster=b"\xfe"),
    "other nonces": lambda said: replace(said, nonces=bytes(len(said.nonces))),
    "nonces of fewer": lambda said: replace(said, nonces=said.nonces[16:]),
    "other terms": lambda said: replace(said, mask_terms=bytes(32)),
    "a roster out of E": lambda said: replace(said, expected=b"\x7f", nonces=said.nonces[:-16]),
}


@pytest.mark.parametrize("bend", BENT.values(), ids=BENT)
def test_a_head_that_blames_without_cause_is_replaced_and_nobody_is_asked(bend: Bend) -> None:
    ring = Blaming(bend)
    ended = ring.play(0)
    assert (ended.outcome, ended.reason) == (VOID, "the head's evidence proves nothing")
    assert (ring.inquiries, ring.named) == ([], set())
    assert ring.ledger.unfit == 1
    for round_ in range(1, 4):
        assert (ring.play(round_).outcome, ring.head_position) == (OPENED, 1)


def test_a_head_whose_evidence_proved_nothing_is_not_head_again() -> None:
    ring = Blaming(BENT["no evidence"])
    ring.play(0)
    heads = []
    for _ in range(9):
        ring.ledger._next_term(ring.now_s)
        heads.append(ring.view.head_of(ring.ledger.term))
    assert 0 not in heads


def test_withheld_seeds_cost_no_round_where_the_deal_is_good() -> None:
    ring = LocalRing(SUITE, SIZE)
    for round_ in range(4):
        vectors = random_vectors(np.random.default_rng(round_), 8, 4)
        ended = ring.round(round_, vectors, lambda who, message: who == 3 and isinstance(message, wire.Reveal))
        assert ended.outcome is OPENED
        ring.silent.clear()
        ring.from_member(3, ring.members[3].appointed(ring.head.term, ring.now_s))


def test_t_parts_prove_a_commitment_to_another_seed() -> None:
    ring = LocalRing(StandardSuite(), RingSize(n=6, k=5, t=3, t_c=3, k_min=3, n_min=4, rounds=8))
    from_member = ring.from_member

    def lying(index: int, effects: list[MemberEffect]) -> None:
        out: list[MemberEffect] = []
        for each in effects:
            if index == 2 and isinstance(each, ToHead) and isinstance(each.message, wire.MaskedInput):
                lie = replace(each.message, seed_commitment=seed_commitment(bytes(32)))
                out.append(ToHead(sign_again(lie, ring.members[2], ring.secrets[2])))
            else:
                out.append(each)
        from_member(index, out)

    ring.from_member = lying  # type: ignore[method-assign, assignment]
    vectors = random_vectors(np.random.default_rng(1), 6, 4)
    ring.round(0, vectors, lambda who, message: who == 2 and isinstance(message, wire.Reveal))
    assert [(each.position, each.misbehaviour) for each in ring.misbehaviour] == [(2, Misbehaviour.WRONG_SEED)]


def honest_evidence() -> tuple[Blaming, wire.WrongCommitment]:
    """The parts of its neighbours for a member that committed to the right seed."""
    ring = Blaming()
    ring.play(0)
    said = ring.evidence[0]
    label_nonce = ring.view.members[3].nonce
    label = mask_label(ring.view, 0, 0, label_nonce, said.mask_terms)
    parts = []
    for helper in (0, 1, 2, 4, 5):
        part = ring.secrets[helper].partial(3, label)
        assert part is not None
        parts.append((helper, *part))
    message = wire.WrongCommitment(
        1, 0, 0, 0, 0, said.expected, said.nonces, said.mask_terms, 3, said.evidence[3][:5], tuple(parts)
    )
    assert prf.mask_seed(prf.combine(SUITE.group, {h + 1: e for h, e, _ in parts}), label) == said.evidence[3][5]
    return ring, message


def another_commitment(ring: Blaming, message: wire.WrongCommitment) -> wire.WrongCommitment:
    """The same parts for an input that commits to another seed, and is signed."""
    word, vector, _, commitments, _ = message.evidence
    wrong = seed_commitment(bytes(32))
    half = blame_half(ring.view, 3, context_of(ring.view, message), word, vector, wrong)
    signature = ring.secrets[3].sign(input_text(half, commitments))
    return replace(message, evidence=(word, vector, wrong, commitments, signature))


UNPROVED = (0, SUITE.group.multiply_base(7), bytes(64))
BENT_PARTS: dict[str, Callable[[wire.WrongCommitment], wire.WrongCommitment]] = {
    "too few": lambda m: replace(m, parts=m.parts[1:]),
    "one five times": lambda m: replace(m, parts=(m.parts[0],) * 5),
    "unproved": lambda m: replace(m, parts=(UNPROVED, *m.parts[1:])),
    "its own": lambda m: replace(m, parts=((3, *m.parts[0][1:]), *m.parts[1:])),
}


@pytest.mark.parametrize("bend", BENT_PARTS.values(), ids=BENT_PARTS)
def test_a_wrong_commitment_is_not_proved_by_fewer_than_t_neighbours(
    bend: Callable[[wire.WrongCommitment], wire.WrongCommitment],
) -> None:
    """And the head is blamed for nothing: it may lack the dealer's commitments."""
    ring, message = honest_evidence()
    lie = another_commitment(ring, message)
    assert ring.ledger.receive(0, bend(lie), 1.0) == [Note("commitment_not_refuted")]
    assert (ring.ledger.inquiries.named, ring.ledger.unfit) == ({}, 0)
    assert ring.ledger.receive(0, replace(lie, parts=(UNPROVED, *lie.parts)), 1.0)[0] == ReportMisbehaviour(
        0, 0, 3, Misbehaviour.WRONG_SEED
    )


def test_the_true_commitment_is_not_refuted_by_its_neighbours_parts() -> None:
    ring, message = honest_evidence()
    assert ring.ledger.receive(0, message, 1.0) == [Note("commitment_not_refuted")]
    assert ring.ledger.inquiries.named == {}


@pytest.mark.parametrize("commitments", [None, (bytes(31) + b"\xff",)], ids=["no deal", "a deal of no elements"])
def test_a_deal_that_is_none_refutes_no_commitment(commitments: tuple[bytes, ...] | None) -> None:
    ring, message = honest_evidence()
    dealt = ring.deals.pop(3)
    if commitments is not None:
        ring.deals[3] = replace(dealt, commitments=commitments * len(dealt.commitments))
    assert ring.ledger.receive(0, another_commitment(ring, message), 1.0)[0] == Note("commitment_not_refuted")


@pytest.mark.parametrize(
    "bend",
    [
        lambda m: replace(m, evidence=(bytes(8), *m.evidence[1:])),
        lambda m: replace(m, position=4),
        lambda m: replace(m, position=200),
    ],
    ids=["unsigned", "another", "nobody"],
)
def test_a_commitment_that_its_member_did_not_sign_is_no_evidence(
    bend: Callable[[wire.WrongCommitment], wire.WrongCommitment],
) -> None:
    ring, message = honest_evidence()
    with pytest.raises(RemoteProtocolError, match="bad_evidence"):
        ring.ledger.receive(0, bend(message), 1.0)
    assert ring.ledger.inquiries.named == {}


# --- what members answer --------------------------------------------------------------------------------------------


def inquiry(ring: Blaming, **changes: object) -> wire.Inquiry:
    """One that the ledger signed, about round 0."""
    said = ring.evidence[0]
    message = wire.Inquiry(1, 0, 0, 0, 0, said.expected, said.roster, said.nonces, said.mask_terms, bytes(64))
    message = replace(message, **changes)  # type: ignore[arg-type]
    text = inquiry_text(ring.view, context_of(ring.view, message), ring.view.from_wire(message.roster))
    return replace(message, signature=ledger_secrets(SUITE, bytes(32)).sign(text))


def test_a_member_answers_first_words_only_and_the_same_after_a_restart() -> None:
    ring = Blaming()
    ring.play(0)
    (first,) = ring.members[3].asked(inquiry(ring))
    assert isinstance(first, ToCoordinator)
    assert isinstance(first.message, wire.MaskWords)
    assert len(first.message.words) == 8 * 7
    whole = ring.members[3]._place.masks
    for index, other in enumerate(positions_of(ring.view.neighbourhoods[3])):
        word = int.from_bytes(first.message.words[8 * index : 8 * index + 8], "little")
        assert int(whole.words(0, 0, 1 << other)[0]) == (word if other > 3 else -word) % 2**64
    assert ring.members[3].asked(inquiry(ring)) == [first]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"round": 1}, "bad_inquiry"), ({"attempt": 1}, "bad_inquiry"), ({"roster": b"\xf7"}, "bad_inquiry"),
     ({"nonces": b""}, "bad_nonces")],
)  # fmt: skip
def test_a_member_does_not_answer_about_an_attempt_that_it_was_not_in(changes: dict[str, object], reason: str) -> None:
    ring = Blaming()
    ring.play(0)
    with pytest.raises(RemoteProtocolError, match=reason):
        ring.members[3].asked(replace(inquiry(ring), **changes) if "nonces" in changes else inquiry(ring, **changes))  # type: ignore[arg-type]


def test_a_member_answers_nobody_but_the_ledger() -> None:
    ring = Blaming()
    ring.play(0)
    with pytest.raises(RemoteProtocolError, match="forged_inquiry"):
        ring.members[3].asked(replace(inquiry(ring), signature=bytes(64)))
    with pytest.raises(RemoteProtocolError, match="message_not_allowed"):
        ring.members[3].asked(wire.Appoint(1, 0, 0))


def disputed(ring: Blaming, signer: int, words: bytes, position: int | None = None) -> wire.DisputedPair:
    context = context_of(ring.view, inquiry(ring))
    signature = ring.secrets[signer].sign(words_text(ring.view, signer, context, words))
    return wire.DisputedPair(1, 0, 0, 0, signer if position is None else position, words, signature)


def test_a_pair_is_opened_only_against_a_signed_word_that_differs() -> None:
    """Or a ledger would have every pair opened, and every mask with it."""
    ring = Blaming()
    ring.play(0)
    member = ring.members[3]
    assert member.asked(disputed(ring, 5, bytes(56)))[0].name == "member_stale_message"  # type: ignore[union-attr]
    member.asked(inquiry(ring))
    (answer,) = ring.members[5].asked(inquiry(ring))
    assert isinstance(answer, ToCoordinator)
    assert isinstance(answer.message, wire.MaskWords)
    honest = answer.message.words
    with pytest.raises(RemoteProtocolError, match="no_dispute"):
        member.asked(disputed(ring, 5, honest))
    with pytest.raises(RemoteProtocolError, match="bad_signature"):
        member.asked(replace(disputed(ring, 5, honest), words=bytes(56)))
    with pytest.raises(RemoteProtocolError, match="bad_signature"):
        member.asked(disputed(ring, 4, bytes(56), position=5))
    with pytest.raises(RemoteProtocolError, match="not_a_neighbour"):
        member.asked(disputed(ring, 3, bytes(56)))
    with pytest.raises(RemoteProtocolError, match="bad_answer"):
        member.asked(disputed(ring, 5, honest[:-8]))
    opened = member.asked(disputed(ring, 5, bytes(56)))  # a liar's: it signed what is not the word
    assert [type(each.message) for each in opened if isinstance(each, ToCoordinator)] == [wire.PairOpening]


def test_inquiries_that_a_member_remembers_are_bounded() -> None:
    ring = Blaming()
    for round_ in range(12):
        ring.play(round_)
    for round_ in range(12):
        said = ring.evidence[round_]
        ring.members[3].asked(inquiry(ring, round=round_, mask_terms=said.mask_terms))
    assert len(ring.members[3]._answers._inquiries) == 8


# --- the judge ------------------------------------------------------------------------------------------------------


def test_a_sum_that_cancels_is_no_case() -> None:
    ring = Blaming()
    ring.play(0)
    with pytest.raises(RemoteProtocolError, match="do cancel"):
        Case(SUITE, ring.view, ring.evidence[0])
    out = ring.ledger.receive(3, wire.MaskWords(1, 0, 0, 0, bytes(56), bytes(64)), 1.0)
    assert out == [Note("answer_out_of_turn")]


@pytest.mark.parametrize("index", [6, 7, 8])
def test_evidence_with_words_that_their_member_did_not_sign_proves_nothing(index: int) -> None:
    """Words towards a dropped member: changed, of another digest, or with another signature."""
    ring = Blaming(lambda said: first_changed(said, index, bytes(len(said.evidence[0][index]))))
    vectors = random_vectors(np.random.default_rng(0), 8, 4)
    ended = ring.round(0, vectors, lambda who, message: who == 6 and isinstance(message, wire.MaskedInput))
    assert ended.reason == "the head's evidence proves nothing"
    assert ring.inquiries == []


@pytest.mark.parametrize(
    ("dealer", "change", "reason"),
    [(3, {}, "not_a_neighbour"), (4, {"signature": bytes(64)}, "bad_signature"), (4, {}, "no_dispute")],
)
def test_a_pair_is_opened_for_no_deal_that_is_good_or_unsigned(
    dealer: int, change: dict[str, bytes], reason: str
) -> None:
    ring = Blaming()
    deal = ring.deals[dealer]
    message = wire.DisputedDeal(1, 0, dealer, deal.commitments, deal.sealed, deal.signature)
    with pytest.raises(RemoteProtocolError, match=reason):
        ring.members[3].asked(replace(message, **change))  # type: ignore[arg-type]


def test_an_opening_that_proves_nothing_or_is_of_no_pair_is_refused() -> None:
    ring = Blaming()
    ring.ledger.receive(3, wire.BadDeal(1, 0, 4), 1.0)
    with pytest.raises(RemoteProtocolError, match="bad_pair_opening"):
        ring.ledger.receive(3, wire.PairOpening(1, 0, 4, bytes(96)), 1.0)
    for other in (3, 200):
        with pytest.raises(RemoteProtocolError, match="not_a_neighbour"):
            ring.ledger.receive(3, wire.PairOpening(1, 0, other, bytes(96)), 1.0)


def test_a_complaint_about_who_deals_the_complainer_nothing_is_refused() -> None:
    ring = Blaming()
    for dealer in (3, 200):
        with pytest.raises(RemoteProtocolError, match="not_a_neighbour"):
            ring.ledger.receive(3, wire.BadDeal(1, 0, dealer), 1.0)


# --- silence --------------------------------------------------------------------------------------------------------


def left_out(ring: LocalRing, round_: int, now_s: float) -> int:
    return ring.ledger.inquiries.excluded(round_, now_s)


def test_who_is_silent_to_the_ledger_too_is_out_for_twice_as_long_each_time() -> None:
    ring = LocalRing(SUITE, SIZE)
    ask, late_s = ring.ledger.inquiries.silent, ring.view.timing.silent_s
    outs = []
    for times in range(8):
        round_ = 200 * times if times > 99 else 10
        ask(0, 1 << 3, round_, 0.0)
        assert left_out(ring, round_, late_s - 0.1) in {0, 1 << 3}
        out = round_
        while left_out(ring, out, late_s) >> 3 & 1:
            out += 1
        outs.append(out - round_)
    assert outs == [1, 2, 4, 8, 16, 32, 64, 64]
    ask(0, 1 << 3, 10 + 4 * 96, 0.0)
    out = 10 + 4 * 96
    while left_out(ring, out, late_s) >> 3 & 1:
        out += 1
    assert out - (10 + 4 * 96) == 4, "four days without silence take four doublings back"


def test_who_answers_the_ledger_was_not_silent() -> None:
    ring = LocalRing(SUITE, SIZE)
    (asked,) = ring.ledger.inquiries.silent(0, 1 << 3, 0, 0.0)
    assert asked.message == wire.PresenceRequest(1, 0, 0)  # type: ignore[union-attr]
    assert ring.ledger.inquiries.silent(0, 1 << 3, 0, 0.0) == []
    ring.from_member(3, ring.members[3].asked(wire.PresenceRequest(1, 0, 0)))
    ring._run()
    assert left_out(ring, 0, 100.0) == 0


def test_a_deal_is_out_of_the_ledgers_reach_where_it_holds_none() -> None:
    ring = LocalRing(SUITE, SIZE)
    ledger = RoundLedger(SUITE, ring.view, ledger_secrets(SUITE, bytes(32)), 0.0)
    assert ledger.receive(3, wire.BadDeal(1, 0, 4), 1.0) == []
    assert ledger.excluded == 0


def test_a_ring_in_which_everybody_lied_still_has_a_head() -> None:
    ring = LocalRing(SUITE, SIZE)
    ring.ledger.inquiries.named.update(dict.fromkeys(range(8), Misbehaviour.CORRUPT_SUM))
    assert not any(isinstance(each, ReportMisbehaviour) for each in ring.ledger._next_term(1.0))
    assert ring.ledger.term == 1
