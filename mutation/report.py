"""What a run has found, held to the list of explained survivors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mutation.outcomes import KILLED, Outcome, Session
from mutation.places import Place
from mutation.survivors import Explained, Mutant, as_toml

CONSOLE = Console()
_COLUMNS = ("changes", "killed", "killed by the clock", "alive, explained", "alive", "in an annotation", "not tried")


def report(session: Session, chosen: Mapping[str, Sequence[Place]], known: Explained, *, is_whole: bool) -> int:
    """Print counts by file, and what the list lacks or has too much; the exit status, 0 where nothing is amiss."""
    outcomes = session.outcomes()
    table = Table("file", *_COLUMNS, box=None)
    unexplained, idle, broken = dict[str, list[Mutant]](), dict[str, list[Mutant]](), list[Outcome]()
    for module, places in chosen.items():
        file = Path(module).name
        found = [outcomes[place.key] for place in places]
        alive = {each.mutant for each in found if each.verdict == "alive"}
        unexplained[file] = sorted(each for each in alive if known.why(file, each) is None)
        noticed = {each.mutant for each in found if each.verdict in KILLED} - alive
        idle[file] = known.idle(file, alive, noticed, is_whole=is_whole)
        broken += [each for each in found if each.verdict == "not tried"]
        counts = Counter(_column(each, known) for each in found)
        table.add_row(file, str(len(found)), *(str(counts[name]) for name in _COLUMNS[1:]))
    CONSOLE.print(table)
    if older := sum(outcomes[place.key].is_older for places in chosen.values() for place in places):
        CONSOLE.print(
            f"{older} of these kills are of earlier runs: with other tests, or other sources beside the file."
        )
    if fewer := sum(outcomes[place.key].is_pending(math.inf) for places in chosen.values() for place in places):
        CONSOLE.print(f"{fewer} of those that live were tried by some of their tests (--budget, --test).")
    _list("Nothing explains why these live; add a test, or a reason to docs/explanation/mutation.toml:", unexplained)
    _list("Listed in docs/explanation/mutation.toml, and no survivor:", idle)
    for each in broken:
        print(f"{each.module}, {each.operator} {each.occurrence} could not be tried: {each.by}")
    return int(bool(any(unexplained.values()) or any(idle.values()) or broken))


def _column(outcome: Outcome, known: Explained) -> str:
    is_explained = outcome.verdict == "alive" and known.why(Path(outcome.module).name, outcome.mutant) is not None
    return "alive, explained" if is_explained else outcome.verdict


def _list(what: str, mutants: Mapping[str, Sequence[Mutant]]) -> None:
    if any(mutants.values()):
        print(f"\n{what}")
    for file, each in mutants.items():
        if each:
            print(f'[["{file}"]]\nmutants = [\n{as_toml(each)}\n]')
