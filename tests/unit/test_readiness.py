"""When a node is ready: each check says what is wrong, falls back, and does not say what another one does."""

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from node.aggregation.seats import seat_of
from node.metrics import NodeMetrics
from node.readiness import SEPARATE, Participation, Readiness, Seat

WELL = Participation(
    Seat.RUNNING, is_coordinator_linked=True, is_head_linked=True, is_return_due=False, has_taken_part=True
)


class Gateway:
    def __init__(self, participation: Participation = WELL) -> None:
        self.participation = participation

    def change(self, **changes: Any) -> None:
        self.participation = self.participation._replace(**changes)


class Node:
    """Three gateways that take part, and a clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.gateways = [Gateway() for _ in range(3)]
        self.readiness = Readiness(3, lambda: self.now_s)
        self.readiness.waits_for = None
        self.readiness.use(self.gateways)

    def problems(self) -> dict[str, str]:
        self.now_s += 2.0
        return {name: problem for name, problem in self.readiness.checks().items() if problem is not None}


@pytest.fixture
def node() -> Node:
    return Node()


def test_a_node_that_starts_says_what_it_waits_for_in_every_check() -> None:
    readiness = Readiness(3)
    readiness.waits_for = "the store is held"
    assert set(readiness.checks().values()) == {"the store is held"}
    assert set(readiness.checks()) == set(Node().readiness.checks())


def test_gateways_that_take_part_are_ready(node: Node) -> None:
    assert node.problems() == {}


def test_a_gateway_that_is_not_enrolled_is_missing(node: Node) -> None:
    node.readiness.use(node.gateways[:2])
    assert node.problems() == {
        "enrolled": "2 of 3 gateways are enrolled", "placed": "2 of 3 gateways sit in a ring, running or next",
    }  # fmt: skip


def test_a_lost_link_fails_while_it_is_lost(node: Node) -> None:
    node.gateways[0].change(is_coordinator_linked=False)
    node.gateways[1].change(is_coordinator_linked=False, is_head_linked=False)
    assert node.problems() == {
        "linked": "2 of 3 gateways have no link to the coordinator; 1 of 3 have none to the head of their ring"
    }
    node.gateways[:2] = []
    node.readiness.use([Gateway(), Gateway(), *node.gateways])
    assert node.problems() == {}


@pytest.mark.parametrize(("seat", "next_"), [(Seat.NONE, 0), (Seat.NEXT, 1)])
def test_who_waits_for_the_next_epoch_fails_only_the_seat(node: Node, seat: Seat, next_: int) -> None:
    node.gateways[2].change(seat=seat, is_head_linked=False, has_taken_part=False)
    problems = node.problems()
    assert problems.pop("seated") == f"1 of 3 gateways wait for the next epoch, {next_} have a seat in it"
    assert set(problems) <= SEPARATE
    assert ("placed" in problems) is (seat is Seat.NONE)


def test_a_round_since_the_start_is_wanted_of_who_may_be_in_one(node: Node) -> None:
    node.gateways[0].change(has_taken_part=False)
    node.gateways[1].change(has_taken_part=False, is_return_due=True)
    assert node.problems() == {"round": "1 of 3 seated gateways were in no opened total since the start"}


def test_gateways_are_asked_once_a_second_at_most(node: Node) -> None:
    assert node.problems() == {}
    node.gateways[0].change(is_coordinator_linked=False)
    assert node.readiness.checks()["linked"] is None
    node.now_s += 1.0
    assert node.readiness.checks()["linked"] is not None


def test_the_metrics_say_the_same(node: Node) -> None:
    registry = CollectorRegistry()
    NodeMetrics(registry).readiness(lambda: node.readiness.counts)
    node.gateways[0].change(is_coordinator_linked=False, is_head_linked=False, has_taken_part=False)
    node.gateways[1].change(seat=Seat.NEXT)
    node.now_s = 2.0
    found = {
        name: registry.get_sample_value(f"stromkreis_node_{name}_gateways")
        for name in ("seated", "seated_next", "without_coordinator", "without_head", "taken_part", "without_round")
    }
    assert found == {
        "seated": 2, "seated_next": 1, "without_coordinator": 1, "without_head": 1, "taken_part": 2, "without_round": 1,
    }  # fmt: skip


def ring(start_s: int, *, is_head_linked: bool) -> Any:
    call = SimpleNamespace(
        start_ms=start_s * 1000, period_ms=900_000, interval_start_s=start_s, interval_s=900, rounds=4
    )  # fmt: skip
    return call, SimpleNamespace(is_head_linked=is_head_linked)


@pytest.mark.parametrize(
    ("now_s", "expected"),
    [
        (8_999, (Seat.NEXT, False)), (9_000, (Seat.RUNNING, True)), (12_599, (Seat.RUNNING, True)),
        (12_600, (Seat.RUNNING, False)), (16_200, (Seat.NONE, False)),
    ],
)  # fmt: skip
def test_a_seat_runs_from_its_epochs_first_to_its_last_interval(now_s: int, expected: tuple[Seat, bool]) -> None:
    rings = [ring(9_000, is_head_linked=True), ring(12_600, is_head_linked=False)]
    assert seat_of(rings, now_s) == expected
    assert seat_of([], now_s) == (Seat.NONE, False)
