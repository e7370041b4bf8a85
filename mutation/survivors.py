"""
What a mutant is called, which ones are explained, and which lie where nothing is ever evaluated.

A mutant is known by the definition that it lies in, its operator and the text of its line before and after: by no
line number, so that an edit elsewhere leaves the list of explained ones as it is.
"""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

Place = tuple[int, int]  # line from 1, column from 0


class Mutant(NamedTuple):
    """One change of the source; lines without their indentation, several of them joined by a blank."""

    definition: str
    operator: str
    before: str
    after: str


def from_diff(definition: str | None, operator: str, diff: str) -> Mutant:
    """The mutant behind a unified diff of one change."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    before, after = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return Mutant(definition or "module", operator, before, after)


def explained(path: Path) -> dict[Mutant, str]:
    """The survivors of docs/explanation/mutation.toml, each with the reason why nothing can notice it."""
    groups = tomllib.loads(path.read_text(encoding="utf-8"))["explained"]
    return {Mutant(*names): group["why"] for group in groups for names in group["mutants"]}


def compare(survivors: Iterable[Mutant], known: Iterable[Mutant]) -> tuple[list[Mutant], list[Mutant]]:
    """The survivors that nothing explains, and the explanations that explain no survivor."""
    here, there = set(survivors), set(known)
    return sorted(here - there), sorted(there - here)


def annotation_spans(source: str) -> list[tuple[Place, Place]]:
    """Where the type annotations of a module stand.  Raises ValueError for a module that evaluates them."""
    tree = ast.parse(source)
    if not any(isinstance(each, ast.ImportFrom) and each.module == "__future__" for each in tree.body):
        raise ValueError("annotations are evaluated here: their mutants count")
    found: list[ast.expr | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.arg):
            found.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node.returns)
    return [
        ((each.lineno, each.col_offset), (each.end_lineno or each.lineno, each.end_col_offset or 0))
        for each in found
        if each is not None
    ]


def within(place: Place, spans: Sequence[tuple[Place, Place]]) -> bool:
    """Whether a place lies in one of the spans."""
    return any(start <= place < end for start, end in spans)


def as_toml(mutants: Iterable[Mutant]) -> str:
    """The mutants as docs/explanation/mutation.toml lists them."""
    quoted = (tuple(part.replace("\\", "\\\\").replace('"', '\\"') for part in each) for each in mutants)
    return "\n".join("  [" + ", ".join(f'"{part}"' for part in each) + "]," for each in quoted)


def tally(outcomes: Iterable[str]) -> str:
    """How many mutants came to which end, in words."""
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(Counter(outcomes).items()))
