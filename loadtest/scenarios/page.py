"""`report.html`: the report of a load test to look at, one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from loadtest.report_page import BLUE, RED, Figure, chart_layout, write_report
from loadtest.scenarios.report import Report, Result, summary
from loadtest.scenarios.samples import Sample

_AMBER = "#e0a100"
_TONES = (BLUE, "#d97706", "#2b8a3e", "#7048c6", "#0c8599", "#8a5a2b", "#5c6b7a", "#c2255c", "#5f8dd3", "#9aa5b1")
_PHASES = ("collect", "confirm", "reveal", "sum", "round")
_DOTS_MAX = 6_000


def write_page(report: Report, path: Path) -> None:
    """Draw the report into one HTML file of some 5 MB."""
    drawn = list(figures(report))
    write_report(
        path, "loadtest.scenarios", [figure for _, _, figure in drawn], report=report, summary=summary(report),
        cards=_cards(report), charts=[(title, note) for title, note, _ in drawn],
    )  # fmt: skip


def _cards(report: Report) -> list[tuple[str, str, str]]:
    costs = report.costs
    verdict = "none" if not report.opened else "exact" if report.is_exact else "wrong"
    return [
        ("Totals", verdict, f"{report.conservation_error_wh:g} Wh lost"),
        ("Ring rounds", f"{report.opened:,}", f"opened; {report.void:,} void, {report.retries:,} retries"),
        ("Round of a ring", f"{report.latency_ms_p50:,.0f} ms", f"median; 95 % within {report.latency_ms_p95:,.0f} ms"),
        ("CPU", f"{costs.gateway_cpu_ms_per_round:.2f} ms",
         f"a gateway and round; its machines alone {costs.machine_cpu_ms_per_gateway_round:.2f} ms"),
        ("Memory", f"{costs.memory_kb_per_gateway:,.0f} KB", "a gateway, its part of the process"),
        ("Traffic", f"{(costs.sent_bytes_per_gateway_round + costs.received_bytes_per_gateway_round) / 1000:,.1f} KB",
         "payload sent and received, a gateway and round"),
    ]  # fmt: skip


def figures(report: Report) -> Iterator[tuple[str, str, Figure]]:
    """Title, note and Plotly figure of every chart."""
    grey = "; grey: a fault lasts" if report.faults else ""
    yield "Latency of ring rounds", f"s from a round's opening to its end, each ring{grey}", _latency(report)
    yield "Gateways in totals", f"by round{grey}", _participation(report)
    if report.opened:
        note = "part of the opened ring rounds that had ended after so long"
        yield "Latency, distribution", note, _distribution(report)
    if report.phase_samples:
        yield "Latency by phase", f"median since OPEN, as the heads see it, over time{grey}", _phase_times(report)
    if report.phases:
        yield "Phases, distribution", "part of the rounds that had each phase behind them, since OPEN", _phases(report)
    yield "Ring rounds by outcome", f"opened, and void by reason{grey}", _outcomes(report)
    yield "CPU", f"percent of a core, by kind of process{grey}", _over_time(report, _cpu(report))
    yield "Memory", f"MB, by kind of process; shared pages by proportion{grey}", _over_time(report, _memory(report))
    if report.faults:
        yield (
            "Recovery",
            "rounds after a fault's end until its gateways were in totals, and until all was whole",
            (_recovery(report)),
        )


def _over_run(report: Report, y: str, **more: Any) -> Figure:
    """The layout of a chart over the run's time, with its faults."""
    end_s = _end_s(report)
    faults_s = [
        (each.began_at_s, max(each.ended_at_s or each.began_at_s, each.began_at_s + 0.02 * end_s))
        for each in report.faults
    ]
    layout = chart_layout("s since the first round", y, faults_s, **more)
    layout["xaxis"] |= {"range": [-0.01 * end_s, 1.01 * end_s]}
    return layout


