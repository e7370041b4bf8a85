"""The result of a load test: verdict, rounds, costs and faults, as `report.json`, `report.md` and figures of a page."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtest.demo.costs import Phase
from loadtest.demo.processes import cpu_count
from loadtest.scenarios.books import Books, Judgement, RingRound
from loadtest.scenarios.costs import Costs
from loadtest.scenarios.faults import Fault
from loadtest.scenarios.plan import INTERVAL_S, Calendar, Plan
from loadtest.scenarios.recovery import FaultReport, Interval, fault_report, intervals, is_whole
from loadtest.scenarios.samples import PhaseSample, Sample, Samples
from netem.profiles import load_profiles

_LAST_ROUNDS = 3  # one of them must be whole where a scenario expects it
_LINES = ("lte", "cdma450", "gprs")


@dataclass(frozen=True, slots=True)
class Result:
    """How one ring's round ended; `at_s` is its opening since the first round."""

    at_s: float
    latency_ms: float
    is_opened: bool
    area: str
    ring: int
    round: int
    attempt: int
    members: int
    present: int
    reason: str


@dataclass(frozen=True, slots=True)
class LineUse:
    """What a gateway sends and receives in a quarter hour, of what a kind of line carries meanwhile, in percent."""

    profile: str
    title: str
    sent_percent: float
    received_percent: float


@dataclass(frozen=True, slots=True)
class Report:
    """
    `report.json`: the verdict, what it cost, and everything that a figure is drawn from.

    `took_s` is from the start of all to the report, `load` the machine's load average (1 min) before and at the end.
    """

    scenario: Mapping[str, Any]
    started_at: str
    took_s: float
    version: str
    machine: str
    python: str
    cpu_count: int
    load: Sequence[float]
    gateways: int
    coordinators: int
    processes: int
    areas: int
    rings: int
    period_s: float
    discipline: str
    is_exact: bool
    is_conserved_by_accounts: bool | None
    conservation_error_wh: float
    failures: Sequence[str]
    opened: int
    void: int
    void_by_reason: Mapping[str, int]
    retries: int
    energy_import_wh: float
    energy_export_wh: float
    carrying: int
    carried_wh: float
    waiting_max: int
    latency_ms_p50: float
    latency_ms_p95: float
    latency_ms_max: float
    phases: Mapping[str, Phase]
    costs: Costs
    lines: Sequence[LineUse]
    faults: Sequence[FaultReport]
    intervals: Sequence[Interval]
    results: Sequence[Result]
    phase_samples: Sequence[PhaseSample]
    samples: Sequence[Sample]

    @property
    def title(self) -> str:
        """What was played."""
        return f"{self.scenario['name']}: {self.scenario['title']}"


