"""The round ledger: opened or void, once; who may report what, and when a head is replaced."""

from dataclasses import replace

import numpy as np
import pytest

from loadtest.ring import LocalRing, RingSize, ledger_secrets, random_vectors, ready
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.crypto.commitments import Pedersen, encode_blinding_vector
from protocol.dcnet.machines.effects import (
    Ended,
    LedgerEffect,
    Note,
    Persist,
    RoundEnded,
    ToMember,
    ToRing,
)
from protocol.dcnet.machines.ledger import RoundLedger
from protocol.dcnet.setup.rings import RingView, result_text
from protocol.dcnet.setup.secrets import EpochSecrets
from protocol.dcnet.setup.statements import commitment_half, input_text
from protocol.errors import RemoteProtocolError

SUITE = CheapSuite()
SIZE = RingSize(n=7, k=6, t=4, t_c=4, k_min=4, n_min=4, rounds=4)
RING = LocalRing(SUITE, SIZE)
VIEW = RING.view
SECRETS = ledger_secrets(SUITE, bytes(32))
OPENED, VOID = wire.Outcome.OPENED, wire.Outcome.VOID
EVERYBODY = b"\x7f"


@pytest.fixture
def ledger() -> RoundLedger:
    return RoundLedger(SUITE, VIEW, SECRETS, 0.0)


def total(round_: int = 0, term: int = 0, count: int = 7, roster: bytes = EVERYBODY) -> wire.RingTotal:
    words = np.array([count, 100, 200, 300], dtype=np.uint64)
    return wire.RingTotal(1, 0, round_, 0, term, EVERYBODY, roster, words.tobytes(), b"", b"", b"")


def void(round_: int = 0, term: int = 0, silent: bytes = b"\0") -> wire.RingVoid:
    return wire.RingVoid(1, 0, round_, term, "nobody came", silent)


def silent(round_: int = 0, term: int = 0) -> wire.HeadSilent:
    return wire.HeadSilent(1, 0, term, round_)


def result(outcome: wire.Outcome, round_: int = 0) -> wire.Result:
    roster = VIEW.everybody if outcome is OPENED else 0
    text = result_text(VIEW, round_, outcome, roster)
    signature = SECRETS.sign(text)
    return wire.Result(1, 0, round_, int(outcome), VIEW.to_wire(roster), signature)


def appoint(term: int, position: int | None = None) -> LedgerEffect:
    message = wire.Appoint(1, 0, term)
    return ToRing(message) if position is None else ToMember(position, message)


def ends(out: list[LedgerEffect]) -> list[Ended]:
    return [each.record.ended for each in out if isinstance(each, Persist)]


def refuses(ledger: RoundLedger, position: int, message: wire.Message, reason: str, now_s: float = 1.0) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        ledger.receive(position, message, now_s)
    assert caught.value.reason == reason
    assert ledger.ended == {}


# --- opened or void, once -------------------------------------------------------------------------------------------


def test_a_total_is_recorded_before_anybody_hears_of_it(ledger: RoundLedger) -> None:
    record, announce = ledger.receive(0, total(), 1.5)
    ended = Ended(
        1, 0, 0, OPENED, 0, 0, VIEW.everybody, VIEW.everybody, (7, 100, 200, 300), False, "", 0.0, 1.5
    )  # fmt: skip
    assert record == Persist(RoundEnded(ended))
    assert announce == ToMember(0, result(OPENED))
    assert ledger.ended == {0: ended}


def test_a_second_total_is_answered_with_the_first(ledger: RoundLedger) -> None:
    ledger.receive(0, total(), 1.0)
    other = replace(total(), total=np.array([7, 1, 2, 3], dtype=np.uint64).tobytes())
    for position in (0, 3):
        assert ledger.receive(position, other, 1.1) == [ToMember(position, result(OPENED)), Note("total_after_end")]
    assert ledger.ended[0].total == (7, 100, 200, 300)


