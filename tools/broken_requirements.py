"""
Break one requirement at a time in a copy of the tree, and see the test fail that docs/reference/conformance.md names.

    python -m tools.broken_requirements                       every entry of tests/data/broken_requirements.toml
    python -m tools.broken_requirements REQ.TA.NTP.BuildRequest.10     this one alone

First the tests run on the copy as it is, where all have to pass.  A test shows its requirement if it then fails in its
own call, by what it asserts: a module that cannot be imported, a name that is not there or a fixture that breaks shows
nothing.  Exits with 1 where a test passes, fails otherwise, or runs longer than `--limit-s`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final
from xml.etree import ElementTree

import typer
from rich.console import Console
from rich.table import Table

from tools.conformance import ROOT, Breakage, breakages

_FAILED: Final = 1  # pytest: tests were run, and some failed
_NO_ASSERTION: Final = ("ImportError", "ModuleNotFoundError", "SyntaxError", "NameError", "AttributeError", "TypeError")
_WORDS_MAX: Final = 100
_WIDTH: Final = 200  # of the table in a file


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether a run of tests fits what was expected, and in words what became of it."""

    is_expected: bool
    detail: str


def copy_tree(root: Path, target: Path) -> None:
    """Copy what git tracks of the tree, and new files that it does not ignore, as they are in the working tree."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True)  # noqa: S603 - git of this tree
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (source := root / name).is_file():  # deleted and not committed: still tracked
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


class Tree:
    """A copy of the tree in which tests are run; `limit_s` is what a run may take."""

    def __init__(self, path: Path, limit_s: float) -> None:
        self._path = path
        self._limit_s = limit_s

    def as_it_is(self, tests: list[str]) -> Outcome:
        """Run tests without a change: they have to pass."""
        status, failures, _ = self._run(tests)
        return Outcome(status == 0, "pass" if status == 0 else f"status {status}: {'; '.join(failures) or 'no report'}")

    def broken(self, each: Breakage) -> Outcome:
        """Make a change, run its test, take the change back.  Raises ValueError where the text is not there once."""
        file = self._path / each.file
        before = file.read_text(encoding="utf-8")
        if before.count(each.old) != 1:
            raise ValueError(f"{each.requirement}: the old text is in {each.file} {before.count(each.old)} times")
        try:
            self._write(file, before.replace(each.old, each.new))
            status, failures, errors = self._run([each.test])
        finally:
            self._write(file, before)
        if status is None:
            return Outcome(False, f"not over after {self._limit_s:.0f} s")
        if status == 0:
            return Outcome(False, "passes although the requirement is broken")
        wrong = [text for text in failures if text.startswith(_NO_ASSERTION)]
        if status != _FAILED or errors or not failures or wrong:
            return Outcome(False, f"status {status}, shows nothing: {'; '.join(wrong or errors) or 'no test failed'}")
        return Outcome(True, failures[0])

    def _write(self, file: Path, text: str) -> None:
        file.write_text(text, encoding="utf-8")
        # Compiled code is known by its source's size and second, which both may stay.
        Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)

    def _run(self, tests: list[str]) -> tuple[int | None, list[str], list[str]]:
        """The exit status, None for none in time; what failed in calls, and what around them."""
        report = self._path / "broken_requirements.xml"
        report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
        process = subprocess.Popen(  # noqa: S603 - pytest of this environment
            command, cwd=self._path, env=os.environ | {"PYTHONPATH": str(self._path)}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            status: int | None = process.wait(self._limit_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if not report.exists():
            return status, [], []
        cases = ElementTree.parse(report).getroot()  # noqa: S314 - pytest's own, just written
        failures, errors = ([_first_line(each) for each in cases.iter(kind)] for kind in ("failure", "error"))
        return status, failures, errors


def _first_line(element: ElementTree.Element) -> str:
    return element.get("message", "").partition("\n")[0][:_WORDS_MAX]


def _report(console: Console, outcomes: list[tuple[Breakage, Outcome]]) -> None:
    table = Table("requirement", "broken so that", "test", "outcome")
    for each, outcome in outcomes:
        name = each.test.rpartition("/")[2]
        mark = "fails: " if outcome.is_expected else "NOT SHOWN: "
        table.add_row(each.requirement, each.change, name, mark + outcome.detail.replace("[", r"\["))
    console.print(table)
    shown = sum(outcome.is_expected for _, outcome in outcomes)
    console.print(f"{shown} of {len(outcomes)} broken requirements make their test fail.")


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Requirements to break; all of the sample without.")] = None,
    limit_s: Annotated[float, typer.Option(help="What one run of tests may take.")] = 900.0,
) -> None:
    """Break the requirements of the sample, one at a time; exits with 1 where a test does not notice."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # the copy goes, and the tests that run in it
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    chosen = [each for each in breakages() if not names or each.requirement in names]
    if unknown := set(names or ()) - {each.requirement for each in chosen}:
        raise typer.BadParameter(f"not in the sample: {', '.join(sorted(unknown))}")
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="broken-requirements-") as folder:
        tree = Tree(Path(folder), limit_s)
        copy_tree(ROOT, Path(folder))
        console.print(f"{len(chosen)} requirements; first their tests on the code as it is")
        sound = tree.as_it_is(sorted({each.test for each in chosen}))
        if not sound.is_expected:
            console.print(f"The tests do not pass on the code as it is ({sound.detail}); nothing can be shown.")
            raise typer.Exit(1)
        for number, each in enumerate(chosen, 1):
            outcome = tree.broken(each)
            outcomes.append((each, outcome))
            console.print(
                f"{number}/{len(chosen)} {each.requirement}: {'fails' if outcome.is_expected else 'NOT SHOWN'}",
                highlight=False,
            )
    _report(console, outcomes)
    raise typer.Exit(0 if all(outcome.is_expected for _, outcome in outcomes) else 1)


if __name__ == "__main__":
    typer.run(main)
