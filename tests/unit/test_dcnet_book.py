"""The round book: opened or void, once; who may report what, and when a head is replaced."""

from dataclasses import replace

import numpy as np
import pytest

from loadtest.ring import LocalRing, RingSize, book_secrets, random_vectors
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.attestation import attestation_text
from protocol.dcnet.book import Accusation, Announce, BookInstruction, Ended, Observed, Record, RoundBook
from protocol.dcnet.commitments import Pedersen, encode_lane
from protocol.dcnet.rings import result_text
from protocol.dcnet.search import lost_rounds_granted
from protocol.errors import RemoteProtocolError

SUITE = CheapSuite()
SIZE = RingSize(n=7, k=6, t=4, t_c=4, k_min=4, n_min=4, rounds=4)
RING = LocalRing(SUITE, SIZE)
VIEW = RING.view
SECRETS = book_secrets(SUITE, bytes(32))
OPENED, VOID = wire.Outcome.OPENED, wire.Outcome.VOID
EVERYBODY = b"\x7f"


@pytest.fixture
def book() -> RoundBook:
    return RoundBook(SUITE, VIEW, SECRETS, 0.0)


def total(round_: int = 0, term: int = 0, count: int = 7, roster: bytes = EVERYBODY) -> wire.RingTotal:
    words = np.array([count, 100, 200, 300], dtype=np.uint64)
    return wire.RingTotal(1, 0, round_, 0, term, EVERYBODY, roster, words.tobytes(), b"", b"", b"")


def void(round_: int = 0, term: int = 0, suspects: bytes = b"\0") -> wire.RingVoid:
    return wire.RingVoid(1, 0, round_, term, "nobody came", suspects)


def silent(round_: int = 0, term: int = 0) -> wire.HeadSilent:
    return wire.HeadSilent(1, 0, term, round_)


def result(outcome: wire.Outcome, round_: int = 0) -> wire.Result:
    roster = VIEW.everybody if outcome is OPENED else 0
    text = result_text(VIEW, round_, outcome, roster)
    signature = SECRETS.sign(text)
    return wire.Result(1, 0, round_, int(outcome), VIEW.to_wire(roster), signature)


def appoint(term: int, position: int | None = None) -> Announce:
    return Announce(position, wire.Appoint(1, 0, term))


def ends(out: list[BookInstruction]) -> list[Ended]:
    return [each.ended for each in out if isinstance(each, Record)]


def refuses(book: RoundBook, position: int, message: wire.Message, reason: str, now_s: float = 1.0) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        book.receive(position, message, now_s)
    assert caught.value.reason == reason
    assert book.ended == {}


# --- opened or void, once -------------------------------------------------------------------------------------------


def test_a_total_is_recorded_before_anybody_hears_of_it(book: RoundBook) -> None:
    record, announce = book.receive(0, total(), 1.5)
    ended = Ended(
        1, 0, 0, OPENED, 0, 0, VIEW.everybody, VIEW.everybody, (7, 100, 200, 300), False, "", 0.0, 1.5
    )  # fmt: skip
    assert record == Record(ended)
    assert announce == Announce(0, result(OPENED))
    assert book.ended == {0: ended}


def test_a_second_total_is_answered_with_the_first(book: RoundBook) -> None:
    book.receive(0, total(), 1.0)
    other = replace(total(), total=np.array([7, 1, 2, 3], dtype=np.uint64).tobytes())
    for position in (0, 3):
        assert book.receive(position, other, 1.1) == [Announce(position, result(OPENED)), Observed("total_after_end")]
    assert book.ended[0].total == (7, 100, 200, 300)


def test_a_total_after_void_is_refused(book: RoundBook) -> None:
    assert ends(book.receive(0, void(), 1.0))[0].outcome is VOID
    assert book.receive(0, total(), 1.1) == [Announce(0, result(VOID)), Observed("total_after_end")]
    assert book.ended[0].outcome is VOID


def test_void_after_a_total_changes_nothing(book: RoundBook) -> None:
    book.receive(0, total(), 1.0)
    assert book.receive(0, void(), 1.1) == [Announce(0, result(OPENED))]
    assert book.ended[0].outcome is OPENED


def test_what_ended_before_a_restart_has_ended(book: RoundBook) -> None:
    book.receive(0, total(), 1.0)
    again = RoundBook(SUITE, VIEW, SECRETS, 2.0, book.ended, term=3)
    assert again.start() == [appoint(3)]
    assert again.receive(0, total(), 2.0) == [Announce(0, result(OPENED)), Observed("total_after_end")]
    assert again.next_timer_s() == 18.2


