"""A run: what the tests do on the code as it is, then each change, with a progress bar, into the session."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mutation.coverage_table import CoverageTable, file_of, measure
from mutation.forks import Ended, in_a_process
from mutation.outcomes import Outcome, Session
from mutation.places import Place
from mutation.report import CONSOLE
from mutation.survivors import Mutant
from mutation.trials import Trial, outcome_of, try_anew, try_in_place

# What the machines' imports take longest for, and no change is made in: loaded once.
_LOADED_BEFORE = ("hypothesis", "numpy", "msgpack", "nacl.bindings", "cryptography.hazmat.primitives.asymmetric.x25519")


class _Bar:
    """A progress bar without a thread, since its process is forked."""

    def __init__(self, what: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=CONSOLE, auto_refresh=False,
        )  # fmt: skip
        self._task = self._progress.add_task(what, note="")

    def begin(self, total: int) -> None:
        """Show it: nothing of so many is done."""
        self._progress.update(self._task, total=total)
        self._progress.start()

    def move(self, note: str = "") -> None:
        """One more is done."""
        self._progress.update(self._task, advance=1, note=note, refresh=True)

    def end(self) -> None:
        """Leave it as it is."""
        self._progress.stop()


def measure_tests(session: Session, config: dict[str, Any], jobs: int) -> None:
    """Keep which tests run which lines; in a process of its own, which it leaves with all modules loaded."""
    bar = _Bar("tests on the code as it is")
    table = measure(session.tree, config["modules"], config["tests"], jobs, bar.begin, bar.move)
    bar.end()
    session.table.write_text(table.as_json(), encoding="utf-8")


def try_places(session: Session, tests: Sequence[str], places: Sequence[Place], options: argparse.Namespace) -> None:
    """
    Try what has no outcome: inside functions in place, then the rest, and what lived but ran in imports, anew.

    Each by its quickest tests that compute for `options.budget` s in all, or by those of the files that `options.test`
    names; what lived with fewer tests has no outcome.
    """
    table = CoverageTable(**json.loads(session.table.read_text(encoding="utf-8")))
    known = session.outcomes()
    budget_s = 0.0 if options.test else options.budget

    def trial(place: Place) -> Trial:
        ran = table.tests_of(str(place.module), place.lines) if place.function else table.quickest_first()
        chosen = table.within(options.budget, [each for each in ran if options.test in file_of(each)])
        limits_s = table.limits_s(chosen)
        return Trial(place.key, str(place.module), place.function, chosen, limits_s, budget_s, place.change)

    pending = [place for place in places if place.key not in known or known[place.key].is_pending(options.budget)]
    for place in pending:
        if place.is_annotation:
            nothing = Mutant(place.definition, place.operator, "", "")
            session.add(Outcome(*place.key, session.text_of(str(place.module)), "in an annotation", nothing))
    pending = [place for place in pending if not place.is_annotation]
    if inside := [trial(place) for place in pending if place.function]:
        in_a_process(partial(_in_place, session, tests, inside, options.jobs))
    known = session.outcomes()
    anew = [trial(place) for place in pending if not place.function]
    for place in places:
        lived = place.function and known[place.key].verdict == "alive" and not known[place.key].is_anew
        if lived and table.is_imported(str(place.module), place.lines):
            anew.append(trial(place))
    if anew:
        _anew(session, anew, options.jobs)


def _in_place(session: Session, tests: Sequence[str], trials: Sequence[Trial], jobs: int) -> None:
    bar = _Bar("changes inside functions")
    bar.begin(len(trials))
    try_in_place(session.tree, tests, trials, jobs, _keep(session, bar, is_anew=False))
    bar.end()


def _anew(session: Session, trials: Sequence[Trial], jobs: int) -> None:
    for each in _LOADED_BEFORE:
        importlib.import_module(each)
    bar = _Bar("changes that are imported anew")
    bar.begin(len(trials))
    try_anew(session.tree, trials, jobs, _keep(session, bar, is_anew=True))
    bar.end()


def _keep(session: Session, bar: _Bar, *, is_anew: bool) -> Callable[[Ended[Trial]], None]:
    alive = 0

    def keep(ended: Ended[Trial]) -> None:
        nonlocal alive
        verdict, told, by = outcome_of(ended)
        mutant = Mutant(*told) if told else Mutant("", ended.task.key[1], "", "")
        trial, text = ended.task, session.text_of(ended.task.module)
        session.add(Outcome(*trial.key, text, verdict, mutant, by, is_anew=is_anew, budget_s=trial.budget_s))
        alive += verdict == "alive"
        bar.move(f"{alive} survive")

    return keep
