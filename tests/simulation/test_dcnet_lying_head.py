"""
What a lying head can open on small rings: check values, claims, and that each rule is needed.

The long form (rings of seven, 10^7 samples) is `make exhaustive`.
"""

import numpy as np
import pytest

from loadtest.exhaustive import algebra
from loadtest.exhaustive.model import Masks, Ring, closed_masks, opened, smallest
from loadtest.exhaustive.search import exhaustive, sampled, two_attempts
from protocol.dcnet.parameters.choice import choose

SIX = Ring(6, 4, t=3, t_c=3, k_min=3, n_min=4)
SEVEN = Ring(7, 4, t=3, t_c=3, k_min=3, n_min=5)
TWO_OF_TEN = Ring(10, 6, t=5, t_c=5, k_min=4, n_min=7, corrupt=(0, 5))


def column(views: dict[int, int], n: int) -> Masks:
    return np.array([[views.get(i, 0)] for i in range(n)], np.uint16)


def test_everything_a_head_can_show_to_six() -> None:
    outcome = exhaustive(SIX)
    assert (outcome.combinations, outcome.smallest) == (10**6, 5)


def test_showing_nothing_to_some_does_not_help() -> None:
    """Members that were shown no roster reveal nothing; the head may still have their self masks recovered."""
    outcome = exhaustive(SIX, may_see_nothing=True)
    assert (outcome.combinations, outcome.smallest) == (11**6, 5)


@pytest.mark.parametrize("ring", [SIX, SEVEN], ids=["six", "seven"])
def test_helping_before_enough_confirmations_opens_three(ring: Ring) -> None:
    early = Ring(ring.n, ring.k, ring.t, ring.t_c, ring.k_min, ring.n_min, help_needs_confirmations=False)
    outcome = exhaustive(early) if ring.n == 6 else sampled(early, 5 * 10**5, np.random.default_rng(7))
    assert outcome.smallest == 3


def test_thresholds_of_half_the_neighbours_open_one_reading() -> None:
    assert exhaustive(Ring(6, 4, t=2, t_c=2, k_min=2, n_min=4)).smallest == 1


def test_corrupt_neighbours_count_twice() -> None:
    """T over (k + corrupt)/2: (6 + 2)/2 = 4 opens a single member, 5 holds."""
    rng = np.random.default_rng(3)
    assert sampled(Ring(10, 6, t=4, t_c=4, k_min=4, n_min=7, corrupt=(0, 5)), 10**6, rng).smallest == 1
    assert sampled(TWO_OF_TEN, 10**6, rng).smallest == 7


@pytest.mark.parametrize(
    ("ring", "bound"),
    [
        pytest.param(Ring(16, 8, t=6, t_c=6, k_min=6, n_min=11, corrupt=(0, 8)), 9, id="apart"),
        pytest.param(Ring(12, 6, t=5, t_c=5, k_min=5, n_min=8, corrupt=(0, 1)), 6, id="adjacent"),
        pytest.param(Ring(16, 15, t=9, t_c=9, k_min=9, n_min=11, corrupt=(0, 5)), 9, id="complete"),
    ],
)
def test_larger_rings_with_corrupt_members(ring: Ring, bound: int) -> None:
    outcome = sampled(ring, 2 * 10**5, np.random.default_rng(11))
    assert outcome.opening > 1000
    assert outcome.smallest >= bound


def test_two_runs_of_corrupt_members_cut_a_ring_despite_the_threshold() -> None:
    """
    No member has over two corrupt neighbours and t_c = 5 is over (6 + 2)/2, yet an arc of five opens alone.

    Next to the corrupt pair (0, 1) the head calls 2 silent, next to (8, 9) it calls 10 silent: members 3 to 7 then
    have three honest and two corrupt confirmations for a roster of 14. With t_c over k/2 + (corrupt in k/2 positions)
    = 5 the same views open nothing.
    """
    roster = 0xFFFF & ~(1 << 2 | 1 << 10)
    views = column(dict.fromkeys(range(3, 8), roster), 16)
    cut = Ring(16, 6, t=5, t_c=5, k_min=5, n_min=14, corrupt=(0, 1, 8, 9))
    arc = sum(1 << i for i in range(3, 8))
    assert opened(cut, views)[:, 0].tolist() == [arc if 3 <= i < 8 else 0 for i in range(16)]
    firm = Ring(16, 6, t=6, t_c=6, k_min=5, n_min=14, corrupt=(0, 1, 8, 9))
    assert not opened(firm, views).any()
    assert sampled(firm, 2 * 10**5, np.random.default_rng(2)).smallest == 12


