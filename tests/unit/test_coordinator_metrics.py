"""Metrics: names after the conventions, series from the start, nothing by gateway."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from coordinator.events import MISBEHAVIOURS
from coordinator.metrics import CoordinatorMetrics

LABELS = {"area", "outcome", "le", "reason", "misbehaviour"}


def scrape(metrics: CoordinatorMetrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def test_series_are_there_before_the_first_event() -> None:
    found = scrape(CoordinatorMetrics(CollectorRegistry()))
    for outcome in ("opened", "void"):
        assert found["stromkreis_rounds_total", frozenset({("outcome", outcome)})] == 0
    for misbehaviour in MISBEHAVIOURS:
        assert found["stromkreis_misbehaviour_reports_total", frozenset({("misbehaviour", misbehaviour)})] == 0


def test_rounds_are_counted() -> None:
    metrics = CoordinatorMetrics(CollectorRegistry())
    metrics.round_opened(duration_s=0.03, attempt=2, present=9, size=10)
    metrics.round_void(attempt=1)
    metrics.peer_error("bad_total")
    metrics.watch(enrolled=lambda: 40, connected=lambda: 39, queue_length=lambda: 17)
    metrics.ring_members.set(10)
    found = {name: value for (name, labels), value in scrape(metrics).items() if not labels}
    assert found["stromkreis_round_retries_total"] == 3
    assert found["stromkreis_round_duration_seconds_count"] == 1
    assert found["stromkreis_queue_length"] == 17
    assert (found["stromkreis_gateways_enrolled"], found["stromkreis_gateways_connected"]) == (40, 39)
    assert found["stromkreis_ring_members"] == 10
    assert scrape(metrics)["stromkreis_peer_errors_total", frozenset({("reason", "bad_total")})] == 1
    assert {label for _, labels in scrape(metrics) for label, _ in labels} <= LABELS


def test_two_coordinators_do_not_share() -> None:
    one, other = CoordinatorMetrics(CollectorRegistry()), CoordinatorMetrics(CollectorRegistry())
    one.round_void()
    key = ("stromkreis_rounds_total", frozenset({("outcome", "void")}))
    assert (scrape(one)[key], scrape(other)[key]) == (1, 0)
