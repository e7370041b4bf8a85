"""The comparison of two trees: its interval is a median's by ranks, its pairs are taken in turn."""

from pathlib import Path

import pytest

from loadtest.bench.compare import checked_out, median_interval, take_pairs


@pytest.mark.parametrize(
    ("count", "rank", "confidence"), [(9, 1, 0.961), (6, 0, 0.969), (5, 0, 0.9375), (1, 0, 0.0), (20, 5, 0.959)]
)
def test_the_interval_has_the_ranks_of_the_sign_test(count: int, rank: int, confidence: float) -> None:
    # Ranks from a table of the binomial distribution, e.g. Conover, Practical Nonparametric Statistics, table A3.
    found = median_interval([float(number) for number in reversed(range(count))])
    assert (found.low, found.high) == (rank, count - 1 - rank)
    assert found.confidence == pytest.approx(confidence, abs=0.001)


def test_old_and_new_take_turns_at_being_first() -> None:
    order = []

    def sample(tree: Path) -> dict[str, float]:
        order.append(tree.name)
        return {"time": len(order)}

    lines: list[str] = []
    pairs = take_pairs(Path("old"), Path("new"), sample, 3, lines.append)
    assert order == ["old", "new", "new", "old", "old", "new"]
    assert pairs == [({"time": 1}, {"time": 2}), ({"time": 4}, {"time": 3}), ({"time": 5}, {"time": 6})]
    assert len(lines) == 3


def test_a_commit_is_checked_out_beside_the_tree_and_removed_again() -> None:
    with checked_out("HEAD") as tree:
        assert (tree / "pyproject.toml").is_file()
    assert not tree.exists()
