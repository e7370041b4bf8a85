"""The list of explained mutants is about the source as it is; `make mutate` holds it to a run."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from mutation.survivors import Mutant, annotation_spans, as_toml, compare, explained, from_diff, within

ROOT = Path(__file__).parents[2]
MACHINES = ROOT / "protocol" / "dcnet" / "machines"
SOURCES = [
    (MACHINES / name).read_text(encoding="utf-8") for name in ("member.py", "member_attempt.py", "member_states.py")
]


def lines_by_definition(*sources: str) -> dict[str, set[str]]:
    """The stripped lines of each function and class, and of the modules all of them."""
    found: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        lines = [line.strip() for line in source.splitlines()]
        found["module"].update(lines)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name].update(lines[node.lineno - 1 : node.end_lineno])
    return found


def test_every_explained_mutant_changes_a_line_that_is_there() -> None:
    known = explained(ROOT / "docs" / "explanation" / "mutation.toml")
    lines = lines_by_definition(*SOURCES)
    assert len(known) > 40
    assert [each for each in known if each.before not in lines[each.definition] or each.before == each.after] == []
    assert all(len(why.split()) > 2 for why in known.values())


def test_a_line_that_has_changed_is_seen() -> None:
    lines = lines_by_definition(*(each.replace("if term > self.term:", "if self.term < term:") for each in SOURCES))
    assert "if term > self.term:" not in lines["_on_appointed"]


def test_an_unexplained_survivor_and_an_idle_explanation_are_told_apart() -> None:
    one, two = Mutant("f", "core/X", "a + b", "a - b"), Mutant("f", "core/X", "a + b", "a * b")
    assert compare([one], [one]) == ([], [])
    assert compare([one, two], [two]) == ([one], [])
    assert compare([], [two]) == ([], [two])


def test_a_mutant_is_read_from_its_diff_and_written_as_toml(tmp_path: Path) -> None:
    diff = '--- mutation diff ---\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-    return b"\\n" + a\n+    return b"\\n" - a'
    mutant = from_diff("f", "core/Sub", diff)
    assert mutant == Mutant("f", "core/Sub", 'return b"\\n" + a', 'return b"\\n" - a')
    listed = tmp_path / "list.toml"
    listed.write_text(f'[[explained]]\nwhy = "never called"\nmutants = [\n{as_toml([mutant])}\n]\n')
    assert explained(listed) == {mutant: "never called"}


def test_annotations_are_where_nothing_is_evaluated() -> None:
    source = (
        "from __future__ import annotations\ndef f(a: int | None = 1 | 2) -> int | str:\n    b: int | None = a | 3\n"
    )
    bars = [
        (number, column)
        for number, line in enumerate(source.splitlines(), 1)
        for column, sign in enumerate(line)
        if sign == "|"
    ]
    assert [within(bar, annotation_spans(source)) for bar in bars] == [True, False, True, True, False]
    with pytest.raises(ValueError, match="are evaluated"):
        annotation_spans(source.partition("\n")[2])