def make_report(
    plan: Plan, calendar: Calendar, books: Books, judgement: Judgement, faults: Sequence[Fault], samples: Samples,
    costs: Costs, *, start_s: float, took_s: float, load: Sequence[float],
) -> Report:  # fmt: skip
    """Put the figures together; the first round of all was opened at `start_s` (Unix)."""
    scenario, verdict = plan.scenario, judgement.verdict
    by_interval = books.by_interval(scenario.rounds)
    found = intervals(by_interval, start_s, calendar.period_s, samples.waiting, scenario.rounds)
    rounds = [each for mine in by_interval.values() for each in mine]
    first = min(by_interval, default=0)
    everybody = frozenset(name for each in by_interval.get(first, ()) for name in each.members)
    void: Counter[str] = Counter()
    for interval in found:
        void.update(interval.reasons)
    latencies = sorted(1000 * (each.ended.ended_s - each.ended.opened_s) for each in rounds if each.is_opened) or [0.0]
    reported = [fault_report(each, faults, found, by_interval, everybody, start_s) for each in faults]
    failures = list(judgement.failures)
    opened = sum(each.opened for each in found)
    share = opened / max(1, opened + void.total())
    if not opened:
        failures.append("no total was opened")
    elif share < scenario.expected.opened_min:
        failures.append(
            f"{share:.0%} of the ring rounds opened, expected {scenario.expected.opened_min:.0%}{_busy(load[0])}"
        )
    if scenario.expected.whole_at_the_end and not any(
        is_whole(each, by_interval.get(each.interval, ()), everybody, frozenset()) for each in found[-_LAST_ROUNDS:]
    ):
        failures.append(f"in none of the last {_LAST_ROUNDS} rounds did every ring open with all its gateways")
    return Report(
        scenario=scenario.model_dump(mode="json"), started_at=datetime.fromtimestamp(start_s, UTC).isoformat(),
        took_s=round(took_s, 1), load=[round(each, 1) for each in load],
        version=importlib.metadata.version("stromkreis"), machine=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(), cpu_count=cpu_count(), gateways=scenario.gateways,
        coordinators=len(plan.areas), processes=len(plan.nodes), areas=sum(map(len, plan.areas)),
        rings=max((each.opened + each.void for each in found), default=0), period_s=calendar.period_s,
        discipline=f"a quarter hour takes {calendar.period_s:g} s; returns are limited and totals have 30 honest"
        " members at least, both in metering time, as in the field",
        is_exact=verdict.exact, is_conserved_by_accounts=judgement.is_conserved_by_accounts,
        conservation_error_wh=float(verdict.conservation_error_wh), failures=failures, opened=opened,
        void=void.total(), void_by_reason=dict(void.most_common()), retries=sum(each.ended.attempt for each in rounds),
        energy_import_wh=float(verdict.energy_import_wh), energy_export_wh=float(verdict.energy_export_wh),
        carrying=verdict.carried, carried_wh=float(verdict.carried_wh),
        waiting_max=max((count for _, count in samples.waiting), default=0),
        latency_ms_p50=round(statistics.median(latencies), 1),
        latency_ms_p95=round(latencies[min(len(latencies) - 1, int(0.95 * len(latencies)))], 1),
        latency_ms_max=round(latencies[-1], 1), phases=samples.all_phases(), costs=costs,
        lines=line_uses(costs.sent_bytes_per_gateway_round, costs.received_bytes_per_gateway_round),
        faults=reported, intervals=found, results=[_result(each, start_s) for each in rounds],
        phase_samples=samples.phases, samples=samples.samples,
    )  # fmt: skip


def _busy(load: float) -> str:
    """What may be the reason, where others computed already before the run."""
    if load <= cpu_count():
        return ""
    return (
        f"; other programs used the machine (load {load:.1f} on {cpu_count()} cores before this run): play it when they"
        " rest, or with a longer --period-s"
    )


def line_uses(sent_bytes: float, received_bytes: float) -> list[LineUse]:
    """What these bytes a round are of the lines of the field, a round being a quarter hour."""
    profiles = load_profiles()
    found = []
    for name in _LINES:
        profile = profiles[name]
        up, down = profile.up.rate_bit_s, profile.down.rate_bit_s
        if up is None or down is None:
            continue
        percent = [
            round(100 * 8 * bytes_ / (rate * INTERVAL_S), 3)
            for bytes_, rate in ((sent_bytes, up), (received_bytes, down))
        ]
        found.append(LineUse(name, profile.title, *percent))
    return found


def _result(each: RingRound, start_s: float) -> Result:
    ended = each.ended
    return Result(
        round(ended.opened_s - start_s, 3), round(1000 * (ended.ended_s - ended.opened_s), 1), each.is_opened,
        each.area, ended.ring, ended.round, ended.attempt, len(each.members), len(each.present), ended.reason,
    )  # fmt: skip