def test_chosen_parameters_hold() -> None:
    chosen = choose(16, 0.1, 0.1)
    for corrupt in ((0, 1), (0, 8)):
        ring = Ring(16, chosen.k, chosen.t, chosen.t_c, chosen.k_min, chosen.n_min, corrupt)
        assert len(corrupt) == chosen.corrupt
        outcome = sampled(ring, 10**5, np.random.default_rng(5))
        assert outcome.opening > 0
        assert outcome.smallest >= chosen.n_min - chosen.corrupt


@pytest.mark.parametrize(
    ("ring", "repeats"),
    [
        pytest.param(SIX, False, id="six"),
        pytest.param(Ring(5, 4, t=3, t_c=3, k_min=2, n_min=3), False, id="five-complete"),
        pytest.param(Ring(5, 4, t=2, t_c=2, k_min=2, n_min=3), True, id="five-at-half"),
        pytest.param(Ring(5, 4, t=3, t_c=3, k_min=2, n_min=3, corrupt=(0,)), False, id="five-corrupt"),
        pytest.param(Ring(5, 4, t=2, t_c=3, k_min=2, n_min=3, corrupt=(0,)), True, id="five-corrupt-at-half"),
        pytest.param(Ring(6, 5, t=4, t_c=4, k_min=3, n_min=4, corrupt=(0,)), False, id="six-corrupt"),
        pytest.param(Ring(6, 5, t=3, t_c=3, k_min=3, n_min=4, corrupt=(0,)), True, id="six-corrupt-at-half"),
    ],
)
def test_no_reading_opens_in_two_attempts(ring: Ring, *, repeats: bool) -> None:
    """All pairs of attempts; thresholds at or below (k + corrupt)/2 do repeat a reading."""
    assert bool(two_attempts(ring).repeated) == repeats


def test_rule_one_is_what_keeps_attempts_apart() -> None:
    """Without it (everybody acts in both) all six open, then five of them: the difference is one reading."""
    everybody = column(dict.fromkeys(range(6), 0b111111), 6)
    all_but_one = column(dict.fromkeys(range(5), 0b011111), 6)
    assert smallest(opened(SIX, everybody)) == 6
    assert smallest(opened(SIX, all_but_one)) == 5
    assert not opened(SIX, all_but_one, absent=0b000011).any()