def test_a_void_round_says_who_why_and_when(book: RoundBook) -> None:
    (record, announce) = book.receive(0, void(), 1.0)
    assert record == Record(Ended(1, 0, 0, VOID, 0, 0, 0, 0, (), False, "nobody came", 0.0, 1.0))
    assert announce == Announce(0, result(VOID))


def test_rounds_without_a_total_in_time_are_void(book: RoundBook) -> None:
    assert book.next_timer_s() == 8.2
    assert book.on_timer(8.1) == []
    out = book.on_timer(8.2)
    assert [(e.round, e.outcome, e.reason) for e in ends(out)] == [(0, VOID, "no total in time")]
    assert Announce(None, result(VOID)) in out
    assert book.next_timer_s() == 18.2


def test_a_book_that_overslept_closes_every_round_that_is_over(book: RoundBook) -> None:
    book.receive(0, total(1), 11.0)
    out = book.on_timer(1000.0)
    assert [e.round for e in ends(out)] == [0, 2, 3]
    assert book.ended[1].outcome is OPENED
    assert book.over
    assert book.next_timer_s() == float("inf")
    assert book.on_timer(2000.0) == []


def test_questions_are_answered_once_there_is_an_answer(book: RoundBook) -> None:
    assert book.receive(3, wire.Ask(1, 0, 0), 1.0) == []
    book.receive(0, total(), 1.5)
    assert book.receive(3, wire.Ask(1, 0, 0), 2.0) == [Announce(3, result(OPENED))]
    assert SUITE.verify(VIEW.result_key, result_text(VIEW, 0, OPENED, VIEW.everybody), result(OPENED).signature)


# --- who may report what --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [total(), void(), total(term=1), void(term=1)], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("position", [1, 6])
def test_only_the_appointed_head_reports(book: RoundBook, position: int, message: wire.Message) -> None:
    refuses(book, position, message, "not_the_head")


@pytest.mark.parametrize("make", [total, void])
@pytest.mark.parametrize("round_", [1, 4, 1000])
def test_no_report_on_a_round_that_has_not_begun(book: RoundBook, make: object, round_: int) -> None:
    refuses(book, 0, make(round_), "no_such_round", now_s=9.9)  # type: ignore[operator]


def test_no_report_on_a_round_beyond_the_epoch(book: RoundBook) -> None:
    refuses(book, 0, total(4), "no_such_round", now_s=45.0)


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
def test_totals_that_cannot_be(book: RoundBook, message: wire.RingTotal) -> None:
    refuses(book, 0, message, "bad_total")


def test_positions_that_do_not_exist(book: RoundBook) -> None:
    refuses(book, 0, replace(total(), roster=b"\xff"), "bad_bitmap")
    refuses(book, 0, replace(total(), expected=b"\x7f\x00"), "bad_bitmap")


def test_the_smallest_roster(book: RoundBook) -> None:
    assert ends(book.receive(0, total(count=4, roster=b"\x0f"), 1.0))[0].roster == 0b1111


@pytest.mark.parametrize(
    "message", [wire.Hello(1, 0), wire.Ready(1, 0, 0, 0, 0), result(OPENED)], ids=lambda m: type(m).__name__
)
def test_what_is_not_for_the_book(book: RoundBook, message: wire.Message) -> None:
    refuses(book, 0, message, "message_not_allowed")


def test_a_late_heads_total_opens_the_round_and_its_giving_up_does_not_close_it(book: RoundBook) -> None:
    """The deposed head may still hold a sum; that it gives up says nothing about its successor."""
    for position in (1, 2, 3, 4):
        book.receive(position, silent(), 3.0)
    assert book.term == 1
    assert book.receive(0, void(term=0), 3.5) == []
    assert ends(book.receive(0, total(term=0), 4.0))[0].term == 0
    assert book.receive(1, total(term=1), 4.1) == [Announce(1, result(OPENED)), Observed("total_after_end")]


OUT_OF_TURN = [Observed("report_out_of_turn")]


def test_a_replaced_head_reports_no_round_that_began_after_it(book: RoundBook) -> None:
    """It was replaced for a reason: what it says of later rounds would come before its successor's total."""
    for position in (1, 2, 3, 4):
        book.receive(position, silent(), 3.0)
    assert book.receive(0, total(1), 11.0) == OUT_OF_TURN
    assert book.receive(0, accused(round_=1), 11.0) == OUT_OF_TURN
    assert book.receive(0, void(1), 11.0) == []
    assert (book.ended, book.accusations) == ({}, {})
    assert ends(book.receive(1, total(1, term=1), 11.0))[0].term == 1
    assert ends(book.receive(0, total(0), 11.0))[0].term == 0, "what began under it may still come"


