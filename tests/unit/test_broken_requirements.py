"""What counts as a test that fails because its requirement is broken (tools/broken_requirements.py)."""

import subprocess
from pathlib import Path

import pytest

from tools.broken_requirements import Tree, copy_tree
from tools.conformance import Breakage

TESTS = """
from limits import MOST, size

def test_size(): assert size("abc") == 3
def test_bound(): assert MOST > 1
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # nothing here needs one
    (tmp_path / "limits.py").write_text("MOST = 20\nLEAST = MOST\n\n\ndef size(text):\n    return len(text)\n")
    (tmp_path / "test_limits.py").write_text(TESTS)
    return Tree(tmp_path, 300)


def broken(old: str, new: str, test: str) -> Breakage:
    return Breakage("REQ.X.10", "limits.py", old, new, f"test_limits.py::{test}", "another size is told")


def test_a_requirement_is_shown_by_a_test_that_fails_without_it(tree: Tree, tmp_path: Path) -> None:
    before = (tmp_path / "limits.py").read_text()
    shown = tree.broken(broken("len(text)", "len(text) + 1", "test_size"))
    assert shown.is_expected
    assert "assert 4 == 3" in shown.detail
    assert (tmp_path / "limits.py").read_text() == before
    assert tree.as_it_is(["test_limits.py"]).is_expected


def test_a_test_that_passes_all_the_same_shows_nothing(tree: Tree) -> None:
    outcome = tree.broken(broken("MOST = 20", "MOST = 10", "test_bound"))
    assert not outcome.is_expected
    assert "passes" in outcome.detail


@pytest.mark.parametrize(("new", "test"), [("missing(text)", "test_size"), ("len(text", "test_size")])
def test_code_that_cannot_run_shows_nothing(tree: Tree, new: str, test: str) -> None:
    outcome = tree.broken(broken("len(text)", new, test))
    assert not outcome.is_expected
    assert "shows nothing" in outcome.detail


def test_a_test_that_is_not_there_shows_nothing(tree: Tree) -> None:
    assert not tree.broken(broken("len(text)", "0", "test_other")).is_expected


def test_a_text_that_is_not_there_once_is_refused(tree: Tree) -> None:
    with pytest.raises(ValueError, match="2 times"):
        tree.broken(broken("MOST", "most", "test_bound"))


def test_the_copy_has_new_files_and_none_that_git_ignores(tmp_path: Path) -> None:
    root, copy = tmp_path / "root", tmp_path / "copy"
    (root / "sub").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    for name, text in ((".gitignore", "out\n"), ("sub/new.py", "1"), ("out", "2")):
        (root / name).write_text(text)
    copy_tree(root, copy)
    assert sorted(str(each.relative_to(copy)) for each in copy.rglob("*") if each.is_file()) == [
        ".gitignore", "sub/new.py",
    ]  # fmt: skip
