"""The report's charts as Plotly figures (plain dictionaries)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from loadtest.lab.metrics import Estimate
from loadtest.lab.run import Results
from loadtest.lab.schemes import SCHEMES
from loadtest.lab.settings import Row
from loadtest.report_page import BLUE, RED, Figure, chart_layout

_TONES = (BLUE, "#d97706", "#2b8a3e", "#7048c6", RED, "#0c8599", "#8a5a2b")
_TICKS = [factor * 10.0**power for power in range(-4, 5) for factor in (1, 2, 5)]
_TICK_TEXTS = [f"{tick:,.10g}" for tick in _TICKS]
_BLUE, _GREY, _ORANGE = _TONES[0], "#8b96a3", _TONES[1]
APPLIANCE_TITLES = {
    "KETTLE": "kettle", "COOKINGSTOVE": "stove", "DISHWASHER": "dishwasher", "WASHINGMACHINE": "washing machine",
}  # fmt: skip


class Chart(NamedTuple):
    """One chart: a title, what it says in a sentence, the figure, and whether it takes the page's whole width."""

    title: str
    note: str
    figure: Figure
    wide: bool = False


def charts(results: Results) -> Iterator[Chart]:
    """Every chart that the run has rows for."""
    if results.curves:
        yield Chart(
            "One household, one day",
            "what the EMP sees under each scheme, kW; sums divided by their members", _curves(results), True,
        )  # fmt: skip
    yield from _identification(results)
    yield from _bars(results)
    yield from _linkage(results)
    yield from _differencing(results)
    yield from _noise(results)
    yield from _costs(results)


def _layout(x: str, y: str, height: int = 340, **more: Any) -> Figure:
    return chart_layout(x, y, from_zero=False, height=height, **more)


def _log(title: str) -> Figure:
    """A logarithmic axis, ticked at 1, 2, 5."""
    return {"type": "log", "title": {"text": f"{title}, logarithmic"}, "tickvals": _TICKS, "ticktext": _TICK_TEXTS}


def _error(estimates: Sequence[Estimate]) -> Figure:
    return {
        "type": "data", "symmetric": False, "thickness": 1, "width": 3,
        "array": [max(0.0, min(each.high, 1e6) - each.value) for each in estimates],
        "arrayminus": [max(0.0, each.value - each.low) for each in estimates],
    }  # fmt: skip


def _line(name: str, x: Sequence[float], rows: Sequence[Row], colour: str, **more: Any) -> Figure:
    return {
        "type": "scatter", "mode": "lines+markers", "name": name, "x": list(x),
        "y": [row.estimate.value for row in rows],
        "error_y": _error([row.estimate for row in rows]) | {"color": colour},
        "line": {"color": colour, "width": 2}, "marker": {"size": 6}, **more,
    }  # fmt: skip