def test_a_total_after_void_is_refused(ledger: RoundLedger) -> None:
    assert ends(ledger.receive(0, void(), 1.0))[0].outcome is VOID
    assert ledger.receive(0, total(), 1.1) == [ToMember(0, result(VOID)), Note("total_after_end")]
    assert ledger.ended[0].outcome is VOID


def test_void_after_a_total_changes_nothing(ledger: RoundLedger) -> None:
    ledger.receive(0, total(), 1.0)
    assert ledger.receive(0, void(), 1.1) == [ToMember(0, result(OPENED))]
    assert ledger.ended[0].outcome is OPENED


def test_what_ended_before_a_restart_has_ended(ledger: RoundLedger) -> None:
    ledger.receive(0, total(), 1.0)
    again = RoundLedger(SUITE, VIEW, SECRETS, 2.0, ledger.ended, term=3)
    assert again.start() == [appoint(3)]
    assert again.receive(0, total(), 2.0) == [ToMember(0, result(OPENED)), Note("total_after_end")]
    assert again.next_timer_s() == 18.2


def test_a_void_round_says_who_why_and_when(ledger: RoundLedger) -> None:
    (record, announce) = ledger.receive(0, void(), 1.0)
    assert record == Persist(RoundEnded(Ended(1, 0, 0, VOID, 0, 0, 0, 0, (), False, "nobody came", 0.0, 1.0)))
    assert announce == ToMember(0, result(VOID))


def test_rounds_without_a_total_in_time_are_void(ledger: RoundLedger) -> None:
    assert ledger.next_timer_s() == 8.2
    assert ledger.on_timer(8.1) == []
    out = ledger.on_timer(8.2)
    assert [(e.round, e.outcome, e.reason) for e in ends(out)] == [(0, VOID, "no total in time")]
    assert ToRing(result(VOID)) in out
    assert ledger.next_timer_s() == 18.2


def test_a_book_that_overslept_closes_every_round_that_is_over(ledger: RoundLedger) -> None:
    ledger.receive(0, total(1), 11.0)
    out = ledger.on_timer(1000.0)
    assert [e.round for e in ends(out)] == [0, 2, 3]
    assert ledger.ended[1].outcome is OPENED
    assert ledger.over
    assert ledger.next_timer_s() == float("inf")
    assert ledger.on_timer(2000.0) == []


def test_questions_are_answered_once_there_is_an_answer(ledger: RoundLedger) -> None:
    assert ledger.receive(3, wire.RoundStatusRequest(1, 0, 0), 1.0) == []
    ledger.receive(0, total(), 1.5)
    assert ledger.receive(3, wire.RoundStatusRequest(1, 0, 0), 2.0) == [ToMember(3, result(OPENED))]
    assert SUITE.verify(VIEW.result_key, result_text(VIEW, 0, OPENED, VIEW.everybody), result(OPENED).signature)


# --- who may report what --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [total(), void(), total(term=1), void(term=1)], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("position", [1, 6])
def test_only_the_appointed_head_reports(ledger: RoundLedger, position: int, message: wire.Message) -> None:
    refuses(ledger, position, message, "not_the_head")


@pytest.mark.parametrize("make", [total, void])
@pytest.mark.parametrize("round_", [1, 4, 1000])
def test_no_report_on_a_round_that_has_not_begun(ledger: RoundLedger, make: object, round_: int) -> None:
    refuses(ledger, 0, make(round_), "no_such_round", now_s=9.9)  # type: ignore[operator]


def test_no_report_on_a_round_beyond_the_epoch(ledger: RoundLedger) -> None:
    refuses(ledger, 0, total(4), "no_such_round", now_s=45.0)


@pytest.mark.parametrize(
    "message",
    [
        total(count=6),
        total(count=3, roster=b"\x07"),
        replace(total(), expected=b"\x3f"),
        replace(total(), total=bytes(24)),
        replace(total(), total=bytes(40)),
    ],
    ids=["count", "too few", "not within E", "short", "long"],
)
def test_totals_that_cannot_be(ledger: RoundLedger, message: wire.RingTotal) -> None:
    refuses(ledger, 0, message, "bad_total")


