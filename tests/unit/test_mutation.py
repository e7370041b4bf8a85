"""`make mutate`: its list is about the sources as they are, and it finds what a small program's tests do not notice."""

import ast
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from mutation.coverage_table import CoverageTable
from mutation.forks import fork_each
from mutation.outcomes import Outcome, Session, digest_of
from mutation.outline import Outline
from mutation.survivors import Mutant, as_toml, explained
from mutation.trials import replace_function

ROOT = Path(__file__).parents[2]
LISTED = ROOT / "docs" / "explanation" / "mutation.toml"
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["stromkreis"]["mutation"]
MODULES = {Path(each).name: ROOT / each for each in CONFIG["modules"]}
MUTANT = Mutant("f", "core/Sub", 'return b"\\n" + a', 'return b"\\n" - a')


def lines_by_definition(source: str) -> dict[str, set[str]]:
    """The stripped lines of each function and class, and of the module all of them."""
    found: dict[str, set[str]] = defaultdict(set)
    lines = [line.strip() for line in source.splitlines()]
    found["module"].update(lines)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name].update(lines[node.lineno - 1 : node.end_lineno])
    return found


def test_every_explained_mutant_changes_a_line_that_is_there() -> None:
    known = explained(LISTED)
    assert set(known.by_file) <= set(MODULES)
    for file, mutants in known.by_file.items():
        lines = lines_by_definition(MODULES[file].read_text(encoding="utf-8"))
        gone = [each for each in mutants if each.before not in lines[each.definition] or each.before == each.after]
        assert gone == [], file
        assert all(len(why.split()) > 2 for why in mutants.values())


def test_each_rule_is_about_a_line_that_is_there() -> None:
    lines = [line for path in MODULES.values() for line in path.read_text(encoding="utf-8").splitlines()]
    assert [rule for rule in explained(LISTED).rules if not any(map(rule.line.search, lines))] == []


def test_a_line_that_has_changed_is_seen() -> None:
    source = MODULES["member.py"].read_text(encoding="utf-8")
    lines = lines_by_definition(source.replace("if term > self.term:", "if self.term < term:"))
    assert "if term > self.term:" not in lines["_on_appointed"]


def test_what_is_configured_is_there() -> None:
    assert all((ROOT / each).exists() for name in ("modules", "sources", "tests") for each in CONFIG[name])


