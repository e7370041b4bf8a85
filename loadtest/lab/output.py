"""Results as files: `lab.json` with everything, tidy `lab.csv`, and `lab.md`, tables for a paper."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from io import StringIO
from pathlib import Path

from loadtest.lab.claims import Claim
from loadtest.lab.metrics import Estimate
from loadtest.lab.run import Results
from loadtest.lab.settings import Row

_PARAMETERS = (
    "members", "slot_s", "days", "appliance", "knows", "epsilon", "kind", "households", "slots", "resolution_wh",
    "tariff", "rules", "effective_intervals", "capacity_kwh", "reference",
)  # fmt: skip


def write(results: Results, claims: Sequence[Claim], out: Path) -> None:
    """All three; a file is replaced as a whole."""
    document = results.as_json() | {
        "claims": [
            {"number": each.number, "text": each.text, "verdict": each.verdict,
             "figures": [_finite(asdict(figure)) for figure in each.figures]}
            for each in claims
        ]
    }  # fmt: skip
    _replace(out / "lab.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    _replace(out / "lab.csv", tidy(results.rows))
    _replace(out / "lab.md", tables(results, claims))


def _finite(value: object) -> object:
    """JSON has no infinity: None."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _replace(path: Path, text: str) -> None:
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def tidy(rows: Iterable[Row]) -> str:
    """One row a result, one column a variable."""
    text = StringIO()
    names = (
        "scheme", "coalition", "attack", "metric", "value", "low", "high", "blind_value", "blind_low", "blind_high",
        "without_value", "without_low", "without_high", "count", *_PARAMETERS,
    )  # fmt: skip
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        flat = row.flat()
        writer.writerow({**{key: value for key, value in flat.items() if key != "parameters"}, **flat["parameters"]})
    return text.getvalue()


def shown(estimate: Estimate) -> str:
    """A value with its interval, as short as it is true."""
    if math.isnan(estimate.value):
        return "-"
    if estimate.low == estimate.high:
        return f"{estimate.value:,.0f}" if estimate.value.is_integer() else _figure(estimate.value)
    return f"{_figure(estimate.value)} [{_figure(estimate.low)}, {_figure(estimate.high)}]"


def _figure(value: float) -> str:
    """Three digits that count, never as a power of ten, none below a thousandth."""
    if math.isinf(value):
        return "∞"
    decimals = 0 if not value else min(3, max(0, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:,.{decimals}f}"


def tables(results: Results, claims: Sequence[Claim]) -> str:
    """Claims, what attacks make of the EMP's view, and coalitions."""
    settings = results.settings
    lines = [
        "# Privacy lab", "",
        f"{settings.households} households, {settings.days} days at {settings.slot_s} s, sums of "
        f"{settings.group_size}, seed {settings.seed}; {results.source}. Intervals are 95 %.", "",
        "## Claims", "", "| | claim | verdict | figure | value | expected |", "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for claim in claims:
        head = f"| {claim.number} | {claim.text} | {claim.verdict} "
        for figure in claim.figures or ():
            mark = "" if figure.is_met else " (not met)"
            lines.append(f"{head}| {figure.what} | {shown(figure.estimate)} | {figure.expected}{mark} |")
            head = "| | | "
        if not claim.figures:
            lines.append(f"{head}| | | |")
    lines += ["", "## Attacks", "", "| scheme | coalition | attack | metric | of | value | blind | without |",
              "| --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for row in results.rows:
        of = ", ".join(f"{key} {value}" for key, value in row.parameters.items())
        lines.append(
            f"| {row.scheme} | {row.coalition} | {row.attack} | {row.metric} | {of} | {shown(row.estimate)} "
            f"| {shown(row.blind)} | {shown(row.without)} |"
        )
    lines += ["", "## Coalitions", "", "| scheme | coalition | opens | as |", "| --- | --- | --- | --- |"]
    for each in results.exposures:
        kind = f"sum of {each.members}" if each.kind == "sum" else each.kind
        lines.append(f"| {each.scheme} | {each.coalition} | {each.what} | {kind} |")
    return "\n".join(lines) + "\n"
