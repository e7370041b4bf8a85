"""
Do the rules for returns and carried energy hide a household whose rosters a coordinator chooses?

The best linear attacker on energy totals of a week, with the protocol's own rules played: with a household that is
taken out and in as often as they allow, by rounds that are falsely void too, it must do at most `MORE_MAX` better than
with nobody left out.  `make acceptance-discipline`; ends with 1 where it does not hold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from loadtest.lab.discipline import Returns
from loadtest.lab.experiments.rosters import DESIGNED, MORE_MAX, NOBODY, designed_rows
from loadtest.lab.settings import Lab, Row, Settings

SETTINGS = Settings(households=1000, days=7, slot_s=900, targets=50, processes=1)


def excesses(rows: Sequence[Row], more_max: float = MORE_MAX) -> list[str]:
    """Which strategies against the present rules do better than they may, in sentences."""
    present = {name for name, returns, _ in DESIGNED if returns is Returns.LIMITED}
    nobody = {row.parameters["members"]: row.estimate.value for row in rows if row.parameters["kind"] == NOBODY}
    return [
        f"{row.parameters['kind']}, {row.parameters['members']} members: correlation {row.estimate.value:.3f}, expected"
        f" at most {nobody[row.parameters['members']] + more_max:.3f}"
        for row in rows
        if row.parameters["kind"] in present and row.estimate.value > nobody[row.parameters["members"]] + more_max
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--households", type=int, default=SETTINGS.households, help="in the area under attack")
    parser.add_argument("--days", type=int, default=SETTINGS.days, help="of totals that the attacker gets")
    parser.add_argument("--seed", type=int, default=SETTINGS.seed, help="of the households")
    asked = parser.parse_args(arguments)
    console = Console()
    with console.status("the best linear attacker, strategy by strategy"):
        rows = designed_rows(Lab(replace(SETTINGS, households=asked.households, days=asked.days, seed=asked.seed)))
    table = Table("members", "who is in the totals", "correlation", "blind", title="Energy totals at 900 s")
    for row in rows:
        own = row.estimate
        table.add_row(
            str(row.parameters["members"]), row.parameters["kind"], f"{own.value:.3f} [{own.low:.3f}, {own.high:.3f}]",
            f"{row.blind.value:.3f}",
        )  # fmt: skip
    console.print(table)
    found = excesses(rows)
    for each in found:
        console.print(f"FAILED: {each}", style="bold red")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