def _end_s(report: Report) -> float:
    return max((each.at_s for each in report.intervals), default=0.0) + report.period_s


def _latency(report: Report) -> Figure:
    step = max(1, len(report.results) // _DOTS_MAX)

    def dots(name: str, rounds: Sequence[Result], colour: str, symbol: str) -> Figure:
        return {
            "type": "scatter", "mode": "markers", "name": name, "x": [each.at_s for each in rounds],
            "y": [each.latency_ms / 1000 for each in rounds],
            "text": [f"{each.area}, ring {each.ring}, round {each.round}: {each.reason or name}" for each in rounds],
            "marker": {"color": colour, "size": 6, "opacity": 0.7, "symbol": symbol},
            "hovertemplate": "%{text}<br>%{y:.2f} s<extra></extra>",
        }  # fmt: skip

    opened = [each for each in report.results if each.is_opened][::step]
    void = [each for each in report.results if not each.is_opened][::step]
    traces = [dots("opened", opened, BLUE, "circle")] + ([dots("void", void, RED, "x")] if void else [])
    return {"data": traces, "layout": _over_run(report, "s", showlegend=bool(void))}


def _bars(report: Report, name: str, values: Sequence[int], colour: str) -> Figure:
    return {
        "type": "bar", "name": name, "x": [each.at_s + report.period_s / 2 for each in report.intervals],
        "y": list(values), "width": report.period_s * 0.8, "marker": {"color": colour},
        "hovertemplate": f"%{{y}} {name}<extra></extra>",
    }  # fmt: skip


def _participation(report: Report) -> Figure:
    waiting = [min(each.waiting, report.gateways - each.present) for each in report.intervals]
    missing = [report.gateways - each.present - wait for each, wait in zip(report.intervals, waiting, strict=True)]
    data = [
        _bars(report, "in totals", [each.present for each in report.intervals], BLUE),
        _bars(report, "wait for a return", waiting, _AMBER),
        _bars(report, "missing", missing, RED),
    ]
    return {"data": data, "layout": _over_run(report, "gateways", barmode="stack")}


def _outcomes(report: Report) -> Figure:
    data = [_bars(report, "opened", [each.opened for each in report.intervals], BLUE)]
    for index, reason in enumerate(report.void_by_reason):
        counts = [each.reasons.get(reason, 0) for each in report.intervals]
        data.append(_bars(report, reason, counts, (RED, *_TONES[1:])[index % len(_TONES)]))
    layout = _over_run(report, "ring rounds", barmode="stack", showlegend=True)
    return {"data": data, "layout": layout}


def _distribution(report: Report) -> Figure:
    latencies = sorted(each.latency_ms / 1000 for each in report.results if each.is_opened)
    step = max(1, len(latencies) // 2_000)
    parts = [((index + 1) / len(latencies), value) for index, value in enumerate(latencies)]
    shown = parts[::step] + parts[-1:]
    trace = {
        "type": "scatter", "mode": "lines", "line": {"shape": "hv", "color": BLUE, "width": 2},
        "x": [value for _, value in shown], "y": [100 * part for part, _ in shown],
        "hovertemplate": "%{y:.1f} % within %{x:.2f} s<extra></extra>",
    }  # fmt: skip
    return {"data": [trace], "layout": chart_layout("s", "% of the ring rounds", showlegend=False)}


def _phase_times(report: Report) -> Figure:
    traces = []
    for index, name in enumerate(_PHASES):
        points = [(each.at_s, each.phases[name].p50_ms / 1000) for each in report.phase_samples if name in each.phases]
        if points:
            traces.append(_line(name, points, index))
    return {"data": traces, "layout": _over_run(report, "s")}


def _phases(report: Report) -> Figure:
    traces = []
    for index, (name, phase) in enumerate(report.phases.items()):
        shown = [(bound, count) for bound, count in zip(phase.bounds_ms, phase.rounds, strict=True) if bound]
        traces.append(_line(name, [(bound / 1000, 100 * count / phase.rounds[-1]) for bound, count in shown], index))
    layout = chart_layout("s, logarithmic", "% of the rounds")
    layout["xaxis"] |= {"type": "log"}
    return {"data": traces, "layout": layout}


def _kind(process: str) -> str:
    """Processes alike are drawn as one line."""
    return process.rpartition("-")[0] or process


def _series(report: Report) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for each in report.samples:
        found.setdefault(each.process, []).append(each)
    return found


def _summed(report: Report, rows: dict[str, list[tuple[float, float]]]) -> dict[str, list[tuple[float, float]]]:
    """By kind of process, on a grid of half a period: a process that is away counts nothing."""
    step_s = max(0.5, report.period_s / 2)
    sums: dict[str, dict[int, float]] = {}
    for name, points in rows.items():
        slots: dict[int, list[float]] = {}
        for at_s, value in points:
            slots.setdefault(int(at_s // step_s), []).append(value)
        for slot, values in slots.items():
            mine = sums.setdefault(_kind(name), {})
            mine[slot] = mine.get(slot, 0.0) + sum(values) / len(values)
    return {
        kind: [(slot * step_s, round(value, 1)) for slot, value in sorted(each.items())] for kind, each in sums.items()
    }


def _cpu(report: Report) -> dict[str, list[tuple[float, float]]]:
    rows = {
        name: [
            (after.at_s, 100 * (after.cpu_s - before.cpu_s) / max(1e-3, after.at_s - before.at_s))
            for before, after in pairwise(mine)
            if after.at_s - before.at_s > 0.1
        ]
        for name, mine in _series(report).items()
    }
    return _summed(report, rows)


def _memory(report: Report) -> dict[str, list[tuple[float, float]]]:
    rows = {name: [(each.at_s, each.memory_kb / 1000) for each in mine] for name, mine in _series(report).items()}
    return _summed(report, rows)


def _over_time(report: Report, rows: dict[str, list[tuple[float, float]]]) -> Figure:
    traces = [_line(name, points, index) for index, (name, points) in enumerate(sorted(rows.items()))]
    return {"data": traces, "layout": _over_run(report, "", showlegend=True)}


def _line(name: str, points: Sequence[tuple[float, float]], index: int) -> Figure:
    return {
        "type": "scatter", "mode": "lines", "name": name, "x": [x for x, _ in points], "y": [y for _, y in points],
        "line": {"color": _TONES[index % len(_TONES)], "width": 2},
        "hovertemplate": f"{name}: %{{y:.3~f}}<extra></extra>",
    }  # fmt: skip


def _recovery(report: Report) -> Figure:
    names = [f"round {each.round}: {each.action} {each.target}" for each in report.faults]

    def bars(name: str, values: Sequence[int | None], colour: str) -> Figure:
        return {
            "type": "bar", "orientation": "h", "name": name, "y": names, "marker": {"color": colour},
            "x": [None if value is None else value + 1 for value in values],
            "hovertemplate": f"%{{y}}: {name} in round %{{x}} after its end<extra></extra>",
        }  # fmt: skip

    data = [
        bars("its gateways in totals", [e.back_after_rounds if e.gateways else None for e in report.faults], BLUE),
        bars("all whole", [each.whole_after_rounds for each in report.faults], _AMBER),
    ]
    height = max(180, 90 + 34 * len(names))
    layout = chart_layout("rounds", "", barmode="group", showlegend=True, height=height)
    layout["yaxis"] |= {"autorange": "reversed", "rangemode": "normal"}
    layout["xaxis"] |= {"rangemode": "tozero", "dtick": 1 if _longest(report) < 12 else None}
    return {"data": data, "layout": layout}


def _longest(report: Report) -> int:
    return max((each.whole_after_rounds or 0 for each in report.faults), default=0)
