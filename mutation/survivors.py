"""
What a mutant is called, and which ones are explained.

A mutant is known by the file and the definition that it lies in, its operator and the text of its line before and
after: by no line number, so that an edit elsewhere leaves the list of explained ones as it is.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Mutant(NamedTuple):
    """One change of a file's source; lines without their indentation, several of them joined by a blank."""

    definition: str
    operator: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A reason that holds for operators wherever the line before the change matches a pattern."""

    why: str
    operators: frozenset[str]
    line: re.Pattern[str]

    def explains(self, mutant: Mutant) -> bool:
        """Whether it is the reason of this one."""
        return mutant.operator in self.operators and self.line.search(mutant.before) is not None


@dataclass(frozen=True, slots=True)
class Explained:
    """The survivors of docs/explanation/mutation.toml, by file, each with the reason why nothing can notice it."""

    by_file: Mapping[str, Mapping[Mutant, str]]
    rules: tuple[Rule, ...]

    def why(self, file: str, mutant: Mutant) -> str | None:
        """The reason of one; None where nothing explains it."""
        listed = self.by_file.get(file, {}).get(mutant)
        return listed or next((rule.why for rule in self.rules if rule.explains(mutant)), None)

    def idle(self, file: str, alive: Set[Mutant], noticed: Set[Mutant], *, is_whole: bool) -> list[Mutant]:
        """What is listed of a file and was noticed; of one that was tried as a whole, also what is no mutant of it."""
        listed = set(self.by_file.get(file, {})) - alive
        return sorted(listed if is_whole else listed & noticed)


def explained(path: Path) -> Explained:
    """
    Read the list.  `[[rule]]` has `why`, `operators` and `line`, a pattern; `[["FILE"]]` has `why` and `mutants`.

    Raises ValueError for one that is listed twice.
    """
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    rules = tuple(
        Rule(each["why"], frozenset(f"core/{name}" for name in each["operators"]), re.compile(each["line"]))
        for each in document.pop("rule", ())
    )
    files: dict[str, dict[Mutant, str]] = {}
    for file, groups in document.items():
        listed = files[file] = dict[Mutant, str]()
        for group in groups:
            for mutant in (Mutant(*names) for names in group["mutants"]):
                if mutant in listed:
                    raise ValueError(f"listed twice in {file}: {mutant}")
                listed[mutant] = group["why"]
    return Explained(files, rules)


def as_toml(mutants: Iterable[Mutant]) -> str:
    """The mutants as docs/explanation/mutation.toml lists them."""
    quoted = (tuple(part.replace("\\", "\\\\").replace('"', '\\"') for part in each) for each in mutants)
    return "\n".join("  [" + ", ".join(f'"{part}"' for part in each) + "]," for each in quoted)