def test_positions_that_do_not_exist(ledger: RoundLedger) -> None:
    refuses(ledger, 0, replace(total(), roster=b"\xff"), "bad_bitmap")
    refuses(ledger, 0, replace(total(), expected=b"\x7f\x00"), "bad_bitmap")


def test_the_smallest_roster(ledger: RoundLedger) -> None:
    assert ends(ledger.receive(0, total(count=4, roster=b"\x0f"), 1.0))[0].roster == 0b1111


@pytest.mark.parametrize(
    "message", [wire.Hello(1, 0, 0), ready(VIEW, 0), result(OPENED)], ids=lambda m: type(m).__name__
)
def test_what_is_not_for_the_book(ledger: RoundLedger, message: wire.Message) -> None:
    refuses(ledger, 0, message, "message_not_allowed")


def test_a_late_heads_total_opens_the_round_though_it_gave_up(ledger: RoundLedger) -> None:
    """The deposed head may still hold a sum; that it gives up says nothing about its successor."""
    for position in (1, 2, 3, 4):
        ledger.receive(position, silent(), 3.0)
    assert ledger.term == 1
    assert ledger.receive(0, void(term=0), 3.5) == []
    assert ends(ledger.receive(0, total(term=0), 4.0))[0].term == 0
    assert ledger.receive(1, total(term=1), 4.1) == [ToMember(1, result(OPENED)), Note("total_after_end")]


OUT_OF_TURN = [Note("report_out_of_turn")]


def test_a_replaced_head_reports_no_round_that_began_after_it(ledger: RoundLedger) -> None:
    """It was replaced for a reason: what it says of later rounds would come before its successor's total."""
    for position in (1, 2, 3, 4):
        ledger.receive(position, silent(), 3.0)
    assert ledger.receive(0, total(1), 11.0) == OUT_OF_TURN
    assert ledger.receive(0, void(1), 11.0) == []
    assert ledger.ended == {}
    assert ends(ledger.receive(1, total(1, term=1), 11.0))[0].term == 1
    assert ends(ledger.receive(0, total(0), 11.0))[0].term == 0, "what began under it may still come"


def test_who_has_a_term_that_was_skipped_was_never_head() -> None:
    """After a restart terms go on a turn of the ring later: every member has one in the past, none was appointed."""
    again = RoundLedger(SUITE, VIEW, SECRETS, 0.0, term=7)
    for position in range(1, 7):
        assert again.receive(position, total(term=position), 1.0) == OUT_OF_TURN
        assert again.receive(position, void(term=position), 1.0) == []
    assert again.ended == {}
    assert ends(again.receive(0, total(term=0), 1.0))[0].outcome is OPENED, "the head's report of before the restart"


def test_a_head_that_has_its_turn_again_reports_every_round(ledger: RoundLedger) -> None:
    for _ in range(7):
        ledger._next_term(3.0)
    assert ends(ledger.receive(0, total(1, term=7), 11.0))[0].term == 7
    assert ledger.receive(1, total(2, term=1), 21.0) == OUT_OF_TURN


# --- heads are replaced ---------------------------------------------------------------------------------------------


def test_enough_complaints_replace_the_head(ledger: RoundLedger) -> None:
    assert ledger.start() == [appoint(0)]
    assert ledger.receive(1, silent(), 3.0) == []
    assert ledger.receive(1, silent(), 3.0) == []  # once is enough of one
    assert ledger.receive(0, silent(), 3.0) == []  # the head does not count against itself
    assert ledger.receive(2, silent(), 3.0) == []
    assert ledger.receive(3, silent(), 3.0) == []
    assert ledger.receive(4, silent(), 3.0) == [Note("head_replaced"), appoint(1)]


def test_half_of_the_ring_must_complain() -> None:
    large = RoundLedger(SUITE, LocalRing(SUITE, replace(SIZE, n=17, k=16, n_min=9)).view, SECRETS, 0.0)
    for position in range(1, 9):
        assert large.receive(position, silent(), 3.0) == []
    assert large.receive(9, silent(), 3.0) == [Note("head_replaced"), appoint(1)]


