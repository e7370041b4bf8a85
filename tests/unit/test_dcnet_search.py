"""
The search for who spoils a ring's sums: whom a round can do without, what a liar costs, and that no innocent is named.

A liar is a function of the round and of E, since that is what it sees; the bound is played out for every place of the
liar in rings of every size that the product makes, the innocence for liars that do as hypothesis likes.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.ring import RingSize, lay_out
from loadtest.simulator.suite import CheapSuite
from protocol.dcnet.machines.search import Search, leave_out, lost_rounds_granted, lost_rounds_max, room, spread
from protocol.dcnet.setup.epoch import ring_parameters
from protocol.dcnet.setup.rings import RingView, bitmap, positions_of

Lies = Callable[[int, int], bool]  # (round, E) -> whether the round is spoilt
SIZES = (5, 6, 7, 8, 10, 12, 16, 20, 24, 32, 50, 100, 200)
RATES = ((10_000, 100_000), (50_000, 50_000), (50_000, 150_000))


@lru_cache
def ring(size: int, corrupt_ppm: int = 50_000, dropout_ppm: int = 150_000) -> RingView:
    """A ring with the numbers that the product gives one of this size."""
    numbers = ring_parameters(size, size, corrupt_ppm, dropout_ppm)
    made = RingSize(numbers.n, numbers.k, numbers.t, numbers.t_c, numbers.k_min, numbers.n_min)
    return lay_out(CheapSuite(), made, bytes(32))[0]


class Hunt:
    """A search in a ring with liars, round after round; those in `away` are not there."""

    def __init__(self, view: RingView, liars: Collection[int], lies: Lies = lambda _round, _expected: True) -> None:
        self.view = view
        self.liars = bitmap(list(liars))
        self.lies = lies
        self.search = Search(view, 0)
        self.away = 0
        self.round = self.lost = 0
        self.expected = 0

    def play(self) -> bool:
        """One round; whether it opened."""
        self.expected = self.search.expected(self.view.everybody & ~self.away)
        self.round += 1
        assert not self.expected & self.search.named
        if self.expected & self.liars and self.lies(self.round, self.expected):
            self.lost += 1
            self.search.spoilt(self.expected)
            return False
        self.search.opened(self.expected)
        return True

    def until_named(self, liars: int | None = None, rounds_max: int = 300) -> None:
        while self.search.named != (self.liars if liars is None else liars):
            self.play()
            assert self.round < rounds_max


def is_enough(view: RingView, members: int) -> bool:
    """Whether the members' rule 4 lets them take part."""
    near = [(view.neighbourhoods[i] & members).bit_count() for i in positions_of(members)]
    return members.bit_count() >= view.n_min and min(near) >= view.k_min


# --- whom a round can do without -----------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_what_is_left_is_enough_for_a_round(data: st.DataObject) -> None:
    view = ring(data.draw(st.sampled_from(SIZES[:11])), *data.draw(st.sampled_from(RATES)))
    away = bitmap(data.draw(st.lists(st.integers(0, view.size - 1), max_size=view.size - view.n_min)))
    present = view.everybody & ~away
    wishes = [
        (data.draw(st.permutations(positions_of(present))), data.draw(st.integers(0, view.size))) for _ in range(2)
    ]
    out = leave_out(view, present, *wishes)
    assert out & ~present == 0
    assert out.bit_count() <= wishes[0][1] + wishes[1][1]
    if is_enough(view, present):
        assert is_enough(view, present & ~out)


def test_a_ring_that_cannot_do_without_anybody_leaves_nobody_out() -> None:
    view = ring(16)
    present = bitmap(range(view.n_min))
    assert leave_out(view, present, (positions_of(present), 16)) == 0
    sparse = ring(24)
    present = sparse.everybody & ~bitmap([1, 2, 3, 4])  # 0 has lost all the neighbours that it could spare
    assert not leave_out(sparse, present, ([5, 6, 20], 24))
    assert leave_out(sparse, present, ([14, 5], 24)) == 1 << 14


def test_a_third_of_the_room_is_kept_for_the_silent() -> None:
    view = ring(16)  # n_min is 11
    assert leave_out(view, view.everybody, (range(16), 16)) == 0b1111
    assert leave_out(view, view.everybody, ([9, 3], 1), ([7, 8], 5)) == 1 << 9 | 1 << 7 | 1 << 8


def test_wishes_are_spread_on_the_circle() -> None:
    assert spread(0b111111, 3) == [0, 2, 4, 1, 3, 5]
    assert spread(0b1010011, 2) == [0, 4, 1, 6]
    assert spread(0b101, 0) == [0, 2]


