"""`lab.html`: one self-contained page; the chart library's JavaScript comes from the installed wheel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from loadtest.lab.claims import HOLDS, OPEN, Claim
from loadtest.lab.figures import charts
from loadtest.lab.output import shown
from loadtest.lab.run import Results
from loadtest.lab.schemes import SCHEMES
from loadtest.lab.views import ROLE_TITLES
from loadtest.report_page import write_report


class SchemeRow(NamedTuple):
    """A line of the table of schemes: what the EMP alone gets, who must collude to read a member, what to mind."""

    title: str
    source: str
    alone: str
    readers: str
    note: str


def scheme_rows(results: Results) -> list[SchemeRow]:
    """One line a scheme, from the coalitions that the derivation found."""
    lines = []
    for name in dict.fromkeys(each.scheme for each in results.exposures):
        mine = [each for each in results.exposures if each.scheme == name]
        scheme = SCHEMES[name]
        alone = [
            "totals of the ring" if each.kind == "sum"
            else f"every household's {'bill' if each.what == 'bill' else 'readings'}"
            + (" under a pseudonym" if each.kind == "pseudonym" else "")
            for each in mine if each.coalition == "emp"
        ]  # fmt: skip
        readers = [
            each.coalition.replace("+", " + ") for each in mine
            if each.kind == "named" and each.what == "reading"
        ]  # fmt: skip
        if scheme.local.__module__.endswith("schemes.base"):
            seen = "; ".join(alone) or "nothing"
        else:
            seen = "; ".join(alone).replace("readings", "masked load").replace("totals", "noisy totals")
        lines.append(
            SchemeRow(scheme.title, scheme.source, seen, ", ".join(readers) or "none of up to three", scheme.note)
        )
    return lines


def write_page(results: Results, claims: Sequence[Claim], path: Path) -> None:
    """Draw the results into one HTML file of some 5 MB."""
    drawn = list(charts(results))
    write_report(
        path, "loadtest.lab", [chart.figure for chart in drawn], results=results, settings=results.settings,
        claims=claims, holds=HOLDS, open=OPEN, shown=shown, charts=drawn, schemes=scheme_rows(results),
        roles=ROLE_TITLES,
    )  # fmt: skip
