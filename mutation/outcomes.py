"""
What became of each change, kept as it is known: an interrupted run goes on where it stopped.

A session is for exactly these sources and tests, and has a copy of them, so that an edit disturbs no run.  It is a
folder of its own: the copy (`tree`), what the tests ran (`tests.json`), a line for each change (`outcomes.jsonl`).
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mutation.survivors import Mutant

Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What became of a change: `verdict` is one of KILLED, `alive`, `in an annotation` or `not tried`.

    `by` is the test that failed, or why it was not tried; `text` stands for the module's text that it is a change of;
    `is_older` says that other tests, or other sources beside it, decided so, `is_anew` that all was imported anew.
    Only the quickest tests were run, that compute for `budget_s` in all.
    """

    module: str
    operator: str
    occurrence: int
    text: str
    verdict: str
    mutant: Mutant
    by: str = ""
    is_older: bool = False
    is_anew: bool = False
    budget_s: float = math.inf

    @property
    def key(self) -> Key:
        """The change."""
        return self.module, self.operator, self.occurrence

    def is_pending(self, budget_s: float) -> bool:
        """Whether it was not tried, or lived with fewer tests than `budget_s` has room for."""
        return self.verdict == "not tried" or (self.verdict == "alive" and self.budget_s < budget_s)


KILLED = ("killed", "killed by the clock")


def digest_of(root: Path, sources: Iterable[str], *more: str) -> str:
    """What the outcomes depend on: the sources that the tests import, the tests, and how they are run."""
    value = hashlib.sha256(repr(more).encode())
    for source in sources:
        path = root / source
        for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if each.is_file() and "__pycache__" not in each.parts:
                value.update(str(each.relative_to(root)).encode() + b"\0" + each.read_bytes())
    return value.hexdigest()[:16]


class Session:
    """The one in a folder, which is made where it is missing."""

    def __init__(self, folder: Path, root: Path, sources: Sequence[str]) -> None:
        self.tree = folder / "tree"
        self.table = folder / "tests.json"
        self._outcomes = folder / "outcomes.jsonl"
        if not self.tree.is_dir():
            shutil.rmtree(unfinished := folder / "unfinished", ignore_errors=True)
            for source in sources:
                (unfinished / source).parent.mkdir(parents=True, exist_ok=True)
                if (root / source).is_dir():
                    shutil.copytree(root / source, unfinished / source, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy2(root / source, unfinished / source)
            unfinished.rename(self.tree)

    def text_of(self, module: str) -> str:
        """What stands for a module's text."""
        return hashlib.sha256((self.tree / module).read_bytes()).hexdigest()[:16]

    def add(self, outcome: Outcome) -> None:
        """Keep what is known of a change."""
        with self._outcomes.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(asdict(outcome)))  # what a stopped run left half written ends here

    def outcomes(self) -> dict[Key, Outcome]:
        """The last one of each change.  A line that a stopped run left half written counts as none."""
        found = {}
        if self._outcomes.exists():
            for line in self._outcomes.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                outcome = Outcome(**(row | {"mutant": Mutant(*row["mutant"])}))
                found[outcome.key] = outcome
        return found

    def take_kills(self, others: Iterable[Session], modules: Iterable[str]) -> int:
        """Take over what earlier sessions killed in modules of the same text, and is not known here; how many."""
        known, count = self.outcomes(), 0
        texts = {each: self.text_of(each) for each in modules if (self.tree / each).exists()}
        for other in others:
            for key, outcome in other.outcomes().items():
                if key not in known and outcome.verdict in KILLED and outcome.text == texts.get(outcome.module):
                    known[key] = replace(outcome, is_older=True)
                    self.add(known[key])
                    count += 1
        return count