def listing(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "list.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_mutant_is_read_as_it_was_written(tmp_path: Path) -> None:
    known = explained(listing(tmp_path, f'[["a.py"]]\nwhy = "never called"\nmutants = [\n{as_toml([MUTANT])}\n]\n'))
    assert known.why("a.py", MUTANT) == "never called"
    assert known.why("b.py", MUTANT) is None


def test_a_rule_explains_its_operators_where_the_line_matches(tmp_path: Path) -> None:
    known = explained(listing(tmp_path, '[[rule]]\nwhy = "it is so"\noperators = ["Sub"]\nline = \'return b\'\n'))
    assert known.why("a.py", MUTANT) == "it is so"
    assert known.why("a.py", MUTANT._replace(operator="core/Add")) is None
    assert known.why("a.py", MUTANT._replace(before="return a")) is None


def test_an_explanation_of_what_was_noticed_or_is_gone_is_idle(tmp_path: Path) -> None:
    gone = MUTANT._replace(before="gone")
    known = explained(listing(tmp_path, f'[["a.py"]]\nwhy = "so"\nmutants = [\n{as_toml([MUTANT, gone])}\n]\n'))
    assert known.idle("a.py", {MUTANT}, set(), is_whole=True) == [gone]
    assert known.idle("a.py", {MUTANT}, set(), is_whole=False) == []
    assert known.idle("a.py", set(), {MUTANT}, is_whole=False) == [MUTANT]


def test_a_mutant_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    text = f'[["a.py"]]\nwhy = "so"\nmutants = [\n{as_toml([MUTANT, MUTANT])}\n]\n'
    with pytest.raises(ValueError, match="listed twice"):
        explained(listing(tmp_path, text))


SOURCE = """from __future__ import annotations
def f(a: int | None = 1 | 2) -> int | str:
    b: int | None = a | 3
    if (b and
            a | 4):
        return a
class C:
    d = 1 | 5
    def g(self):
        def h():
            return 1 | 6
        return h
"""


def places_of(sign: str) -> list[tuple[int, int]]:
    lines = SOURCE.splitlines()
    return [(i, column) for i, line in enumerate(lines, 1) for column, each in enumerate(line) if each == sign]


def test_annotations_are_where_nothing_is_evaluated() -> None:
    outline = Outline(SOURCE)
    assert [outline.is_annotation(bar) for bar in places_of("|")] == [True, False, True, True, *[False] * 4]
    with pytest.raises(ValueError, match="are evaluated"):
        Outline(SOURCE.partition("\n")[2])


def test_a_place_in_a_function_is_told_from_one_that_an_import_runs() -> None:
    outline = Outline(SOURCE)
    assert [outline.function_at(bar) for bar in places_of("|")] == [None] * 3 + ["f"] * 3 + [None, "C.g"]


def test_a_statement_has_its_lines_and_a_body_its_own() -> None:
    outline = Outline(SOURCE)
    assert [list(outline.lines_at(line)) for line in (4, 5, 6, 8, 10)] == [[4, 5], [4, 5], [6], [8], [10]]


def test_processes_end_in_all_ways_and_are_told_apart() -> None:
    def work(task: str, fd: int) -> int:
        os.write(fd, task.encode())
        if task == "raises":
            raise RuntimeError("on purpose")
        signal.setitimer(signal.ITIMER_PROF, 0.1)
        while task == "computes":
            pass
        return 7

    ended = {each.task: each for each in fork_each(["returns", "raises", "computes"], 2, work)}
    assert (ended["returns"].status, ended["returns"].output) == (7, b"returns")
    assert ended["raises"].status == 255
    assert b"on purpose" in ended["raises"].output
    assert [ended[each].is_overdue for each in ("returns", "raises", "computes")] == [False, False, True]


def outcome(verdict: str = "killed", text: str = "1") -> Outcome:
    return Outcome("a.py", "core/Sub", 0, text, verdict, MUTANT)


def test_outcomes_outlive_a_stop_in_the_middle_of_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a = 1", encoding="utf-8")
    session = Session(tmp_path / "one", tmp_path, ["a.py"])
    session.add(outcome())
    with (tmp_path / "one" / "outcomes.jsonl").open("a") as file:
        file.write('\n{"module": "a.')
    session.add(outcome("alive"))
    assert list(session.outcomes().values()) == [outcome("alive")]


def test_kills_of_a_file_that_has_not_changed_are_taken_over(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a = 1", encoding="utf-8")
    one, two = (Session(tmp_path / name, tmp_path, ["a.py"]) for name in ("one", "two"))
    one.add(outcome(text=one.text_of("a.py")))
    assert two.take_kills([one], ["b.py"]) == 0
    assert two.take_kills([one], ["a.py"]) == 1
    assert [each.is_older for each in two.outcomes().values()] == [True]
    assert two.take_kills([one], ["a.py"]) == 0


def test_what_lived_with_fewer_tests_is_tried_again() -> None:
    assert [outcome(verdict).is_pending(9.0) for verdict in ("killed", "alive", "not tried")] == [False, False, True]
    assert Outcome("a.py", "core/Sub", 0, "1", "alive", MUTANT, budget_s=0.1).is_pending(9.0)


def test_a_session_is_of_sources_and_of_what_is_made_of_them(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a = 1", encoding="utf-8")
    first = digest_of(tmp_path, ["a.py"], "x")
    assert digest_of(tmp_path, ["a.py"], "y") != first
    (tmp_path / "a.py").write_text("a = 2", encoding="utf-8")
    assert digest_of(tmp_path, ["a.py"], "x") != first


def test_the_tests_of_a_line_are_those_that_run_it_quickest_first() -> None:
    table = CoverageTable(
        {"a.py": {"3": ["t.py::slow", "t.py::quick"]}}, {"a.py": {"4": ["u.py"]}},
        {"t.py::slow": 2.0, "t.py::quick": 0.1, "u.py::one": 0.2},
    )  # fmt: skip
    assert table.tests_of("a.py", [3]) == ["t.py::quick", "t.py::slow"]
    assert table.tests_of("a.py", [4]) == ["u.py::one"]
    assert table.tests_of("a.py", [9]) == []
    assert [table.within(budget_s, ["t.py::quick", "t.py::slow"]) for budget_s in (0.0, 2.0)] == [["t.py::quick"]] * 2
    assert table.within(2.5, ["t.py::quick", "t.py::slow"]) == ["t.py::quick", "t.py::slow"]
    assert [table.is_imported("a.py", [line]) for line in (3, 4)] == [False, True]
    assert table.limits_s(["t.py::slow"]) == [22.0]


class Changed:
    def method(self) -> int:
        return 1

    @property
    def value(self) -> int:
        return 1


def test_a_function_gets_the_code_of_another_text() -> None:
    module, one = sys.modules[__name__], Changed()
    text = Path(__file__).read_text(encoding="utf-8").replace("return 1\n", "return 2\n")
    code = compile(text, __file__, "exec")
    for name in ("Changed.method", "Changed.value"):
        replace_function(module, name, code)
    assert (one.method(), one.value) == (2, 2)
    with pytest.raises(LookupError):
        replace_function(module, "Changed.none", code)


PROGRAM = """from __future__ import annotations
LIMIT = 10
def add(a: int, b: int) -> int:
    if a > LIMIT:
        return 0
    return a + b
"""
TESTS = """import pytest
from program import LIMIT, add
def test_adds():
    assert add(1, 2) == 3
def test_limit():
    assert add(LIMIT + 1, 0) == 0
"""
RUN = """
import json, sys
from pathlib import Path
import coverage, hypothesis  # once for all processes
from mutation.forks import in_a_process
from mutation.coverage_table import CoverageTable, measure
from mutation.trials import Trial, outcome_of, try_anew, try_in_place
tree, table, found = Path(sys.argv[1]), Path(sys.argv[1]) / "tests.json", Path(sys.argv[1]) / "found"
sys.path[0] = str(tree)
source = (tree / "program.py").read_text()
def first():
    made = measure(tree, ["program.py"], ["test_program.py"], 2, lambda count: None, lambda: None)
    table.write_text(made.as_json())
def keep(ended):
    with found.open("a") as file:
        file.write(json.dumps([*outcome_of(ended)[1:], outcome_of(ended)[0]]) + "\\n")
def trial(function, old, new):
    tests = made.tests_of("program.py", [2, 4, 6])
    change = lambda: (source.replace(old, new), [new])
    return Trial(("program.py", new, 0), "program.py", function, tests, [9.0] * len(tests), 9.0, change)
in_a_process(first)
made = CoverageTable(**json.loads(table.read_text()))
changes = [trial("add", "a + b", "a - b"), trial("add", "a > LIMIT", "a >= LIMIT"), trial("add", "a + b", "a +")]
in_a_process(lambda: try_in_place(tree, ["test_program.py"], changes, 2, keep))
try_anew(tree, [trial(None, "= 10", "= 1"), trial(None, "= 10", "= 0")], 2, keep)
"""


def test_changes_are_noticed_or_live_in_place_and_imported_anew(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    (tmp_path / "test_program.py").write_text(TESTS, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    table = CoverageTable(**json.loads((tmp_path / "tests.json").read_text(encoding="utf-8")))
    assert table.tests_of("program.py", [6]) == ["test_program.py::test_adds"]
    assert table.is_imported("program.py", [2])
    assert not table.is_imported("program.py", [4])
    found = [json.loads(line) for line in (tmp_path / "found").read_text(encoding="utf-8").splitlines()]
    assert {told[0]: verdict for told, _, verdict in found} == {
        "a - b": "killed", "a >= LIMIT": "alive", "a +": "killed", "= 1": "alive", "= 0": "killed",
    }  # fmt: skip
