"""D3: all that a lying head can show to a small ring of which one gateway runs in several copies of its store."""

import pytest

from loadtest.exhaustive.copies import CopiesOutcome, every_view
from loadtest.exhaustive.model import Ring
from loadtest.exhaustive.search import exhaustive

FIVE = Ring(5, 4, t=3, t_c=3, k_min=3, n_min=4)
FOUR = Ring(4, 3, t=2, t_c=2, k_min=2, n_min=3)


def test_two_copies_open_nothing_below_four_members() -> None:
    assert every_view(FIVE, 2) == CopiesOutcome(527_076, 4)


@pytest.mark.parametrize(
    ("ring", "copies", "outcome"),
    [
        (FOUR, 2, CopiesOutcome(18_225, 3)),
        (FOUR, 3, CopiesOutcome(274_625, 3)),
        (Ring(4, 3, t=1, t_c=1, k_min=1, n_min=3), 2, CopiesOutcome(18_225, 1)),
        (Ring(4, 3, t=1, t_c=1, k_min=1, n_min=2), 2, CopiesOutcome(216_000, 1)),
    ],
)
def test_another_program_finds_the_same(ring: Ring, copies: int, outcome: CopiesOutcome) -> None:
    """Check values of a search by elimination over all unknowns, written apart; with thresholds too low it breaks."""
    assert every_view(ring, copies) == outcome


@pytest.mark.parametrize("ring", [FIVE, FOUR, Ring(5, 4, t=2, t_c=2, k_min=2, n_min=3)])
def test_without_copies_the_search_agrees_with_the_model(ring: Ring) -> None:
    known = exhaustive(ring, may_see_nothing=True)
    assert every_view(ring, 1) == CopiesOutcome(known.combinations, known.smallest)
