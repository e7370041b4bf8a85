"""Metrics by area: few series whatever heads say, and there from the start."""

import pytest
from prometheus_client import CollectorRegistry

from coordinator.area_metrics import AreaMetrics

REASONS = ("no_total_in_time", "too_few_members", "masks_did_not_cancel", "false_evidence", "other")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> AreaMetrics:
    made = AreaMetrics(registry)
    made.begin(("Nord", "Süd"))
    return made


def void(registry: CollectorRegistry, area: str) -> dict[str, float | None]:
    name = "stromkreis_void_rounds_total"
    return {each: registry.get_sample_value(name, {"area": area, "reason": each}) for each in REASONS}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no total in time", "no_total_in_time"), ("fewer than 6 members are present", "too_few_members"),
        ("fewer than 7 members are present", "too_few_members"), ("the masks did not cancel", "masks_did_not_cancel"),
        ("the head's evidence proves nothing", "false_evidence"), ("what a head makes up 1", "other"), ("", "other"),
    ],
)  # fmt: skip
def test_a_void_round_counts_under_a_reason_of_a_closed_set(
    metrics: AreaMetrics, registry: CollectorRegistry, text: str, reason: str
) -> None:
    metrics.void("Nord", text)
    assert void(registry, "Nord") == {each: float(each == reason) for each in REASONS}
    assert void(registry, "Süd") == dict.fromkeys(REASONS, 0.0)


def test_an_area_tells_its_epoch_and_when_it_opened_last(metrics: AreaMetrics, registry: CollectorRegistry) -> None:
    names = ("stromkreis_last_opened_timestamp_seconds", "stromkreis_epoch", "stromkreis_epoch_end_timestamp_seconds")
    assert [registry.get_sample_value(name, {"area": "Nord"}) for name in names] == [0, -1, 0]
    metrics.opened("Nord", 900.0)
    metrics.running("Nord", 7, 28_800.0)
    assert [registry.get_sample_value(name, {"area": "Nord"}) for name in names] == [900, 7, 28_800]
    assert [registry.get_sample_value(name, {"area": "Süd"}) for name in names] == [0, -1, 0]
