"""The tools of those who work on Stromkreis: releases, sizes, pins of another Python, hooks equal to `make lint`."""

import re
from pathlib import Path

import pytest

from tools import lock_for, release, site, sizes

ROOT = Path(__file__).parents[2]


def test_a_release_names_its_version_and_closes_the_changelogs_section() -> None:
    assert release.with_version('a\nversion = "0.1.0"\nb', "0.2.0") == 'a\nversion = "0.2.0"\nb'
    changelog = "# C\n\n## [Unreleased]\n\n- x\n\n## [0.1.0] - 2026-01-01\n"
    closed = "# C\n\n## [Unreleased]\n\n## [0.2.0] - 2026-03-04\n\n- x\n\n## [0.1.0] - 2026-01-01\n"
    assert release.with_section(changelog, "0.2.0", "2026-03-04") == closed


def test_a_release_without_changes_is_refused() -> None:
    with pytest.raises(SystemExit, match="must say what it changes"):
        release.with_section("## [Unreleased]\n\n## [0.1.0] - 2026-01-01\n- x\n", "0.2.0", "2026-03-04")


@pytest.mark.parametrize("version", ["1.0", "v1.0.0", "1.0.0-beta", ""])
def test_what_is_no_version_is_refused_by_name(version: str) -> None:
    with pytest.raises(SystemExit, match="is no version"):
        release._checked(version)


def test_pins_are_those_of_the_other_python() -> None:
    lock = (
        "numpy==1.0 ; python_full_version < '3.12' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "numpy==2.0 ; python_full_version >= '3.12' \\\n    --hash=sha256:cc\n    # via x\n"
        "flit==3 \\\n    --hash=sha256:dd\n"
    )
    assert lock_for.pins(lock, "3.13") == ["numpy==2.0 --hash=sha256:cc", "flit==3 --hash=sha256:dd"]
    assert lock_for.pins(lock, "3.11")[0] == "numpy==1.0 --hash=sha256:aa --hash=sha256:bb"


def test_commit_hooks_are_the_steps_of_make_lint() -> None:
    (recipe,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    steps = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]
    assert re.findall(r"entry: (.+?),", hooks) == steps
    assert set(re.findall(r"repo: (\S+)", hooks)) == {"local"}


def test_sizes_count_the_lines_of_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "ROOT", tmp_path)
    (tmp_path / "x.py").write_text("def f():\n    a = 1\n    return a\n\n\nasync def g(): ...\n")
    assert sorted(sizes.functions(tmp_path / "x.py")) == [(1, "x.py:6 g"), (3, "x.py:1 f")]


@pytest.mark.parametrize(
    ("link", "source", "expected"),
    [
        ("[a](docs/howto/netem.md#x)", "README.md", "[a](howto/netem.md#x)"),
        ("[a](../../CHANGELOG.md)", "docs/reference/versions.md", "[a](../changelog.md)"),
        ("![a](docs/images/way.svg)", "README.md", "![a](images/way.svg)"),
        ("[a](LICENSE)", "README.md", "a"),
        ("[a](https://example.org/x.md)", "README.md", "[a](https://example.org/x.md)"),
        ("[a](#here)", "docs/howto/netem.md", "[a](#here)"),
    ],
)
def test_links_of_the_repository_lead_on_the_site(link: str, source: str, expected: str) -> None:
    assert site.turned(link, source) == expected