def test_a_new_head_is_given_time(ledger: RoundLedger) -> None:
    for position in (1, 2, 3):
        assert ledger.receive(position, silent(), 2.4) == []
    assert ledger.receive(4, silent(), 2.5) == [Note("head_replaced"), appoint(1)]
    for position in (2, 3, 4):
        assert ledger.receive(position, silent(term=1), 4.9) == []
    assert ledger.receive(5, silent(term=1), 5.0) == [Note("head_replaced"), appoint(2)]


def test_a_complaint_of_a_former_head_is_answered_with_the_present_one(ledger: RoundLedger) -> None:
    for position in (1, 2, 3, 4):
        ledger.receive(position, silent(), 3.0)
    assert ledger.receive(5, silent(term=0), 3.1) == [appoint(1, 5)]
    with pytest.raises(RemoteProtocolError, match="no_such_term"):
        ledger.receive(5, silent(term=2), 3.1)


def test_a_complaint_about_an_ended_round_is_answered_with_its_result(ledger: RoundLedger) -> None:
    ledger.receive(0, void(), 1.0)
    for position in (1, 2, 3):
        assert ledger.receive(position, silent(), 3.0) == [ToMember(position, result(VOID))]
    assert ledger.term == 0


def test_complaints_are_forgotten_once_the_head_has_opened_a_round(ledger: RoundLedger) -> None:
    for position in (1, 2, 3):
        ledger.receive(position, silent(), 3.0)
    ledger.receive(0, total(), 3.5)
    for position in (2, 3, 4):
        assert ledger.receive(position, silent(1), 13.0) == []
    assert ledger.receive(5, silent(1), 13.0) == [Note("head_replaced"), appoint(1)]


def test_a_head_that_was_shut_out_is_replaced_and_no_other_like_it_follows(ledger: RoundLedger) -> None:
    assert ledger.expel(0b0000100, 1.0) == []
    assert ledger.expel(0b0000010, 1.0) == []
    assert ledger.expel(0b0000001, 1.0) == [Note("head_replaced"), appoint(3)]
    assert ledger.expel(0b0000001, 1.0) == []
    refuses(ledger, 0, total(term=4), "not_the_head")
    assert ends(ledger.receive(0, total(), 2.0))[0].outcome is OPENED, "what it opened before stands"
    assert ledger.expel(0b1111111, 1.0) == []
    assert ledger.term == 3, "nobody is left to be head"


def test_a_head_that_lets_two_rounds_pass_in_silence_is_replaced(ledger: RoundLedger) -> None:
    assert Note("head_replaced") not in ledger.on_timer(8.2)
    out = ledger.on_timer(18.2)
    assert out[-2:] == [Note("head_replaced"), appoint(1)]


def test_a_head_that_gives_up_two_rounds_in_a_row_is_replaced(ledger: RoundLedger) -> None:
    """It talks, so nobody complains and no time is missed; but nothing opens."""
    assert ledger.receive(0, void(0), 1.0) == [Persist(RoundEnded(ledger.ended[0])), ToMember(0, result(VOID))]
    assert ledger.receive(0, void(0), 1.1) == [ToMember(0, result(VOID))]  # said twice is not given up twice
    out = ledger.receive(0, void(1), 11.0)
    # Everybody hears how it ended: the one that would pass it on is no longer listened to.
    assert out == [Persist(RoundEnded(ledger.ended[1])), ToRing(result(VOID, 1)), Note("head_replaced"), appoint(1)]
    assert ends(ledger.receive(1, void(2, term=1), 21.0))[0].outcome is VOID
    assert ledger.term == 1  # its successor is not blamed for it


def test_a_head_that_gives_up_and_then_falls_silent_is_replaced(ledger: RoundLedger) -> None:
    ledger.receive(0, void(0), 1.0)
    assert ledger.on_timer(18.2)[-2:] == [Note("head_replaced"), appoint(1)]