def write_json(report: Report, path: Path) -> None:
    """Everything, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(report), indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def write_markdown(report: Report, path: Path) -> None:
    """What a person wants to paste: verdict, figures, faults."""
    path.write_text("\n".join(markdown(report)) + "\n", encoding="utf-8")


def markdown(report: Report) -> list[str]:
    """The lines of `report.md`."""
    verdict = "Every total was exact and no energy was lost." if not report.failures else "FAILED:"
    lines = [f"# {report.title}", "", verdict, *(f"- {each}" for each in report.failures), ""]
    lines += ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in summary(report)), ""]
    if report.void_by_reason:
        lines += ["| ring rounds void | reason |", "| --- | --- |"]
        lines += [f"| {count} | {reason} |" for reason, count in report.void_by_reason.items()] + [""]
    if report.faults:
        lines += [
            "| round | fault | gateways | ring rounds void | its gateways back | whole again |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        lines += [
            f"| {each.round} | {each.action} {each.target} | {each.gateways:,} | {each.void} of {each.rounds}"
            f" | {_after(each.back_after_rounds) if each.gateways else ''} | {_after(each.whole_after_rounds)} |"
            for each in report.faults
        ]
    return lines


def _after(rounds: int | None) -> str:
    return "not in this run" if rounds is None else f"round {rounds + 1} after its end"


def exactness(report: Report) -> str:
    """What can be said of the totals."""
    if not report.opened:
        return "no total was opened"
    return "yes, every slot of every total" if report.is_exact else "NO"


def summary(report: Report) -> list[tuple[str, str]]:
    """Names and values of the table that everybody reads."""
    costs = report.costs
    pure = costs.machine_cpu_ms_per_gateway_round
    return [
        ("gateways", f"{report.gateways:,} in {report.processes} processes, {report.rings} rings, {report.areas} areas,"
                     f" {report.coordinators} coordinators"),
        ("rounds", f"{len(report.intervals)} intervals of {report.period_s:g} s; {report.opened:,} ring rounds opened,"
                   f" {report.void:,} void, {report.retries} retries"),
        ("exact", exactness(report)),
        ("energy lost", f"{report.conservation_error_wh:g} Wh"),
        ("still carried", f"{report.carried_wh:,.1f} Wh of missed rounds, by {report.carrying:,} gateways"),
        ("waited for a return", f"{report.waiting_max:,} gateways at once, at most"),
        ("a ring's round", f"{report.latency_ms_p50:,.0f} ms (median), {report.latency_ms_p95:,.0f} ms (95 of 100),"
                           f" {report.latency_ms_max:,.0f} ms (longest)"),
        ("a round of all rings", f"{costs.round_wall_s:.2f} s (median); {costs.round_cpu_s:.2f} s of CPU of all"
                                 f" processes on {report.cpu_count} cores"),
        ("CPU a gateway and round", f"{costs.gateway_cpu_ms_per_round:.2f} ms; its machines alone {pure:.2f} ms;"
                                    f" coordinator {costs.coordinator_cpu_ms_per_gateway_round:.2f} ms, meters"
                                    f" {costs.meters_cpu_ms_per_gateway_round:.2f} ms"),
        ("memory a gateway", f"{costs.memory_kb_per_gateway:,.0f} KB; at the coordinator"
                             f" {costs.coordinator_memory_kb_per_gateway:,.0f} KB"),
        ("bytes a gateway and round", f"{costs.sent_bytes_per_gateway_round:,.0f} sent,"
                                      f" {costs.received_bytes_per_gateway_round:,.0f} received"),
        ("bytes a gateway's set-up", f"{costs.setup_sent_bytes_per_gateway:,.0f} sent,"
                                     f" {costs.setup_received_bytes_per_gateway:,.0f} received"),
        ("bytes at the coordinator", f"{costs.coordinator_bytes_per_gateway_round:,.0f} a gateway and round,"
                                     f" {costs.coordinator_setup_bytes_per_gateway:,.0f} a gateway's set-up"),
        ("set-up", f"{costs.setup_s:,.0f} s until all had a place in a ring,"
                   f" {costs.setup_cpu_ms_per_gateway:,.0f} ms of CPU a gateway"),
        ("the whole run", f"{report.took_s:,.0f} s; load of the machine {report.load[0]:g} before it,"
                          f" {report.load[-1]:g} at its end, its own included"),
        ("discipline", report.discipline),
    ]  # fmt: skip
