"""The month of deliveries as a program: a killed node, exact to the last watt hour, and what its judge finds."""

from __future__ import annotations

import csv
from typing import Any

import pytest

from loadtest.month import mistakes, names, registers_of, run

COUNT = 3


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    directory = tmp_path_factory.mktemp("month")
    assert run(directory, COUNT, kills=1) == 0
    with (directory / "values.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_month_is_exact_though_the_node_was_killed(exported: list[dict[str, str]]) -> None:
    assert mistakes(exported, COUNT) == []
    assert {each["sender"] for each in exported} == {f"{name.lower()}.sm" for name in names(COUNT)}


def changed(rows: list[dict[str, str]], index: int, **what: Any) -> list[dict[str, str]]:
    return [*rows[:index], rows[index] | what, *rows[index + 1 :]]


def test_the_judge_finds_a_wrong_a_missing_and_a_second_value(exported: list[dict[str, str]]) -> None:
    last = len(exported) - 1
    value = str(int(exported[last]["value"]) + 1)
    assert len(mistakes(changed(exported, last, value=value), COUNT)) == 1
    assert len(mistakes(exported[:-1], COUNT)) == 1
    listed = next(index for index, each in enumerate(exported) if each["kind"] == "value")
    assert "twice" in mistakes([*exported, exported[listed]], COUNT)[0]
    assert len(mistakes(exported, COUNT + 1)) == 4


def test_the_truth_differs_from_gateway_to_gateway() -> None:
    first, second = (registers_of(name) for name in names(2))
    assert (first != second).any()