def _curves(results: Results) -> Figure:
    """Small multiples that share both axes, the household itself in grey behind each."""
    shown = results.curves
    names = [name for name in shown if name != "household"]
    columns = 3
    count = -(-len(names) // columns)
    gap_x, gap_y = 0.03, 0.09 if count < 4 else 0.055
    width, height = (1 - gap_x * (columns - 1)) / columns, (1 - gap_y * (count - 1)) / count
    data, notes = [], []
    layout = _layout("", "", 175 * count, showlegend=False)
    for index, name in enumerate(names):
        row, column = divmod(index, columns)
        left, top = column * (width + gap_x), 1 - row * (height + gap_y)
        # Noise is many times a household's load: on the common scale there would be nothing else to see.
        is_noisy = min(shown[name]) < 0
        number = "" if index == 0 else str(index + 1)
        for key, colour, line in (("household", "#c3cad3", 1), (name, _BLUE, 1.2)):
            values = shown[key]
            data.append({
                "type": "scatter", "mode": "lines", "x": [24 * i / len(values) for i in range(len(values))],
                "y": [round(each / 1000, 3) for each in values], "line": {"color": colour, "width": line},
                "xaxis": f"x{number}", "yaxis": f"y{number}", "hoverinfo": "skip",
            })  # fmt: skip
        layout[f"xaxis{number}"] = {
            "domain": [left, left + width], "anchor": f"y{number}", "range": [0, 24], "dtick": 6,
            "gridcolor": "#e6e9ee", "showticklabels": index + columns >= len(names),
            "title": {"text": "hour" if index + columns >= len(names) else "", "standoff": 2},
        }  # fmt: skip
        layout[f"yaxis{number}"] = {
            "domain": [top - height, top], "anchor": f"x{number}", "gridcolor": "#e6e9ee", "zeroline": False,
            "showticklabels": column == 0 or is_noisy, "nticks": 4, "rangemode": "tozero",
        } | ({"matches": "y"} if number and not is_noisy else {})  # fmt: skip
        notes.append({
            "text": f"{name} (own scale)" if is_noisy else name, "xref": "paper", "yref": "paper", "x": left, "y": top,
            "showarrow": False, "xanchor": "left", "yanchor": "bottom", "font": {"size": 12},
        })  # fmt: skip
    layout["annotations"] = notes
    layout["margin"] = {"l": 44, "r": 10, "t": 24, "b": 40}
    return {"data": data, "layout": layout}


def _by_members(rows: Sequence[Row]) -> tuple[list[float], list[Row]]:
    ordered = sorted(rows, key=lambda row: row.parameters["members"])
    return [row.parameters["members"] for row in ordered], ordered


def _identification(results: Results) -> Iterator[Chart]:
    rows = results.find(scheme="sum", attack="identification", knows="exact")
    if not rows:
        return
    slot_s = min(row.parameters["slot_s"] for row in rows)
    x_axis = _log("households in the sum") | {"gridcolor": "#e6e9ee"}
    days = sorted({row.parameters["days"] for row in rows})
    traces = []
    for index, count in enumerate(days):
        found = [row for row in rows if row.parameters["days"] == count and row.parameters["slot_s"] == slot_s]
        traces.append(_line(f"{count} day{'s' if count > 1 else ''}", *_by_members(found), _TONES[index]))
    before = results.find(scheme="sum", attack="identification", knows="before", slot_s=slot_s)
    if before:
        traces.append(_line("knows the days before instead", *_by_members(before), _GREY, line={"dash": "dot"}))
    layout = _layout("", "advantage 2p - 1", shapes=[_zero()])
    layout["xaxis"] |= x_axis
    yield Chart(
        "How many households are enough",
        f"who of two candidates is in the sum, the attacker holds their exact curves; readings of {slot_s} s",
        {"data": traces, "layout": layout},
    )
    most = max(days)
    traces = []
    for index, each in enumerate(sorted({row.parameters["slot_s"] for row in rows})):
        found = [row for row in rows if row.parameters["days"] == most and row.parameters["slot_s"] == each]
        traces.append(_line(f"{each} s", *_by_members(found), _TONES[index]))
    blind = [row for row in rows if row.parameters["days"] == most and row.parameters["slot_s"] == slot_s]
    sizes, blind = _by_members(blind)
    for name, part, colour in (("blind", "blind", _GREY), ("ring without the household", "without", _TONES[6])):
        estimates = [getattr(row, part) for row in blind]
        traces.append({
            "type": "scatter", "mode": "lines", "name": name, "x": sizes, "y": [each.value for each in estimates],
            "line": {"color": colour, "dash": "dot", "width": 1.5},
        })  # fmt: skip
    layout = _layout("", "advantage 2p - 1", shapes=[_zero()])
    layout["xaxis"] |= x_axis
    yield Chart(
        "Resolution and controls", f"the same game over {most} day{'s' if most > 1 else ''}",
        {"data": traces, "layout": layout},
    )  # fmt: skip


def _zero() -> Figure:
    return {
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0, "line": {"color": "#5b6775", "width": 1},
    }  # fmt: skip


def view_title(row: Row) -> str:
    """What the EMP sees, in a few words."""
    scheme = SCHEMES[row.scheme]
    members = row.parameters["members"]
    title = f"sum of {members}" if scheme.exact_sum else scheme.title.removeprefix("This project's ")
    if not scheme.exact_sum and members > 1:
        title = f"sum of {members} with noise"
    coarse = row.scheme == "plain" and row.parameters["slot_s"] >= 900
    return f"{title}, {row.parameters['slot_s']} s" if coarse else title


def _one_a_view(rows: Sequence[Row]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for row in rows:
        if not row.scheme.startswith("pseudonyms"):  # the same values as plain ones; their question is the linkage
            found.setdefault(view_title(row), row)
    return found


def _bars(results: Results) -> Iterator[Chart]:
    for attack, metric, title, note in (
        ("classifier", "precision_over_base", "Appliances by slot", "precision over the base rate; 1 is chance"),
        ("hart", "f1", "Hart's disaggregation", "F1 of the slots in which an appliance runs"),
    ):
        rows = results.find(attack=attack, metric=metric)
        views = list(_one_a_view(rows))
        traces: list[Figure] = []
        for index, (name, label) in enumerate(APPLIANCE_TITLES.items()):
            found = _one_a_view([row for row in rows if row.parameters["appliance"] == name])
            if not found:
                continue
            kept = [each for each in views if each in found]
            traces.append({
                "type": "scatter", "mode": "markers", "name": label, "y": kept,
                "x": [found[each].estimate.value for each in kept],
                "error_x": _error([found[each].estimate for each in kept]) | {"color": _TONES[index]},
                "marker": {"size": 9, "color": _TONES[index]},
            })  # fmt: skip
            traces.append({
                "type": "scatter", "mode": "markers", "name": f"{label}, blind", "y": kept, "showlegend": index == 0,
                "x": [found[each].blind.value for each in kept], "legendgroup": "blind",
                "marker": {"size": 8, "color": _TONES[index], "symbol": "line-ns-open", "line": {"width": 2}},
                "hovertemplate": "blind: %{x:.2f}<extra></extra>",
            } | ({"name": "blind"} if index == 0 else {}))  # fmt: skip
        if traces:
            layout = _layout(note, "", 120 + 30 * len(views))
            layout["yaxis"] |= {"autorange": "reversed", "categoryorder": "array", "categoryarray": views}
            if attack == "classifier":
                layout["xaxis"] |= _log(note)
            yield Chart(title, note, {"data": traces, "layout": layout})
    for attack, metric, title, note in (
        ("occupancy", "advantage", "Is somebody at home", "advantage 2p - 1 by slot"),
        ("distance", "mutual_information_bits", "Mutual information", "bit a slot between load and view"),
    ):
        found = _one_a_view(results.find(attack=attack, metric=metric))
        if found:
            traces = [
                {
                    "type": "scatter", "mode": "markers", "name": name, "y": list(found),
                    "x": [getattr(row, part).value for row in found.values()],
                    "error_x": _error([getattr(row, part) for row in found.values()]) | {"color": colour},
                    "marker": {"size": 9, "color": colour, "symbol": symbol},
                }
                for name, part, colour, symbol in (
                    ("with the view", "estimate", _BLUE, "circle"), ("blind", "blind", _GREY, "line-ns-open"),
                    ("ring without the household", "without", _ORANGE, "diamond-open"),
                )
            ]  # fmt: skip
            layout = _layout(note, "", 120 + 28 * len(found))
            layout["yaxis"] |= {"autorange": "reversed", "categoryorder": "array", "categoryarray": list(found)}
            yield Chart(title, note, {"data": traces, "layout": layout})


def _linkage(results: Results) -> Iterator[Chart]:
    rows = sorted(
        results.find(scheme="pseudonyms-tr03109", attack="linkage"), key=lambda row: int(row.parameters["days"])
    )
    bills = sorted(results.find(attack="bills", metric="top1"), key=lambda row: -int(row.parameters["resolution_wh"]))
    timing = [
        row for row in results.find(attack="timing")
        if row.parameters["slots"] == max(each.parameters["slots"] for each in results.find(attack="timing"))
    ]  # fmt: skip
    bars = [
        *((f"habits, {row.parameters['days']} d", row) for row in rows),
        *((f"bill at {row.parameters['resolution_wh'] / 1000:g} kWh", row) for row in bills),
        *((f"timing: {SCHEMES[row.scheme].name.removeprefix('pseudonyms-')}", row) for row in timing),
    ]
    if not bars:
        return
    traces = [
        {
            "type": "bar", "x": [name for name, _ in bars], "y": [row.estimate.value for _, row in bars],
            "error_y": _error([row.estimate for _, row in bars]), "marker": {"color": _BLUE}, "name": "found",
        },
        {
            "type": "scatter", "mode": "markers", "x": [name for name, _ in bars], "name": "by chance",
            "y": [row.blind.value for _, row in bars],
            "marker": {"color": _GREY, "symbol": "line-ew-open", "size": 18, "line": {"width": 2}},
        },
    ]  # fmt: skip
    households = bars[0][1].parameters["households"]
    layout = _layout("", "households found, top-1")
    layout["yaxis"] |= {"range": [0, 1.05], "tickformat": ".0%"}
    yield Chart("Whose is this pseudonym", f"out of {households} households", {"data": traces, "layout": layout})


def _differencing(results: Results) -> Iterator[Chart]:
    rows = results.find(attack="differencing")
    plain = [row for row in rows if row.parameters["kind"].startswith("power")]
    if plain:
        traces = []
        for index, slot_s in enumerate(sorted({row.parameters["slot_s"] for row in plain}, reverse=True)):
            found = [row for row in plain if row.parameters["slot_s"] == slot_s]
            traces.append(_line(f"{slot_s} s", *_by_members(found), _TONES[index]))
        layout = _layout("members of the ring", "correlation with the true curve")
        layout["xaxis"] |= {"type": "log", "tickvals": [5, 24, 64]}
        layout["yaxis"] |= {"range": [0, 1.02]}
        yield Chart(
            "Differencing",
            "a total with the household less the next one without it",
            {"data": traces, "layout": layout},
        )
    designed = [row for row in rows if not row.parameters["kind"].startswith("power")]
    if designed:
        traces = []
        for index, members in enumerate(sorted({row.parameters["members"] for row in designed})):
            found = [row for row in designed if row.parameters["members"] == members]
            traces.append({
                "type": "bar", "orientation": "h", "name": f"ring of {members}", "marker": {"color": _TONES[index]},
                "y": [row.parameters["kind"] for row in found], "x": [row.estimate.value for row in found],
                "error_x": _error([row.estimate for row in found]),
            })  # fmt: skip
        blind = max(row.blind.value for row in designed)
        line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": blind, "x1": blind,
                "line": {"color": _GREY, "dash": "dot", "width": 2}}  # fmt: skip
        layout = _layout("correlation with the true curve", "", barmode="group", shapes=[line])
        layout["yaxis"] |= {"autorange": "reversed"}
        yield Chart(
            "A coordinator that designs rosters",
            "best linear attacker on energy totals; dotted: blind",
            {"data": traces, "layout": layout},
        )


def _noise(results: Results) -> Iterator[Chart]:
    rows = results.find(scheme="ring-noise", attack="identification")
    errors = results.find(scheme="ring-noise", metric="total_error_share")
    if not rows:
        return
    price = {(row.parameters["epsilon"], row.parameters["members"]): row.estimate.value for row in errors}
    traces = []
    for index, members in enumerate(sorted({row.parameters["members"] for row in rows})):
        found = sorted(
            (row for row in rows if row.parameters["members"] == members),
            key=lambda row: float(row.parameters["epsilon"]),
        )
        x = [price.get((row.parameters["epsilon"], members), math.nan) for row in found]
        text = [f"ε {row.parameters['epsilon']:g}" for row in found]
        traces.append(
            _line(f"{members} households", x, found, _TONES[index], text=text, mode="lines+markers+text")
            | {"textposition": "top center"}
        )
    layout = _layout("error of a total, share of its mean, logarithmic", "advantage 2p - 1", shapes=[_zero()])
    layout["xaxis"] |= {"type": "log", "tickvals": _TICKS, "tickformat": ".0%"}
    yield Chart("Noise and its price", "ε of one total, sensitivity 15 kW", {"data": traces, "layout": layout})


def _costs(results: Results) -> Iterator[Chart]:
    rows = {row.scheme: row for row in results.find(attack="utility", metric="cpu_ms")}
    sent = {row.scheme: row for row in results.find(attack="utility", metric="sent_bytes")}
    if not rows:
        return
    names = sorted(rows, key=lambda name: rows[name].estimate.value)
    traces = [
        {
            "type": "bar", "orientation": "h", "y": [SCHEMES[name].title for name in names], "name": title,
            "x": [found[name].estimate.value for name in names], "marker": {"color": colour}, "xaxis": axis,
        }
        for title, found, colour, axis in (("CPU, ms", rows, _BLUE, "x"), ("bytes", sent, _ORANGE, "x2"))
    ]  # fmt: skip
    traces[1]["yaxis"] = "y"
    layout = _layout("", "", 120 + 30 * len(names), showlegend=False)
    layout["xaxis"] |= _log("CPU ms a meter and slot") | {"domain": [0, 0.47]}
    layout["xaxis2"] = _log("bytes a meter and slot") | {"domain": [0.53, 1], "gridcolor": "#e6e9ee"}
    yield Chart(
        "Cost of the cryptography", "all parties together, real code, keys and setup of one day included",
        {"data": traces, "layout": layout}, True,
    )  # fmt: skip
