"""D1: rosters that take a member out and in again: no sequence gives more returns than there are tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.dcnet.discipline.returns import NEVER, REFILL_S, TOKENS_MAX, Attendance, EpochAttendance

QUARTER_S = 900
START_S = 1_772_366_400


def epoch(attendance: Attendance, first_s: int = START_S, length_s: int = QUARTER_S) -> EpochAttendance:
    return EpochAttendance(attendance, first_s, length_s)


FRESH = Attendance.first(START_S - 86_400, is_key_new=True)


def play(mine: EpochAttendance, round_: int, *, serves: bool = True) -> tuple[EpochAttendance, str]:
    """A head takes the member in: in, a return, or waiting."""
    if mine.is_in(round_):
        verdict, mine = "in", mine.entered(round_, is_return=False)
    elif mine.has_token(round_):
        verdict, mine = "return", mine.entered(round_, is_return=True)
    else:
        return mine, "waiting"
    return (mine.served(round_) if serves else mine), verdict


def test_alternating_ends_after_four_returns_and_goes_on_every_four_hours() -> None:
    """The first edition came back in every second round of a week."""
    mine, verdicts = epoch(FRESH), []
    for round_ in range(0, 7 * 96, 2):
        mine, verdict = play(mine, round_)
        verdicts.append(verdict)
    assert verdicts[:4] == ["return"] * 4
    assert verdicts[4] == "waiting"
    assert verdicts.count("return") <= TOKENS_MAX + 7 * 6
    assert "in" not in verdicts


@given(
    st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=200),
    st.sampled_from([900, 1800, 3600]),
    st.booleans(),
)
def test_no_sequence_of_rosters_gives_more_returns_than_tokens(
    steps: list[tuple[int, bool]], length_s: int, is_key_new: bool
) -> None:
    """In any window: returns <= 4 (0 at first with an older key) + one for every four hours of it."""
    mine = epoch(Attendance.first(START_S, is_key_new=is_key_new), length_s=length_s)
    round_, returns = 0, []
    for gap, serves in steps:
        round_ += gap
        before = mine.attendance.served_s
        mine, verdict = play(mine, round_, serves=serves)
        at_s = START_S + round_ * length_s
        assert verdict == "return" or before >= at_s - length_s or verdict == "waiting"
        if verdict == "return":
            returns.append(at_s)
    for i, since_s in enumerate(returns):
        for count, at_s in enumerate(returns[i:], 1):
            assert count <= TOKENS_MAX + (at_s - since_s) // REFILL_S + 1
    if not is_key_new and returns:
        assert returns[0] >= START_S + REFILL_S


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.booleans()), max_size=120))
def test_epochs_that_overlap_and_change_length_share_one_bucket(steps: list[tuple[int, bool, bool]]) -> None:
    attendance, at_s, returns = FRESH, START_S, []
    for gap, is_hourly, serves in steps:
        length_s = 3600 if is_hourly else QUARTER_S
        at_s += gap * QUARTER_S
        mine, verdict = play(epoch(attendance, at_s - at_s % length_s, length_s), 0, serves=serves)
        attendance = mine.attendance
        if verdict == "return":
            returns.append(at_s - at_s % length_s)
    for i, since_s in enumerate(returns):
        for count, until_s in enumerate(returns[i:], 1):
            assert count <= TOKENS_MAX + (until_s - since_s) // REFILL_S + 1


def test_a_round_is_paid_once_whatever_its_attempts() -> None:
    mine = epoch(Attendance(1, START_S))
    mine = mine.entered(3, is_return=True)
    assert mine.is_in(3)
    assert not mine.has_token(3)
    assert not mine.is_in(4)  # it shared and did not serve
    assert mine.served(3).is_in(4)


@pytest.mark.parametrize("result_says_included", [True, False])
def test_only_serving_counts_whatever_a_result_claims(result_says_included: bool) -> None:
    del result_says_included  # nothing of it reaches the bucket
    mine = epoch(FRESH).entered(0, is_return=True)
    assert not mine.is_in(1)
    assert mine.last_round == 0
    assert not mine.served_in(0)


def test_a_new_epoch_and_a_gap_of_the_calendar_cost_a_token() -> None:
    last = epoch(FRESH).entered(95, is_return=True).served(95).attendance
    following = epoch(last, START_S + 96 * QUARTER_S)
    assert following.is_in(0)  # the very next interval
    assert following.last_round == -1
    assert not epoch(last, START_S + 97 * QUARTER_S).is_in(0)
    assert epoch(last, START_S + 97 * QUARTER_S).last_round == -2


def test_a_key_that_is_older_than_the_store_waits_four_hours() -> None:
    mine = epoch(Attendance.first(START_S, is_key_new=False))
    assert [mine.has_token(round_) for round_ in (0, 15, 16)] == [False, False, True]
    assert mine.attendance.served_s == NEVER


def test_time_that_goes_backward_gives_nothing_back() -> None:
    spent = FRESH
    for _ in range(4):
        spent = spent.entered(START_S, is_return=True)
    assert spent.tokens_at(START_S - 10**6) == 0
    assert spent.entered(START_S - 10**6, is_return=False).entered_s == START_S
    assert spent.tokens_at(START_S + 5 * REFILL_S) == TOKENS_MAX


def test_what_is_left_of_four_hours_is_not_lost_at_a_return() -> None:
    one = Attendance(0, START_S).entered(START_S + REFILL_S + 600, is_return=True)
    assert (one.tokens, one.refilled_s) == (0, START_S + REFILL_S)
    assert one.tokens_at(START_S + 2 * REFILL_S) == 1
