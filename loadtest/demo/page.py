"""`report.html`: the report of a demo to look at, one file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from loadtest.demo.costs import Sample
from loadtest.demo.report import Report, RingRound
from loadtest.report_page import BLUE, RED, Figure, chart_layout, write_report

_TONES = (BLUE, "#d97706", "#2b8a3e", "#7048c6", "#0c8599", "#8a5a2b", "#5c6b7a")
Rows = dict[str, list[tuple[float, float | None]]]


def write_page(report: Report, path: Path) -> None:
    """Draw the report into one HTML file of some 5 MB."""
    drawn = list(figures(report))
    write_report(
        path, "loadtest.demo", [figure for _, _, figure in drawn], report=report, cards=_cards(report),
        charts=[(title, note) for title, note, _ in drawn],
    )  # fmt: skip


def _cards(report: Report) -> list[tuple[str, str, str]]:
    both = report.sent_bytes_per_gateway_round + report.received_bytes_per_gateway_round
    return [
        ("Totals", "exact" if report.exact else "wrong", f"{report.conservation_error_wh:g} Wh lost"),
        ("Still carried", f"{report.carried_wh:,.1f} Wh", f"of missed rounds, by {report.carrying} gateways"),
        ("Ring rounds", f"{report.opened:,}", f"opened; {report.void} void, {report.retries} retries"),
        ("Round latency", f"{report.round_ms_p50:g} ms", f"median; 95 % within {report.round_ms_p95:g} ms"),
        ("CPU", f"{report.cpu_ms_per_gateway_round:.2f} ms", "a gateway and round"),
        ("Traffic", f"{both / 1000:,.1f} KB", "payload sent and received, a gateway and round"),
        ("Memory", f"{report.memory_kb_per_gateway / 1000:,.1f} MB", "a gateway, its part of the process"),
    ]


def figures(report: Report) -> Iterator[tuple[str, str, Figure]]:
    """Title, note and Plotly figure of every chart."""
    outage = report.outage
    since = "" if outage is None else f"; grey: {outage.process} is away"
    yield "Round latency", f"ms from a round's opening to its end, each ring{since}", _latency(report)
    yield "Gateways in the total", f"by quarter hour{since}", _participation(report)
    yield "Latency, distribution", "part of the rounds that had ended after so long", _distribution(report)
    if report.phases:
        yield "Phases", "part of the rounds whose head had each phase behind it, since its OPEN", _phases(report)
    for title, note, rows in (
        ("CPU", "percent of a core, each process", _cpu(report)),
        ("Memory", "MB, each process; shared pages by proportion", _memory(report)),
    ):
        if rows:
            yield title, note + since, _lines(rows, report)


def _over_run(report: Report, y: str, **more: Any) -> Figure:
    """The layout of a chart over the run's time, with its outage."""
    outage, outages_s = report.outage, []
    if outage is not None:
        outages_s.append((outage.killed_at_s, outage.back_at_s if outage.back_at_s is not None else _end_s(report)))
    return chart_layout("s since the first round", y, outages_s, **more)


def _end_s(report: Report) -> float:
    return max((each.opened_at_s for each in report.ring_rounds), default=0.0) + report.settings.period_s


def _latency(report: Report) -> Figure:
    opened = [each for each in report.ring_rounds if each.opened]
    void = [each for each in report.ring_rounds if not each.opened]

    def dots(name: str, rounds: Sequence[RingRound], colour: str, symbol: str) -> Figure:
        return {
            "type": "scatter", "mode": "markers", "name": name, "x": [each.opened_at_s for each in rounds],
            "y": [each.latency_ms for each in rounds],
            "text": [f"{each.area}, ring {each.ring}, round {each.round} {each.reason}" for each in rounds],
            "marker": {"color": colour, "size": 6, "opacity": 0.75, "symbol": symbol},
            "hovertemplate": "%{text}<br>%{y} ms<extra></extra>",
        }  # fmt: skip

    traces = [dots("opened", opened, BLUE, "circle")]
    if void:
        traces.append(dots("void", void, RED, "x"))
    return {"data": traces, "layout": _over_run(report, "ms", showlegend=bool(void))}


