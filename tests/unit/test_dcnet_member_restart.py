"""What a member that is made again knows of its past: when it served, who it is to its ring, which round is closed."""

import pytest

from loadtest.lying_head import LyingHead, refuses
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.machines.effects import Progress
from protocol.dcnet.machines.member import Member
from protocol.dcnet.machines.member_attempt import Resume

OPENED, VOID = wire.Outcome.OPENED, wire.Outcome.VOID


def again(past: Resume, *ends: wire.Outcome, last: tuple[int, int] = (-1, -1)) -> LyingHead:
    """A member made from `past`, in a process that masked in attempt `last` and knows how the first rounds ended."""
    liar = LyingHead(CheapSuite())
    liar.masks.incarnation.last = last
    for round_, outcome in enumerate(ends):
        liar.masks.incarnation.history.add(liar.result(round_, outcome))
    liar.durable = past
    liar.make()
    return liar


@pytest.mark.parametrize(
    ("round_", "ends", "has_served"),
    [
        (2, (), False),
        (2, (VOID, VOID), False),
        (2, (VOID, VOID, VOID), True),
        (2, (OPENED, VOID, VOID), True),
        (2, (VOID, VOID, OPENED), False),
        (0, (OPENED,), False),
        (0, (OPENED, VOID), False),
        (0, (VOID, OPENED), False),
        (0, (VOID,), True),
    ],
)
def test_another_process_served_once_its_round_is_known_not_to_open(
    round_: int, ends: tuple[wire.Outcome, ...], *, has_served: bool
) -> None:
    assert again(Resume(round_, 0, Progress.SERVED), *ends).member.has_served is has_served


@pytest.mark.parametrize(
    ("past", "last", "has_served"),
    [
        (Resume(2, 0, Progress.SERVED), (2, 0), True),
        (Resume(2, 0, Progress.SERVED, settled=False), (-1, -1), True),
        (Resume(2, 0, Progress.SERVED), (1, 2), False),
        (Resume(2, 0, Progress.SERVED), (3, 2), False),
        (Resume(2, 0, Progress.SHARED), (2, 0), False),
        (Resume(), (-1, -1), False),
    ],
)
def test_a_process_says_at_once_what_it_served_itself(past: Resume, last: tuple[int, int], *, has_served: bool) -> None:
    """Another one waits for the round's end, unless that was still open when it was started."""
    assert again(past, last=last).member.has_served is has_served


@pytest.mark.parametrize(
    ("past", "last"),
    [
        (Resume(0, 0, Progress.SHARED, settled=True), (0, 0)),
        (Resume(0, 0, Progress.SERVED, settled=False), (0, 0)),
        (Resume(0, 0, Progress.SHARED, settled=False), (-1, -1)),
    ],
)
def test_a_round_is_closed_that_ended_or_was_served_or_another_shared(past: Resume, last: tuple[int, int]) -> None:
    liar = again(past, last=last)
    refuses(liar, liar.open(attempt=1), "already_served")


def test_a_shared_round_goes_on_in_the_process_that_shared_in_it() -> None:
    liar = again(Resume(0, 0, Progress.SHARED, settled=False), last=(0, 0))
    liar.offer()
    assert [type(each) for each in liar.say(liar.open(attempt=1))] == [wire.MaskedInput]


def test_a_member_that_is_told_no_first_round_shares_in_the_first() -> None:
    liar = LyingHead(CheapSuite())
    liar.member = Member(liar.suite, liar.view, liar.secrets[liar.position], liar.masks)
    assert not liar.member.is_waiting
    liar.carry_out(liar.member.appointed(0, 0.0))
    assert liar.offer() == []
    assert [type(each) for each in liar.say(liar.open())] == [wire.MaskedInput]


def test_what_the_driver_says_comes_from_no_member() -> None:
    rows = LyingHead(CheapSuite()).member.bug_report()["events"]
    assert [row["event"] for row in rows] == ["APPOINTED"]
    assert "from" not in rows[0]