def combinations_of_interest(ring: Ring, count: int) -> list[tuple[tuple[int, ...], int, set[int]]]:
    """Views with their closed masks and opened sets: some random ones, more that open something."""
    rng = np.random.default_rng(ring.n)
    views = np.stack(
        [
            rng.choice(np.append(ring.admissible(i), np.uint16(0)), 4000)
            if i in ring.honest
            else np.zeros(4000, np.uint16)
            for i in range(ring.n)
        ]
    )
    rosters = rng.choice(ring.admissible(ring.honest[0]), 4000)
    for i in ring.honest:
        accepts = np.isin(rosters, ring.admissible(i)) & (rng.random(4000) < 0.9)
        views[i, 1000:] = np.where(accepts, rosters, views[i])[1000:]
    closed, sets = closed_masks(ring, views), opened(ring, views)
    interesting = np.flatnonzero(sets.any(axis=0))[:count].tolist() + list(range(count // 4))
    return [(tuple(views[:, at].tolist()), int(closed[at]), set(sets[:, at].tolist()) - {0}) for at in interesting]


@pytest.mark.parametrize("ring", [SIX, SEVEN, TWO_OF_TEN], ids=["six", "seven", "two-of-ten"])
def test_components_are_what_linear_algebra_finds(ring: Ring) -> None:
    found = 0
    for views, closed, sets in combinations_of_interest(ring, 120):
        space = algebra.determined(ring, views, closed, net=False)
        indicators = tuple(tuple(mask >> i & 1 for i in ring.honest) for mask in sets)
        assert len(space) == len(sets)
        assert algebra.within(space, indicators)
        found += len(sets)
    assert found >= 100


@pytest.mark.parametrize("ring", [SIX, SEVEN, TWO_OF_TEN], ids=["six", "seven", "two-of-ten"])
def test_one_net_sum_tells_no_more_than_the_single_masks(ring: Ring) -> None:
    for views, closed, _ in combinations_of_interest(ring, 120):
        single = algebra.determined(ring, views, closed, net=False)
        net = algebra.determined(ring, views, closed, net=True)
        assert algebra.within(single, net)


def test_an_honest_head_opens_the_same_from_net_sums() -> None:
    """Roster without 0 and 3, seen by all others: the four open from net sums as from single masks."""
    ring = Ring(6, 5, t=3, t_c=3, k_min=3, n_min=4)
    views = tuple(0 if i in (0, 3) else 0b110110 for i in range(6))
    closed = int(closed_masks(ring, np.array([[view] for view in views], np.uint16))[0])
    assert closed == 0b001001
    single = algebra.determined(ring, views, closed, net=False)
    assert single == algebra.determined(ring, views, closed, net=True) == ((0, 1, 1, 0, 1, 1),)


def test_net_sums_hide_what_single_masks_show() -> None:
    """
    Everybody is shown a roster without 0; member 5 is shown one without 0 and 1, so it reveals two masks.

    One by one they open the sum of 1 to 5, although 1 and 5 never agreed; as one net sum they open nothing.
    """
    ring = Ring(6, 5, t=3, t_c=3, k_min=3, n_min=4)
    views = (0b101111, 0b111110, 0b111110, 0b111110, 0b111110, 0b111100)
    closed = int(closed_masks(ring, np.array([[view] for view in views], np.uint16))[0])
    assert algebra.determined(ring, views, closed, net=False) == ((0, 1, 1, 1, 1, 1),)
    assert algebra.determined(ring, views, closed, net=True) == ()


def can_be_cut(ring: Ring) -> bool:
    """Two disjoint windows of k/2 positions, each with t_c - k/2 corrupt members or more."""
    n, half = ring.n, ring.k // 2
    full = [
        start
        for start in range(n)
        if sum((start + step) % n in ring.corrupt for step in range(half)) >= ring.t_c - half
    ]
    return any(half <= (second - first) % n <= n - half for first in full for second in full)


@pytest.mark.parametrize(
    ("k", "corrupt"),
    [
        (6, (2, 4, 12, 13)),
        (6, (0, 2, 7, 10)),
        (6, (2, 12, 13, 15)),
        (8, (5, 8, 11, 14)),
        (8, (0, 6, 11, 13)),
        (8, (2, 5, 11, 14)),
        (4, (4, 6, 10, 12)),
    ],
)
def test_a_part_opens_alone_exactly_if_two_windows_are_corrupt(k: int, corrupt: tuple[int, ...]) -> None:
    """The claim behind `split_bits`, at the least threshold over (k + corrupt neighbours)/2."""
    bare = Ring(16, k, t=1, t_c=1, k_min=1, n_min=1, corrupt=corrupt)
    worst = max(len(set(bare.neighbours(i)) & set(corrupt)) for i in bare.honest)
    t = (k + worst) // 2 + 1
    ring = Ring(16, k, t, t, k_min=t, n_min=11, corrupt=corrupt)
    outcome = sampled(ring, 2 * 10**5, np.random.default_rng(1))
    assert outcome.opening > 1000
    assert (outcome.smallest < ring.n_min - len(corrupt)) == can_be_cut(ring)