def test_a_head_that_opens_a_round_in_between_stays(ledger: RoundLedger) -> None:
    ledger.receive(0, void(0), 1.0)
    ledger.receive(0, total(1), 11.0)
    assert Note("head_replaced") not in ledger.receive(0, void(2), 21.0)
    assert ledger.term == 0


def test_a_head_that_was_just_appointed_is_not_blamed_for_the_round_before(ledger: RoundLedger) -> None:
    for position in (1, 2, 3, 4):
        ledger.receive(position, silent(), 3.0)
    assert Note("head_replaced") not in ledger.on_timer(8.2)
    assert ledger.term == 1
    assert Note("head_replaced") in ledger.on_timer(18.2)


def test_an_opened_round_between_two_silent_ones_keeps_the_head(ledger: RoundLedger) -> None:
    ledger.on_timer(8.2)
    ledger.receive(0, total(1), 11.0)
    assert Note("head_replaced") not in ledger.on_timer(28.2)


def test_deputies_follow_round_the_ring() -> None:
    ledger = RoundLedger(SUITE, VIEW, SECRETS, 0.0, term=7)
    assert ends(ledger.receive(0, total(term=7), 1.0))
    with pytest.raises(RemoteProtocolError, match="not_the_head"):
        ledger.receive(1, total(1, term=7), 11.0)


# --- commitments ------------------------------------------------------------------------------------------------------

COMMITTED = replace(SIZE, committed=(1, 3))


def attestation(view: RingView, secrets: EpochSecrets, commitments: bytes) -> bytes:
    """What a member signs of its commitments in attempt 0 of round 0, the rest of its share being zeros."""
    half = commitment_half(view, secrets.position, 0, 0, commitments, bytes(32))
    return bytes(64) + secrets.sign(input_text(bytes(32), half))


def committed() -> tuple[RoundLedger, wire.RingTotal]:
    """A ledger and an honest total of two committed slots, the second of them negative."""
    ring = LocalRing(SUITE, COMMITTED)
    pedersen = Pedersen(SUITE.group)
    rows = [pedersen.commit(10, 3 + i) + pedersen.commit(-20, 5 + i) for i in range(7)]
    words = [7, 70, 0, 2**64 - 140]
    blinding_vector = encode_blinding_vector(SUITE.group, (sum(3 + i for i in range(7)), sum(5 + i for i in range(7))))
    attestations = [attestation(ring.view, each, rows[i]) for i, each in enumerate(ring.secrets)]
    message = replace(
        total(), total=np.array(words, dtype=np.uint64).tobytes(), commitments=b"".join(rows), blinding=blinding_vector,
        attestations=b"".join(attestations),
    )  # fmt: skip
    return RoundLedger(SUITE, ring.view, SECRETS, 0.0), message


def test_a_total_that_the_members_committed_to_is_verified() -> None:
    ledger, message = committed()
    assert ends(ledger.receive(0, message, 1.0))[0].verified


@pytest.mark.parametrize("slot", [1, 3])
def test_a_total_that_they_did_not_commit_to_is_not(slot: int) -> None:
    ledger, message = committed()
    words = np.frombuffer(message.total, dtype="<u8").copy()
    words[slot] += np.uint64(1)
    assert not ends(ledger.receive(0, replace(message, total=words.tobytes()), 1.0))[0].verified


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"commitments": b""}, "bad_total"),
        ({"commitments": bytes(32 * 14)}, "not_a_group_element"),
        ({"blinding": b""}, "lane_size"),
        ({"blinding": b"\xff" * 64}, "scalar_not_reduced"),
    ],
)
def test_commitments_that_cannot_be(change: dict[str, bytes], reason: str) -> None:
    ledger, message = committed()
    refuses(ledger, 0, replace(message, **change), reason)  # type: ignore[arg-type]


def test_the_book_of_a_real_ring_is_what_the_members_hear() -> None:
    ring = LocalRing(SUITE, SIZE)
    for round_ in range(4):
        ended = ring.round(round_, random_vectors(np.random.default_rng(round_), 7, 4))
        assert ring.ended[round_] is ended
    assert ring.ledger.over
    assert all(member.next_timer_s() == float("inf") for member in ring.members)
