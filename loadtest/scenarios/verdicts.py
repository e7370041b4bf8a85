"""Load tests beside each other, a line for each: whether it was exact, what was void and why, what the machine did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loadtest.scenarios.scaling import Run

_COLUMNS = (
    "scenario", "day", "gateways, processes", "rounds", "exact", "Wh lost", "ring rounds opened, void", "why void",
    "whole again after each fault", "took", "load", "verdict",
)  # fmt: skip


def verdict_lines(runs: Sequence[Run]) -> list[str]:
    """Markdown, by scenario and size."""
    ordered = sorted(runs, key=lambda run: (run.values["scenario"]["name"], run.gateways))
    return [_line(_COLUMNS), _line(["---"] * len(_COLUMNS)), *(_line(_cells(run.values)) for run in ordered)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(values: Mapping[str, Any]) -> list[str]:
    void = "; ".join(f"{count} {reason}" for reason, count in values["void_by_reason"].items())
    return [
        values["scenario"]["name"], values["started_at"][:10], f"{values['gateways']:,}, {values['processes']}",
        f"{len(values['intervals'])} of {values['period_s']:g} s", _exact(values),
        f"{values['conservation_error_wh']:g}", f"{values['opened']:,}, {values['void']:,}", void or "none",
        "; ".join(map(_fault, values["faults"])) or "no fault", f"{values['took_s']:.0f} s",
        " to ".join(f"{each:g}" for each in values["load"]), "; ".join(values["failures"]) or "passed",
    ]  # fmt: skip


def _exact(values: Mapping[str, Any]) -> str:
    if not values["opened"]:
        return "no total"
    return "yes" if values["is_exact"] else "NO"


def _fault(fault: Mapping[str, Any]) -> str:
    after = fault["whole_after_rounds"]
    return f"{fault['action']}: " + ("not in this run" if after is None else f"round {after + 1}")
