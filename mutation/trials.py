"""
Whether a test fails when a line is another: each change is tried in a process of its own.

A change inside a function is put into a process that has everything loaded, as the function's new code.  A change
elsewhere, or in what is run when a test is imported, wants everything imported anew.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from mutation.collection import Runner, collected
from mutation.coverage_table import file_of
from mutation.forks import Ended, fork_each, tell

ALIVE, KILLED = 0, 1
_IMPORTS_S = 120.0  # what imports and collection may take


@dataclass(frozen=True, slots=True)
class Trial:
    """
    A change to be tried by some tests, those that `budget_s` has room for.

    `change` makes it, and gives the module's new text and what to tell of it.
    """

    key: tuple[str, str, int]
    module: str
    function: str | None
    tests: list[str]
    limits_s: list[float]
    budget_s: float
    change: Callable[[], tuple[str, Sequence[str]]]

    def begin(self, fd: int) -> str:
        """The module's new text; tells the parent what has changed."""
        text, told = self.change()
        tell(fd, json.dumps(told) + "\n")
        return text


def try_in_place(
    tree: Path, tests: Sequence[str], trials: Sequence[Trial], jobs: int, done: Callable[[Ended[Trial]], None]
) -> None:
    """Try changes of functions' bodies; `done` is called as each ends.  Once in a process."""

    def loop(runner: Runner, items: dict[str, pytest.Item]) -> None:
        def work(trial: Trial, fd: int) -> int:
            text = trial.begin(fd)
            try:
                code = compile(text, str(tree / trial.module), "exec")
            except SyntaxError:
                return KILLED
            replace_function(sys.modules[module_name(trial.module)], trial.function or "", code)
            if runner.run([items[name] for name in trial.tests], trial.limits_s):
                return ALIVE
            tell(fd, runner.failure.partition("\n")[0])
            return KILLED

        for each in fork_each(trials, jobs, work):
            done(each)

    if failure := collected(tree, tests, loop):
        sys.exit(f"the tests cannot be collected: {failure}")


def try_anew(tree: Path, trials: Sequence[Trial], jobs: int, done: Callable[[Ended[Trial]], None]) -> None:
    """Try changes of anything, each with everything imported anew; in a process that has imported none of it."""

    def work(trial: Trial, fd: int) -> int:
        signal.setitimer(signal.ITIMER_PROF, _IMPORTS_S)
        spec, text = _spec_of(module_name(trial.module)), trial.begin(fd)
        try:
            import_changed(spec, text)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody could import the module
            tell(fd, repr(error))
            return KILLED

        def loop(runner: Runner, items: dict[str, pytest.Item]) -> None:
            runner.run([items[name] for name in trial.tests], trial.limits_s)

        failure = collected(tree, sorted({file_of(name) for name in trial.tests}), loop)
        tell(fd, failure.partition("\n")[0])
        return KILLED if failure else ALIVE

    os.chdir(tree)
    for each in fork_each(trials, jobs, work):
        done(each)


def module_name(path: str) -> str:
    """The name of the module in a file, relative to the tree."""
    return path.removesuffix(".py").replace("/", ".")


def _spec_of(name: str) -> ModuleSpec:
    """Where a module is; its packages are imported."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(name)
    return spec


def import_changed(spec: ModuleSpec, text: str) -> None:
    """Import a module with another text than its file has.  Raises what running it raises."""
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    if spec.parent:
        setattr(sys.modules[spec.parent], spec.name.rpartition(".")[2], module)
    exec(compile(text, spec.origin or spec.name, "exec"), module.__dict__)  # noqa: S102 - that is what an import does


def replace_function(module: types.ModuleType, name: str, code: types.CodeType) -> None:
    """
    Give the function of a qualified name the code that it has in another compilation of its module.

    Raises LookupError where there is none in either.
    """
    found: Any = module
    for part in name.split("."):
        found = vars(found)[part]
    found = getattr(found, "fget", None) or getattr(found, "__func__", None) or found
    found = getattr(found, "__wrapped__", found)
    found.__code__ = _code_of(name, code)


def _code_of(name: str, code: types.CodeType) -> types.CodeType:
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            if each.co_qualname == name:
                return each
            if name.startswith(f"{each.co_qualname}."):
                return _code_of(name, each)
    raise LookupError(f"no function {name}")


def outcome_of(ended: Ended[Trial]) -> tuple[str, list[str], str]:
    """What became of a change; what was told of it; the test that failed, or why it was not tried."""
    first, _, rest = ended.output.decode(errors="replace").partition("\n")
    try:
        told = json.loads(first)
    except ValueError:
        told, rest = [], first + rest
    if ended.is_overdue:
        return "killed by the clock", told, ""
    known = {ALIVE: "alive", KILLED: "killed"}
    return (
        known.get(ended.status, "not tried"),
        told,
        rest or ("" if ended.status in known else f"status {ended.status}"),
    )
