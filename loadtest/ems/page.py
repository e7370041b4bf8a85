"""`report.html`: the options side by side, the paper's table above what was measured, in one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from loadtest.ems.options import OPTIONS, Option
from loadtest.ems.result import Latency, Result
from loadtest.report_page import BLUE, RED, Figure, chart_layout, write_report
from protocol.errors import StromkreisError

_TONES: Final = (BLUE, "#d97706", "#2b8a3e", "#7048c6", "#0c8599", "#c2255c", "#8a5a2b", "#5c6b7a")
_NONE: Final = "–"
_AGE_SHOWN_S_MIN: Final = 0.02  # a logarithmic axis has no 0
_STRAIGHT_S, _BEND_POINTS = 3.0, 24


class Row(NamedTuple):
    """A row of the table: what it says of each option, a cell having one or more lines."""

    title: str
    note: str
    cells: Sequence[Sequence[str]]


def load_results(directory: Path) -> dict[str, Result]:
    """Those of a directory, by option.  Raises StromkreisError where there is none, or one of another version."""
    found = {path.stem.removeprefix("ems-"): Result.load(path) for path in sorted(directory.glob("ems-*.json"))}
    if not found:
        raise StromkreisError(f"{directory}: no result of a scenario; expected files such as ems-1a.json")
    return found


def write_page(results: Mapping[str, Result], path: Path) -> None:
    """Draw them into one HTML file of some 5 MB."""
    drawn = list(figures(results))
    write_report(
        path, "loadtest.ems", [figure for _, _, figure in drawn], options=list(OPTIONS.values()),
        charts=[(title, note) for title, note, _ in drawn], paper=paper_rows(), measured=measured_rows(results),
        failures=[f"{name}: {each}" for name, result in results.items() for each in result.failures],
        missing=[name for name in OPTIONS if name not in results],
    )  # fmt: skip


def paper_rows() -> list[Row]:
    """Table 2 of the paper, turned so that an option is a column."""

    def row(title: str, shown: Callable[[Option], str]) -> Row:
        return Row(title, "", [[shown(each)] for each in OPTIONS.values()])

    return [
        row("Measurements", lambda each: each.paper.measurements),
        row("Resolution", lambda each: each.paper.resolution),
        row("Channel gateway to EMP", lambda each: each.paper.channel),
        row("Active EMP", lambda each: each.paper.active_emp),
        row("Access to controllable systems", lambda each: each.paper.access),
    ]


def measured_rows(results: Mapping[str, Result]) -> list[Row]:
    """What was measured, an option a column; an option that was not run has empty cells."""

    def row(title: str, note: str, lines: Callable[[Result], Sequence[str]]) -> Row:
        return Row(title, note, [list(lines(results[name])) if name in results else [""] for name in OPTIONS])

    return [
        row("Sample period", "median / 95 %, by the meter's clock", lambda each: [
            f"{name}: {seconds(one.period_s_p50)} / {seconds(one.period_s_p95)}" for name, one in each.values.items()
        ]),
        row("Age of the newest value", "median / 95 % / greatest, at any moment", lambda each: [
            f"{name}: {seconds(one.age_s_p50)} / {seconds(one.age_s_p95)} / {seconds(one.age_s_max)}"
            for name, one in each.values.items()
        ]),
        row("Gaps", "periods over 2.5 times the ordered one", lambda each: [
            f"{name}: {one.gaps or 'none'}{f', longest {seconds(one.gap_s_max)}' if one.gaps else ''}"
            for name, one in each.values.items()
        ]),
        row("Command", "until its answer, median / 95 %", lambda each: [
            f"{name}: {latency(one)}" for name, one in each.commands.items()
        ]),
        row("Reaction to a step of the load", "until a charger keeps to its new limit", lambda each: [
            latency(each.reaction) if each.reaction.count else _NONE,
            f"{each.reaction.count} of {each.reaction.count + each.steps_missed} steps answered",
        ]),
        row("Cold tunnel", "from its beginning to a command's answer", lambda each: [
            "no tunnel" if each.cold is None else f"{_begun_by(each)}: {latency(each.cold)}"
        ]),
        row("Recovery", "after the WAN's return", lambda each: [
            f"{name}: {'not noticed' if one == 0 else 'not back' if one is None else seconds(one)}"
            for name, one in each.recovery_s.items()
        ]),
        row("Limitation of power (LPC)", "states", lambda each: [" → ".join(each.limit_states) or _NONE]),
        row("WAN", "octets of all tunnels and deliveries, undisturbed", lambda each: [
            f"{each.wan_bytes_per_s:,.0f} B/s" if each.wan_bytes_per_s else "nothing"
        ]),
        row("Gateway's processor", "percent of a core", lambda each: [f"{each.gateway_cpu_percent:.1f} %"]),
        row("Run", "", lambda each: [
            each.at.replace("T", " ").replace("+00:00", " UTC"), f"{each.duration_s:g} s, {each.wan}",
            f"WAN cut for {each.cut_s:g} s", *([f"values by EMP: {each.emp_values}"] if each.emp_values else []),
            *([f"shown at home: each {each.display_s} s"] if each.display_s is not None else []),
        ]),
        row("Tried again", "", lambda each: list(each.notes) or [_NONE]),
    ]  # fmt: skip


def _begun_by(result: Result) -> str:
    return "ordered by the EMP (HKS4)" if OPTIONS[result.option].remote_commands else "begun at home (HKS3)"


def figures(results: Mapping[str, Result]) -> Iterator[tuple[str, str, Figure]]:
    """Title, note and Plotly figure of every chart."""
    yield (
        "Age of the newest value",
        "s by the meter's clock, over time; a run's cut comes after its undisturbed part; logarithmic",
        _ages(results),
    )
    rows = [(f"{name}, {party}", one.age_s_p50, one.age_s_p95)
            for name, result in results.items() for party, one in result.values.items()]  # fmt: skip
    yield "Age by option", "s, median and 95 %; logarithmic", _spans(rows)
    commands = [(f"{name}, {actuator}", one.s_p50, one.s_p95)
                for name, result in results.items() for actuator, one in result.commands.items()]  # fmt: skip
    yield "Commands", "s until the answer, median and 95 %; logarithmic", _spans(commands)
    reaction = [(name, each.reaction.s_p50, each.reaction.s_p95) for name, each in results.items()]
    yield "Reaction to a step of the load", "s until a charger's new limit holds; logarithmic", _spans(reaction)
    yield "Recovery", "s after the WAN's return; who is not here has not noticed the cut", _recovery(results)


def seconds(value: float | None) -> str:
    """A time to read."""
    if value is None:
        return _NONE
    if value < 0.995:
        return f"{1000 * value:.0f}\N{NO-BREAK SPACE}ms"
    return f"{value:.1f}\N{NO-BREAK SPACE}s" if value < 100 else f"{value:,.0f}\N{NO-BREAK SPACE}s"


def latency(found: Latency) -> str:
    """Median and 95 %, and how many had none."""
    failed = f", {found.failed} failed" if found.failed else ""
    return f"{seconds(found.s_p50)} / {seconds(found.s_p95)}{failed}"


def _ages(results: Mapping[str, Result]) -> Figure:
    traces: list[Figure] = []
    for name, result in results.items():
        for party, curve in result.curves.items():
            points = [point for begin, end in pairwise(curve) for point in (*_bent(begin, end), end)]
            traces.append({
                "type": "scatter", "mode": "lines", "name": f"{name}, {party}", "x": [at_s for at_s, _ in points],
                "y": [max(age_s, _AGE_SHOWN_S_MIN) for _, age_s in points],
                "line": {"width": 1, "color": _TONES[len(traces) % len(_TONES)]},
                "hovertemplate": "%{y:.1f} s<extra>%{fullData.name}</extra>",
            })  # fmt: skip
    layout = chart_layout("s since the beginning", "s", height=420)
    layout["yaxis"] |= {"type": "log", "rangemode": "normal"}
    return {"data": traces, "layout": layout}


def _bent(begin: tuple[float, float], end: tuple[float, float]) -> list[tuple[float, float]]:
    """The begin, and points on the way of an age that grows for long: on a logarithmic axis it is no straight line."""
    (at_s, age_s), (_, old_s) = begin, end
    if old_s - age_s < _STRAIGHT_S:
        return [begin]
    lowest_s = max(age_s, _AGE_SHOWN_S_MIN)
    ages_s = [lowest_s * (old_s / lowest_s) ** (step / _BEND_POINTS) for step in range(1, _BEND_POINTS)]
    return [begin, *((at_s + each - age_s, each) for each in ages_s)]


def _spans(rows: Sequence[tuple[str, float | None, float | None]]) -> Figure:
    """A line from the median to the 95 % of each; a bar would begin nowhere on a logarithmic axis."""
    known = [(name, low, high) for name, low, high in rows if low is not None and high is not None]
    names = [name for name, _, _ in known]

    def dots(name: str, values: Sequence[float], colour: str) -> Figure:
        return {
            "type": "scatter", "mode": "markers", "name": name, "y": names, "x": list(values),
            "marker": {"color": colour, "size": 11}, "hovertemplate": "%{x:.3f} s<extra>" + name + "</extra>",
        }  # fmt: skip

    lines = {
        "type": "scatter", "mode": "lines", "showlegend": False, "hoverinfo": "skip",
        "y": [each for name in names for each in (name, name, None)],
        "x": [each for _, low, high in known for each in (low, high, None)], "line": {"color": "#9aa5b1", "width": 3},
    }  # fmt: skip
    medians, highs = [low for _, low, _ in known], [high for _, _, high in known]
    data = [lines, dots("median", medians, BLUE), dots("95 %", highs, RED)]
    return {"data": data, "layout": _horizontal(len(known), "s", logarithmic=True)}


def _recovery(results: Mapping[str, Result]) -> Figure:
    rows = [(f"{name}, {what}", value)
            for name, each in results.items() for what, value in each.recovery_s.items() if value != 0]  # fmt: skip
    trace = {
        "type": "bar", "orientation": "h", "y": [name for name, _ in rows], "x": [value for _, value in rows],
        "marker": {"color": RED}, "hovertemplate": "%{x:.1f} s<extra></extra>",
    }  # fmt: skip
    return {"data": [trace], "layout": _horizontal(len(rows), "s") | {"showlegend": False}}


def _horizontal(count: int, x: str, *, logarithmic: bool = False) -> dict[str, Any]:
    layout = chart_layout(x, "", height=100 + 30 * max(3, count))
    layout["yaxis"] |= {"autorange": "reversed", "type": "category"}
    layout["xaxis"] |= {"type": "log"} if logarithmic else {"rangemode": "tozero"}
    return layout