def test_who_has_a_term_that_was_skipped_was_never_head() -> None:
    """After a restart terms go on a turn of the ring later: every member has one in the past, none was appointed."""
    again = RoundBook(SUITE, VIEW, SECRETS, 0.0, term=7)
    for position in range(1, 7):
        assert again.receive(position, total(term=position), 1.0) == OUT_OF_TURN
        assert again.receive(position, accused(term=position), 1.0) == OUT_OF_TURN
        assert again.receive(position, void(term=position), 1.0) == []
    assert (again.ended, again.accusations) == ({}, {})
    assert ends(again.receive(0, total(term=0), 1.0))[0].outcome is OPENED, "the head's report of before the restart"


def test_a_head_that_has_its_turn_again_reports_every_round(book: RoundBook) -> None:
    for _ in range(7):
        book._next_term(3.0)
    assert ends(book.receive(0, total(1, term=7), 11.0))[0].term == 7
    assert book.receive(1, total(2, term=1), 21.0) == OUT_OF_TURN


# --- heads are replaced ---------------------------------------------------------------------------------------------


def test_enough_complaints_replace_the_head(book: RoundBook) -> None:
    assert book.start() == [appoint(0)]
    assert book.receive(1, silent(), 3.0) == []
    assert book.receive(1, silent(), 3.0) == []  # once is enough of one
    assert book.receive(0, silent(), 3.0) == []  # the head does not count against itself
    assert book.receive(2, silent(), 3.0) == []
    assert book.receive(3, silent(), 3.0) == []
    assert book.receive(4, silent(), 3.0) == [Observed("head_replaced"), appoint(1)]


def test_half_of_the_ring_must_complain() -> None:
    large = RoundBook(SUITE, LocalRing(SUITE, replace(SIZE, n=17, k=16, n_min=9)).view, SECRETS, 0.0)
    for position in range(1, 9):
        assert large.receive(position, silent(), 3.0) == []
    assert large.receive(9, silent(), 3.0) == [Observed("head_replaced"), appoint(1)]


def test_a_new_head_is_given_time(book: RoundBook) -> None:
    for position in (1, 2, 3):
        assert book.receive(position, silent(), 2.4) == []
    assert book.receive(4, silent(), 2.5) == [Observed("head_replaced"), appoint(1)]
    for position in (2, 3, 4):
        assert book.receive(position, silent(term=1), 4.9) == []
    assert book.receive(5, silent(term=1), 5.0) == [Observed("head_replaced"), appoint(2)]


def test_a_complaint_of_a_former_head_is_answered_with_the_present_one(book: RoundBook) -> None:
    for position in (1, 2, 3, 4):
        book.receive(position, silent(), 3.0)
    assert book.receive(5, silent(term=0), 3.1) == [appoint(1, 5)]
    with pytest.raises(RemoteProtocolError, match="no_such_term"):
        book.receive(5, silent(term=2), 3.1)


def test_a_complaint_about_a_round_that_has_ended_is_answered_with_its_result(book: RoundBook) -> None:
    book.receive(0, void(), 1.0)
    for position in (1, 2, 3):
        assert book.receive(position, silent(), 3.0) == [Announce(position, result(VOID))]
    assert book.term == 0


def test_complaints_are_forgotten_once_the_head_has_opened_a_round(book: RoundBook) -> None:
    for position in (1, 2, 3):
        book.receive(position, silent(), 3.0)
    book.receive(0, total(), 3.5)
    for position in (2, 3, 4):
        assert book.receive(position, silent(1), 13.0) == []
    assert book.receive(5, silent(1), 13.0) == [Observed("head_replaced"), appoint(1)]


def test_a_head_that_was_shut_out_is_replaced_and_no_other_like_it_follows(book: RoundBook) -> None:
    assert book.expel(0b0000100, 1.0) == []
    assert book.expel(0b0000010, 1.0) == []
    assert book.expel(0b0000001, 1.0) == [Observed("head_replaced"), appoint(3)]
    assert book.expel(0b0000001, 1.0) == []
    refuses(book, 0, total(term=4), "not_the_head")
    assert ends(book.receive(0, total(), 2.0))[0].outcome is OPENED, "what it opened before stands"
    assert book.expel(0b1111111, 1.0) == []
    assert book.term == 3, "nobody is left to be head"