# --- what a liar costs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "room", "lost"), [(16, 4, 6), (16, 2, 9), (8, 2, 5), (5, 1, 5), (200, 44, 10), (16, 0, 0), (1, 1, 1)]
)
def test_the_formula(size: int, room: int, lost: int) -> None:
    assert lost_rounds_max(size, room) == lost


@pytest.mark.parametrize("rates", RATES, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_one_liar_costs_no_more_rounds_than_are_stated(size: int, rates: tuple[int, int]) -> None:
    """Wherever it sits; and where everybody is everybody's neighbour the formula holds with the whole room."""
    view = ring(size, *rates)
    bound = lost_rounds_max(size, room(view)) if view.k == size - 1 else lost_rounds_granted(view)
    costs = []
    for liar in range(0, size, 1 + size // 30):
        hunt = Hunt(view, [liar])
        hunt.until_named(rounds_max=2 * bound + view.size.bit_length())
        costs.append(hunt.lost)
        for _ in range(3):
            assert hunt.play()
        assert hunt.expected == view.everybody & ~(1 << liar)
    assert max(costs) <= bound
    if view.k == size - 1:
        assert max(costs) == bound  # it is not just any number


def test_the_documentation_states_these_numbers() -> None:
    text = (Path(__file__).parents[2] / "docs" / "explanation" / "protocol.md").read_text(encoding="utf-8")
    table = re.search(
        r"^\| n \(corrupt 5 %, dropout 15 %\) (.*)\n\|.*\n\| most rounds (.*)\n\| rounds that (.*)\n", text, re.M
    )
    assert table is not None
    sizes, worst, granted = ([int(number) for number in re.findall(r"\| (\d+)(?= \|)", row)] for row in table.groups())
    for size, lost, most in zip(sizes, worst, granted, strict=True):
        view = ring(size)
        costs = []
        for liar in range(size):
            hunt = Hunt(view, [liar])
            hunt.until_named()
            costs.append(hunt.lost)
        assert (max(costs), lost_rounds_granted(view)) == (lost, most)


def test_the_formula_is_below_its_estimate() -> None:
    for size in range(2, 120):
        for left_out in range(1, size):
            estimate = 1 + -(-size // left_out) + (left_out - 1).bit_length()
            assert lost_rounds_max(size, left_out) <= estimate


@pytest.mark.parametrize("away", [1, 2])
def test_members_that_are_away_leave_room_for_a_search(away: int) -> None:
    view = ring(16)
    for gone in combinations(range(16), away):
        hunt = Hunt(view, [next(i for i in (3, 4, 5) if i not in gone)])
        hunt.away = bitmap(gone)
        hunt.until_named()
        assert hunt.lost <= lost_rounds_granted(view)


def test_where_too_many_are_away_the_search_waits_for_them() -> None:
    view = ring(16)
    hunt = Hunt(view, [0])
    hunt.away = view.everybody & ~bitmap(range(view.n_min))
    for _ in range(20):
        assert not hunt.play()
    assert hunt.search.suspects == bitmap(range(view.n_min))
    hunt.away = 0
    hunt.until_named()


# --- no innocent is named ------------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_one_liar_names_nobody_else_whatever_it_does(data: st.DataObject) -> None:
    """It lies when it likes, and members come and go; its lies are bounded all the same."""
    view = ring(data.draw(st.sampled_from(SIZES[:9])))
    liar = data.draw(st.integers(0, view.size - 1))
    moods = data.draw(st.lists(st.booleans(), min_size=60, max_size=60))
    hunt = Hunt(view, [liar], lambda round_, _expected: moods[round_ - 1])
    for _ in moods:
        hunt.away = bitmap(data.draw(st.lists(st.integers(0, view.size - 1), max_size=2)))
        hunt.play()
        assert hunt.search.named in {0, 1 << liar}


@pytest.mark.parametrize("size", [8, 16, 24])
def test_one_that_lies_where_another_is_there_cannot_have_it_named(size: int) -> None:
    """It behaves as if the victim were the liar; what it cannot change is who is in every spoilt roster."""
    view = ring(size)
    for victim in range(1, size):
        hunt = Hunt(view, [0], lambda _round, expected, victim=victim: bool(expected >> victim & 1))  # type: ignore[misc]
        for _ in range(96):
            hunt.play()
            assert hunt.search.named in {0, 1}
        assert hunt.lost <= lost_rounds_granted(view) + 5


def test_a_search_in_which_nothing_happens_is_laid_down_and_taken_up_for_twice_as_long() -> None:
    view = ring(16)
    spoilt = {1, 20, 60}
    hunt = Hunt(view, [5], lambda round_, _expected: round_ in spoilt)
    full = []
    for _ in range(100):
        hunt.play()
        full.append(hunt.expected == view.everybody)
    first, second, third = (full[at:].index(True) for at in (1, 20, 60))
    assert (first, second, third) == (6, 12, 24)
    assert hunt.search.suspects >> 5 & 1


# --- several liars -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 12, 16, 24, 50])
def test_two_liars_are_both_found(size: int) -> None:
    view = ring(size)
    for other in range(1, size, 1 + size // 12):
        hunt = Hunt(view, [0, other])
        hunt.until_named()
        for _ in range(size.bit_length()):  # those who were left out with them come back
            assert hunt.play()
        assert (hunt.expected, hunt.search.suspects) == (view.everybody & ~(1 | 1 << other), 0)


def test_three_liars_are_found_where_three_can_be_left_out() -> None:
    hunt = Hunt(ring(16), [2, 7, 9])
    hunt.until_named(rounds_max=1500)


def test_where_nothing_helps_the_sets_are_tried_again() -> None:
    """And a ring that can leave nobody out, or one at a time, never finds two."""
    for size, sets in ((6, 6), (8, 28), (12, 66 + 220)):
        view = ring(size)
        assert room(view) == {6: 1, 8: 2, 12: 3}[size]
        search = Search(view, 0)
        left = []
        for _ in range(2 * sets + 10):
            expected = search.expected(view.everybody)
            left.append(view.everybody & ~expected)
            search.spoilt(expected)
        assert left[-sets:] == left[-2 * sets : -sets]
        assert search.named == 0
    nobody = replace(ring(6), n_min=6)
    search = Search(nobody, 3)
    for culprits in (0b011, 0b100, 0b100, 0b100):
        search.spoilt(culprits)
        assert search.expected(0b111111) == 0b111111


def test_a_second_liar_that_comes_later_is_found_by_a_search_of_its_own() -> None:
    view = ring(16)
    hunt = Hunt(view, [3])
    hunt.until_named()
    hunt.liars |= 1 << 11
    hunt.until_named()
    assert hunt.lost <= 2 * lost_rounds_max(16, room(view))


def test_the_next_head_tries_other_members_together_first() -> None:
    view = ring(16)

    def sets(turn: int) -> list[int]:
        search = Search(view, turn)
        search.spoilt(0b0011)
        search.spoilt(0b1100)  # nothing in common: there are several
        out = []
        for _ in range(5):
            out.append(view.everybody & ~search.expected(view.everybody))
            search.spoilt(view.everybody & ~out[-1])
        return out

    assert all(left.bit_count() == 4 for left in sets(0))
    assert not set(sets(0)) & set(sets(1))


def test_several_liars_by_whim_start_the_search_anew() -> None:
    """A roster that was cleared is spoilt: nothing that was cleared counts any more."""
    view = ring(16)
    search = Search(view, 0)
    search.spoilt(0b0011)
    search.spoilt(0b1100)
    cleared = search.expected(view.everybody)
    assert search.opened(cleared) == 0
    assert search.suspects == view.everybody & ~cleared
    assert search.spoilt(cleared) == 0
    assert search.suspects == cleared


def test_several_liars_who_fall_silent_leave_nobody_out_for_ever() -> None:
    view = ring(16)
    search = Search(view, 0)
    search.spoilt(0b0011)
    search.spoilt(0b1100)
    for _ in range(10):
        search.opened(search.expected(view.everybody))
    assert (search.suspects, search.expected(view.everybody)) == (0, view.everybody)


def test_the_doubtful_may_be_away() -> None:
    view = ring(16)
    search = Search(view, 0)
    search.spoilt(0b0011)
    search.spoilt(0b1100)
    cleared = search.expected(view.everybody)
    search.opened(cleared)
    back = search.expected(view.everybody)
    search.spoilt(back)
    doubtful = search.suspects
    assert doubtful == back & ~cleared
    expected = search.expected(view.everybody & ~doubtful)
    assert expected & ~cleared
    search.opened(expected)
    assert search.suspects == doubtful


def test_a_member_caught_in_the_act_explains_what_it_spoilt() -> None:
    view = ring(16)
    search = Search(view, 0)
    search.spoilt(view.everybody)
    search.name(4)
    assert (search.named, search.suspects) == (1 << 4, 0)
    assert search.spoilt(view.everybody) == 0
    assert search.suspects == 0
    assert search.expected(view.everybody) == view.everybody & ~(1 << 4)
    assert search.opened(view.everybody & ~(1 << 4)) == 0
