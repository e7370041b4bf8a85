"""
The table of docs/reference/conformance.md: its rows, how many of each chapter are shown, and the sample that is broken.

    python -m tools.conformance                                        print counts and sample
    python -m tools.conformance --into docs/reference/conformance.md   write them between their marks

The sample is drawn by the SHA-256 of a seed and the id, so that a row that comes or goes changes no other's lot: of
each chapter every eighth requirement that is shown in full, at least one; one in part where none is in full.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "reference" / "conformance.md"
BREAKAGES: Final = ROOT / "tests" / "data" / "broken_requirements.toml"
SEED: Final = 11
_ONE_OF: Final = 8
_ROW = re.compile(r"\| (REQ\.\S+) \| (.*) \| (.*)\|")
_CHAPTER = re.compile(r"## Chapter (\d+)\b")
_TEST = re.compile(r"`(test_\w+\.py)::(\w+|\*)`")
_MARKED = re.compile(r"<!-- sample -->.*?<!-- end of sample -->", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Requirement:
    """
    One row: the id, its chapter, the tests that show it (file, and name or `*`), and the note beside them.

    A note that begins with "in part" says what is missing; any other one is a remark, or without tests why not.
    """

    id: str
    chapter: int
    tests: tuple[tuple[str, str], ...]
    note: str

    @property
    def is_full(self) -> bool:
        """Whether it is shown, and nothing is missing."""
        return bool(self.tests) and not self.note.startswith("in part")

    def is_shown_by(self, file: str, name: str) -> bool:
        """Whether the row names a test."""
        return (file, name) in self.tests or (file, "*") in self.tests


@dataclass(frozen=True, slots=True)
class Breakage:
    """
    How a requirement is broken: in `file`, `old` becomes `new`, and `test` (path and name) has to fail.

    `change` says it in words, beginning with what the gateway does then.
    """

    requirement: str
    file: str
    old: str
    new: str
    test: str
    change: str


def requirements(page: str | None = None) -> list[Requirement]:
    """The rows of the page, in its order."""
    found, chapter = [], 0
    text = PAGE.read_text(encoding="utf-8") if page is None else page
    for line in _MARKED.sub("", text).splitlines():
        if heading := _CHAPTER.match(line):
            chapter = int(heading[1])
        elif row := _ROW.fullmatch(line):
            tests = tuple((file, name) for file, name in _TEST.findall(row[2]))
            found.append(Requirement(row[1], chapter, tests, row[3].strip()))
    return found


def chapters(rows: list[Requirement]) -> dict[int, list[Requirement]]:
    """The rows of each chapter, in the order of chapters."""
    return {number: [row for row in rows if row.chapter == number] for number in sorted({row.chapter for row in rows})}


def sample(rows: list[Requirement], seed: int = SEED) -> list[Requirement]:
    """What is drawn of each chapter."""

    def lot(row: Requirement) -> bytes:
        return hashlib.sha256(f"{seed} {row.id}".encode()).digest()

    drawn: list[Requirement] = []
    for found in chapters(rows).values():
        shown = [row for row in found if row.is_full] or [row for row in found if row.tests][:1]
        drawn += sorted(shown, key=lot)[: -(-len(shown) // _ONE_OF)]
    return drawn


def breakages() -> list[Breakage]:
    """How each requirement of the sample is broken.  Raises TypeError for an entry with other keys."""
    entries = tomllib.loads(BREAKAGES.read_text(encoding="utf-8"))["requirement"]
    return [Breakage(requirement=name, **entry) for name, entry in entries.items()]


def _counts(rows: list[Requirement]) -> Iterator[str]:
    yield "| chapter | ids | in full | in part | not |"
    yield "| --- | --- | --- | --- | --- |"
    for number, found in [*chapters(rows).items(), ("all", rows)]:
        full, shown = sum(row.is_full for row in found), sum(bool(row.tests) for row in found)
        yield f"| {number} | {len(found)} | {full} | {shown - full} | {len(found) - shown} |"


def _broken() -> Iterator[str]:
    yield "| id | broken so that | in | test that fails |"
    yield "| --- | --- | --- | --- |"
    for each in breakages():
        file, _, name = each.test.rpartition("/")[2].partition("::")
        yield f"| {each.requirement} | {each.change} | `{each.file}` | `{file}::{name}` |"


def block() -> str:
    """Both tables with their marks."""
    tables = ["\n".join(_counts(requirements())), "\n".join(_broken())]
    return "<!-- sample -->\n" + "\n\n".join(tables) + "\n<!-- end of sample -->"


def renewed(page: str) -> str:
    """The page with both tables as rows and sample have them now."""
    return _MARKED.sub(lambda _: block(), page)


def main(into: Annotated[Path | None, typer.Option(help="Page to write the tables into.")] = None) -> None:
    """Print counts and sample, or write them into a page."""
    if into is None:
        typer.echo(block())
    else:
        into.write_text(renewed(into.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
