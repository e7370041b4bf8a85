"""What all tests share: the switch that renews golden files, and which need data beside the repository."""

from pathlib import Path

import pytest

BESIDE = Path(__file__).parents[1] / "../shared"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without the data beside the repository its tests are deselected: each codec has vectors of its own here."""
    if BESIDE.is_dir():
        return
    absent = [item for item in items if item.get_closest_marker("beside_repository")]
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if not item.get_closest_marker("beside_repository")]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--renew-golden", action="store_true", help="write the golden files anew instead of comparing")