def _participation(report: Report) -> Figure:
    present: dict[int, int] = {}
    members: dict[int, int] = {}
    for each in report.ring_rounds:
        present[each.round] = present.get(each.round, 0) + each.present
        members[each.round] = members.get(each.round, 0) + each.members
    rounds = sorted(members)
    period_s = report.settings.period_s

    def bars(name: str, values: Sequence[int], colour: str) -> Figure:
        return {
            "type": "bar", "name": name, "x": [round_ * period_s for round_ in rounds], "y": list(values),
            "marker": {"color": colour}, "hovertemplate": f"%{{y}} {name}<extra></extra>",
        }  # fmt: skip

    data = [
        bars("in the total", [present[each] for each in rounds], BLUE),
        bars("missing", [members[each] - present[each] for each in rounds], RED),
    ]
    return {
        "data": data,
        "layout": _over_run(report, "gateways", barmode="stack"),
    }


def _distribution(report: Report) -> Figure:
    latencies = sorted(each.latency_ms for each in report.ring_rounds if each.opened)
    parts = [(index + 1) / len(latencies) for index in range(len(latencies))]
    trace = {
        "type": "scatter", "mode": "lines", "line": {"shape": "hv", "color": BLUE, "width": 2}, "x": latencies,
        "y": parts, "hovertemplate": "%{y:.1%} within %{x} ms<extra></extra>",
    }  # fmt: skip
    return {"data": [trace], "layout": chart_layout("ms", "part of the rounds", showlegend=False)}


def _phases(report: Report) -> Figure:
    traces = []
    for (name, phase), colour in zip(report.phases.items(), _TONES, strict=False):
        bounds = [(bound, count) for bound, count in zip(phase.bounds_ms, phase.rounds, strict=True) if bound]
        traces.append({
            "type": "scatter", "mode": "lines+markers", "name": name, "x": [bound for bound, _ in bounds],
            "y": [count / phase.rounds[-1] for _, count in bounds], "line": {"color": colour, "width": 2},
            "hovertemplate": f"%{{y:.1%}} past {name} within %{{x}} ms<extra></extra>",
        })  # fmt: skip
    layout = chart_layout("ms, logarithmic", "part of the rounds")
    ends = [
        bound
        for phase in report.phases.values()
        for bound, count in zip(phase.bounds_ms, phase.rounds, strict=True)
        if bound and 0 < count < phase.rounds[-1]
    ]
    # A decade around where something happens, not the whole span of the buckets.
    low, high = min(ends, default=10.0), max(ends, default=100.0)
    layout["xaxis"] |= {"type": "log", "range": [math.log10(low / 1.3), math.log10(high * 3)]}
    return {"data": traces, "layout": layout}


def _cpu(report: Report) -> Rows:
    rows: Rows = {}
    for name, mine in _by_process(report.samples).items():
        for before, after in pairwise(mine):
            percent = 100 * (after.cpu_s - before.cpu_s) / max(1e-3, after.at_s - before.at_s)
            rows.setdefault(name, []).append((after.at_s, None if _died(report, before, after) else round(percent, 1)))
    return rows


def _memory(report: Report) -> Rows:
    rows: Rows = {}
    for name, mine in _by_process(report.samples).items():
        rows[name] = [(mine[0].at_s, round(mine[0].memory_kb / 1000, 1))]
        for before, after in pairwise(mine):
            if _died(report, before, after):
                rows[name].append((before.at_s, None))
            rows[name].append((after.at_s, round(after.memory_kb / 1000, 1)))
    return rows


def _died(report: Report, before: Sample, after: Sample) -> bool:
    """Whether the process's life ended between two of its samples: its line has a gap there."""
    outage = report.outage
    return outage is not None and after.process == outage.process and before.at_s <= outage.killed_at_s < after.at_s


def _by_process(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for each in samples:
        found.setdefault(each.process, []).append(each)
    return found


def _lines(rows: Rows, report: Report) -> Figure:
    traces = [
        {
            "type": "scatter", "mode": "lines", "name": name, "x": [at_s for at_s, _ in points],
            "y": [value for _, value in points], "line": {"color": _TONES[index % len(_TONES)], "width": 2},
            "hovertemplate": f"{name}: %{{y}}<extra></extra>",
        }
        for index, (name, points) in enumerate(rows.items())
    ]  # fmt: skip
    return {"data": traces, "layout": _over_run(report, "")}
