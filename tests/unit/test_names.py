"""
Names that were given up stay away: each is looked for where it was, as module and name, so that words stay free.

A name is qualified by the files that it would be in: `("stromkreis/*.py", "Ear")` forbids that identifier there, and
`("coordinator/**/*.py", None)` with a file name forbids the file.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FILES = (
    "stromkreis/ear.py", "stromkreis/board.py", "coordinator/emp/desk.py", "coordinator/rings/keeping.py",
    "coordinator/rings/writing.py", "coordinator/rings/timekeeping.py", "protocol/link/alarms.py",
    "node/aggregation/surroundings.py", "node/aggregation/ringmates.py", "stromkreis/failures.py",
)  # fmt: skip

# Package, name: an identifier of that package's code (class, function, argument, attribute, variable).
NAMES = (
    ("stromkreis", "Ear"), ("stromkreis", "Board"), ("coordinator", "Board"), ("coordinator", "BillDesk"),
    ("coordinator", "EpochKeeper"), ("coordinator", "Ending"), ("protocol", "Doorman"), ("protocol", "Alarms"),
    ("protocol/link/edge.py", "look"), ("protocol/link/edge.py", "touched"), ("node", "Surroundings"),
    ("node/aggregation", "around"), ("node/lmn/arrival.py", "Arrival"), ("node", "News"), ("node", "is_news"),
    ("stromkreis", "is_news"), ("node/lmn", "Taken"), ("node", "keep_in"), ("node", "_Ours"),
    ("node/lmn", "Plan"), ("node", "miss_the_silent"), ("node", "strangers_are_normal"),
    ("loadtest", "strangers_are_normal"), ("node/lmn/pairing.py", "ways"), ("node", "_dlms_way"),
    ("stromkreis", "_dlms_way"), ("coordinator", "_Unborn"), ("node", "_Unborn"), ("coordinator", "_keep_to_ourselves"),
    ("node", "_keep_to_ourselves"), ("coordinator", "_patience"), ("stromkreis", "sentences"),
    ("protocol/wire", "Share"), ("protocol/dcnet", "lane"), ("protocol", "RoundBook"), ("coordinator", "RoundBook"),
    ("protocol/dcnet", "binding"), ("protocol/wire", "Ask"), ("protocol/wire", "AskAccount"),
    ("protocol/dcnet/machines", "_over"), ("protocol/dcnet/machines", "_held"), ("protocol/dcnet/machines", "_ahead"),
    ("protocol/dcnet/machines", "_reigned"), ("protocol/dcnet/machines", "_hurry"), ("node", "_hurry"),
    ("node", "_COMEBACK"), ("protocol", "is_beyond_help"), ("node", "is_beyond_help"), ("protocol", "Lie"),
    ("protocol", "Accused"), ("protocol", "SPOILT_SUM"), ("coordinator", "BillingDesk"),
    ("loadtest", "Flown"), ("loadtest", "Speaker"),
)  # fmt: skip

# Attributes and methods that only their owner must not have: module, class, name.
ATTRIBUTES = (
    ("coordinator/status.py", "StatusFeed", "turn"),
    ("node/lmn/pairing.py", "Found", "about"),
    ("stromkreis/sniff.py", "Found", "about"),
)

# Texts that no file of the code says.
TEXTS = ("_out_of_season", "examination profile", "shut out", '"cunning"')


@cache
def identifiers(path: Path) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                found.add(name)
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.alias(name=name, asname=other):
                found |= {name.rpartition(".")[2], other or ""}
    return frozenset(found)


def files(where: str) -> list[Path]:
    path = ROOT / where
    return [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))


@pytest.mark.parametrize("file", FILES)
def test_a_file_with_a_name_given_up_is_absent(file: str) -> None:
    assert not (ROOT / file).exists()


@pytest.mark.parametrize(("where", "name"), NAMES, ids=lambda value: value.replace("/", "."))
def test_an_identifier_given_up_is_absent(where: str, name: str) -> None:
    found = files(where)
    assert all(path.exists() for path in found)
    assert [path.relative_to(ROOT).as_posix() for path in found if name in identifiers(path)] == []


@pytest.mark.parametrize(("module", "owner", "name"), ATTRIBUTES)
def test_a_member_given_up_is_absent_from_its_class(module: str, owner: str, name: str) -> None:
    path = ROOT / module
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == owner]
    assert name not in {word for node in classes for word in map(_declared, node.body)}


def _declared(node: ast.stmt) -> str:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return name
        case ast.AnnAssign(target=ast.Name(id=name)):
            return name
        case _:
            return ""


@pytest.mark.parametrize("text", TEXTS)
def test_a_wording_given_up_is_absent(text: str) -> None:
    packages = ("protocol", "node", "coordinator", "netem", "loadtest", "stromkreis")
    said = [path for package in packages for path in files(package) if text in path.read_text(encoding="utf-8")]
    assert [path.relative_to(ROOT).as_posix() for path in said] == []


def test_identifiers_of_each_form_are_seen(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text("import a.b as c\nclass D:\n    e: int\n    def f(self, g): return self.h(i=1)\n")
    assert {"b", "c", "D", "e", "f", "g", "h", "i"} <= identifiers(source)


def test_names_of_tests_have_at_most_72_characters() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and len(node.name) > 72
    ]
    assert not found