def test_a_head_that_lets_two_rounds_pass_in_silence_is_replaced(book: RoundBook) -> None:
    assert Observed("head_replaced") not in book.on_timer(8.2)
    out = book.on_timer(18.2)
    assert out[-2:] == [Observed("head_replaced"), appoint(1)]


def test_a_head_that_gives_up_two_rounds_in_a_row_is_replaced(book: RoundBook) -> None:
    """It talks, so nobody complains and no time is missed; but nothing opens."""
    assert book.receive(0, void(0), 1.0) == [Record(book.ended[0]), Announce(0, result(VOID))]
    assert book.receive(0, void(0), 1.1) == [Announce(0, result(VOID))]  # said twice is not given up twice
    out = book.receive(0, void(1), 11.0)
    # Everybody hears how it ended: the one that would pass it on is no longer listened to.
    assert out == [Record(book.ended[1]), Announce(None, result(VOID, 1)), Observed("head_replaced"), appoint(1)]
    assert ends(book.receive(1, void(2, term=1), 21.0))[0].outcome is VOID
    assert book.term == 1  # its successor is not blamed for it


def test_a_head_that_gives_up_and_then_falls_silent_is_replaced(book: RoundBook) -> None:
    book.receive(0, void(0), 1.0)
    assert book.on_timer(18.2)[-2:] == [Observed("head_replaced"), appoint(1)]


def test_a_head_that_opens_a_round_in_between_stays(book: RoundBook) -> None:
    book.receive(0, void(0), 1.0)
    book.receive(0, total(1), 11.0)
    assert Observed("head_replaced") not in book.receive(0, void(2), 21.0)
    assert book.term == 0


def test_a_head_that_was_just_appointed_is_not_blamed_for_the_round_before(book: RoundBook) -> None:
    for position in (1, 2, 3, 4):
        book.receive(position, silent(), 3.0)
    assert Observed("head_replaced") not in book.on_timer(8.2)
    assert book.term == 1
    assert Observed("head_replaced") in book.on_timer(18.2)


def test_an_opened_round_between_two_silent_ones_keeps_the_head(book: RoundBook) -> None:
    book.on_timer(8.2)
    book.receive(0, total(1), 11.0)
    assert Observed("head_replaced") not in book.on_timer(28.2)


def searching(book: RoundBook, rounds: range, term: int = 0, suspects: bytes = EVERYBODY) -> list[BookInstruction]:
    """The head of a term gives all of these rounds up; what came of the last one."""
    out: list[BookInstruction] = []
    for round_ in rounds:
        out = book.receive(book.view.head_of(term), void(round_, term, suspects), 10.0 * round_ + 1)
    return out


def patient_book() -> RoundBook:
    return RoundBook(SUITE, replace(VIEW, rounds=96), SECRETS, 0.0)


def test_a_head_that_searches_for_a_liar_may_give_up_as_many_rounds_as_that_takes_and_two_more() -> None:
    book = patient_book()
    granted = lost_rounds_granted(book.view)
    assert granted == 7
    searching(book, range(granted + 1))
    assert book.term == 0
    out = searching(book, range(granted + 1, granted + 2))
    assert (book.term, Observed("head_replaced") in out) == (1, True)


def test_what_a_search_may_cost_is_for_a_head_and_an_epoch() -> None:
    """Opened rounds in between bring nothing back, a turn of the ring neither; another head has its own."""
    book = patient_book()
    granted = lost_rounds_granted(book.view)
    for round_ in range(granted):
        searching(book, range(2 * round_, 2 * round_ + 1))
        book.receive(0, total(2 * round_ + 1), 20.0 * round_ + 11)
    searching(book, range(2 * granted, 2 * granted + 2))
    assert book.term == 1
    searching(book, range(2 * granted + 2, 3 * granted + 2), 1)
    assert book.term == 1
    for _ in range(6):
        book._next_term(300.0)
    assert book.view.head_of(book.term) == 0
    searching(book, range(3 * granted + 10, 3 * granted + 12), 7)
    assert book.term == 8


def test_a_search_in_a_ring_that_can_spare_nobody_is_no_excuse() -> None:
    book = RoundBook(SUITE, replace(VIEW, n_min=7, rounds=96), SECRETS, 0.0)
    searching(book, range(2))
    assert book.term == 1


def test_suspects_that_do_not_exist_are_refused_before_anything_changes(book: RoundBook) -> None:
    refuses(book, 0, void(suspects=b"\xff"), "bad_bitmap")
    refuses(book, 0, void(suspects=b"\0\0"), "bad_bitmap")
    searching(book, range(2), suspects=b"\0")
    assert book.term == 1


