"""
The lock files name every extra that an installed distribution asks for.

pip 23.2 takes `coverage[toml]` and `coverage` for two projects: where a lock pins only the second, the first is looked
up afresh, and refused as a version without a hash as soon as there is a newer one than the pinned.
"""

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([\w.-]+)(?:\[([\w.,-]+)\])?==", re.MULTILINE)
LOCKS = sorted(ROOT.glob("requirements*.lock"))


def pinned(lock: str) -> dict[str, frozenset[str]]:
    """Project to its extras, of all lines that pin it."""
    pins: dict[str, frozenset[str]] = {}
    for name, extras in PIN.findall(lock):
        project = canonicalize_name(name)
        pins[project] = pins.get(project, frozenset()) | frozenset(filter(None, extras.split(",")))
    return pins


def asked(distribution: Distribution, extras: Iterable[str]) -> Iterator[Requirement]:
    """What a distribution requires here, itself and through these extras of it."""
    for line in distribution.requires or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def lacking(lock: str, installed: Iterable[Distribution]) -> list[str]:
    pins = pinned(lock)
    found = []
    for each in installed:
        project = canonicalize_name(each.name)
        for requirement in asked(each, pins[project]) if project in pins else ():
            missing = requirement.extras - pins.get(canonicalize_name(requirement.name), requirement.extras)
            if missing:
                found.append(f"{project} asks for {requirement.name}[{','.join(sorted(missing))}]")
    return sorted(found)


def environment(lock: Path) -> list[Distribution]:
    """What is installed from a lock, where that has an environment of its own, and what the tests run in."""
    name = lock.stem.removeprefix("requirements-")
    own = [str(path) for path in ROOT.glob(f".venv-{name}/lib/python*/site-packages")]
    return [*(distributions(path=own) if own else ()), *distributions()]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_the_lock_pins_every_extra_that_is_asked_for(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert pinned(text)
    assert lacking(text, environment(lock)) == []


def test_an_extra_that_a_lock_lost_is_seen() -> None:
    text = (ROOT / "requirements-test.lock").read_text(encoding="utf-8")
    assert "toml" in pinned(text)["coverage"]
    stripped = text.replace("coverage[toml]==", "coverage==")
    assert "pytest-cov asks for coverage[toml]" in lacking(stripped, distributions())


def test_the_labs_lock_fits_into_the_environment_of_the_tests() -> None:
    """`make test` installs both into one environment: a package of both has one version."""
    versions = [
        set(
            re.findall(r"^([\w.-]+)(?:\[[\w.,-]+\])?==([^ ]+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
        )
        for name in ("requirements-test.lock", "requirements-lab.lock")
    ]
    shared = {name for name, _ in versions[0]} & {name for name, _ in versions[1]}
    assert "numpy" in shared
    assert {pin for pin in versions[1] if pin[0] in shared} <= versions[0]