def test_complaints_are_forgotten_where_the_head_heard_the_ring_out_and_searches(book: RoundBook) -> None:
    for position in (1, 2, 3):
        book.receive(position, silent(), 3.0)
    searching(book, range(1))
    for position in (4, 5, 6):
        book.receive(position, silent(1), 13.0)
    assert book.term == 0
    book.receive(1, silent(1), 13.0)
    assert book.term == 1


def accused(position: int = 4, term: int = 0, lie: wire.Lie = wire.Lie.SPOILT_SUM, round_: int = 0) -> wire.Accused:
    return wire.Accused(1, 0, term, round_, position, int(lie))


def test_an_accusation_is_passed_on_once_and_changes_nothing(book: RoundBook) -> None:
    said = Accusation(0, 0, 4, wire.Lie.SPOILT_SUM)
    assert book.receive(0, accused(), 1.0) == [said]
    assert book.receive(0, accused(lie=wire.Lie.WRONG_SEED), 1.0) == []
    assert book.receive(0, accused(5, lie=wire.Lie.WRONG_SEED), 1.0) == [Accusation(0, 0, 5, wire.Lie.WRONG_SEED)]
    assert book.accusations == {(0, 4): said, (0, 5): Accusation(0, 0, 5, wire.Lie.WRONG_SEED)}
    assert (book.term, book.ended) == (0, {})
    book._next_term(2.0)
    assert book.receive(1, accused(term=1), 3.0) == [Accusation(0, 1, 4, wire.Lie.SPOILT_SUM)]
    assert book.receive(0, accused(6), 3.0) == [Accusation(0, 0, 6, wire.Lie.SPOILT_SUM)]  # it was head then


def test_accusations_that_cannot_be(book: RoundBook) -> None:
    refuses(book, 1, accused(), "not_the_head")
    refuses(book, 1, accused(term=1), "not_the_head")
    refuses(book, 0, accused(round_=1), "no_such_round")
    refuses(book, 0, accused(7), "no_such_member")
    assert book.accusations == {}


def test_deputies_follow_round_the_ring() -> None:
    book = RoundBook(SUITE, VIEW, SECRETS, 0.0, term=7)
    assert ends(book.receive(0, total(term=7), 1.0))
    with pytest.raises(RemoteProtocolError, match="not_the_head"):
        book.receive(1, total(1, term=7), 11.0)


# --- commitments ------------------------------------------------------------------------------------------------------

COMMITTED = replace(SIZE, committed=(1, 3))


def committed() -> tuple[RoundBook, wire.RingTotal]:
    """A book and an honest total of two committed slots, the second of them negative."""
    ring = LocalRing(SUITE, COMMITTED)
    pedersen = Pedersen(SUITE.group)
    rows = [pedersen.commit(10, 3 + i) + pedersen.commit(-20, 5 + i) for i in range(7)]
    words = [7, 70, 0, 2**64 - 140]
    lane = encode_lane(SUITE.group, (sum(3 + i for i in range(7)), sum(5 + i for i in range(7))))
    attestations = [each.attest(attestation_text(ring.view, 0, 0, i, rows[i])) for i, each in enumerate(ring.secrets)]
    message = replace(
        total(), total=np.array(words, dtype=np.uint64).tobytes(), commitments=b"".join(rows), blinding=lane,
        attestations=b"".join(attestations),
    )  # fmt: skip
    return RoundBook(SUITE, ring.view, SECRETS, 0.0), message


def test_a_total_that_the_members_committed_to_is_verified() -> None:
    book, message = committed()
    assert ends(book.receive(0, message, 1.0))[0].verified


@pytest.mark.parametrize("slot", [1, 3])
def test_a_total_that_they_did_not_commit_to_is_not(slot: int) -> None:
    book, message = committed()
    words = np.frombuffer(message.total, dtype="<u8").copy()
    words[slot] += np.uint64(1)
    assert not ends(book.receive(0, replace(message, total=words.tobytes()), 1.0))[0].verified


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
    book, message = committed()
    refuses(book, 0, replace(message, **change), reason)  # type: ignore[arg-type]


def test_the_book_of_a_real_ring_is_what_the_members_hear() -> None:
    ring = LocalRing(SUITE, SIZE)
    for round_ in range(4):
        ended = ring.round(round_, random_vectors(np.random.default_rng(round_), 7, 4))
        assert ring.ended[round_] is ended
    assert ring.book.over
    assert all(member.next_timer_s() == float("inf") for member in ring.members)
