"""
A release: version, changelog, sdist and wheel that were installed and run in an empty environment, a commit and a tag.

    python -m tools.release 0.2.0            all of it
    python -m tools.release --try            build and try the present version; nothing in the checkout changes

Each step can fail without harm: commit and tag come last, and what was edited before is put back.
"""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).parents[1]
_VERSION = re.compile(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?")


def run(*command: str, cwd: Path = ROOT, timeout_s: float = 900.0) -> str:
    """The standard output of a command; exits with its words where it fails."""
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False)  # noqa: S603  ours
    if ended.returncode:
        sys.exit(f"release: {' '.join(command)} failed:\n{ended.stdout}{ended.stderr}".rstrip())
    return ended.stdout


def with_version(project: str, version: str) -> str:
    """pyproject.toml's text with this version."""
    return re.sub(r'(?m)^version = ".*"$', f'version = "{version}"', project, count=1)


def with_section(changelog: str, version: str, day: str) -> str:
    """The changelog with what is unreleased under this version; exits where there is nothing."""
    head, mark, rest = changelog.partition("## [Unreleased]\n")
    if not mark or not rest.partition("\n## [")[0].strip():
        sys.exit("release: CHANGELOG.md says nothing under ## [Unreleased]; a release must say what it changes")
    return f"{head}{mark}\n## [{version}] - {day}\n{rest}"


def build(into: Path) -> tuple[Path, Path]:
    """Build sdist and wheel from the checkout, with the pinned build tools of its environment."""
    run(sys.executable, "-m", "hatchling", "build", "-d", str(into))
    (sdist,), (wheel,) = into.glob("*.tar.gz"), into.glob("*.whl")
    return sdist, wheel


def rehearse(packages: tuple[Path, ...], version: str, folder: Path) -> None:
    """Install each package into an environment that has nothing but the pins, and run it away from the checkout."""
    environment = folder / "environment"
    run(sys.executable, "-m", "venv", str(environment))
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run(*pip, "install", "--require-hashes", "-r", str(ROOT / "requirements.lock"))
    command = str(environment / "bin" / "stromkreis")
    for package in packages:
        print(f"installing {package.name} into an empty environment and running it", flush=True)
        run(*pip, "install", "--no-deps", "--no-build-isolation", str(package))
        if run(command, "--version", cwd=folder).split() != ["stromkreis", version]:
            sys.exit(f"release: {package.name} does not call itself {version}")
        run(command, "config", cwd=folder)
        run(command, "simulate", "--seeds", "2", cwd=folder)
        run(command, "demo", "--gateways", "24", "--rounds", "6", "--out", str(folder / "demo"), cwd=folder)
        run(*pip, "uninstall", "--yes", "stromkreis")


def _checked(version: str) -> None:
    if not _VERSION.fullmatch(version):
        sys.exit(f"release: {version!r} is no version (expected one such as 0.2.0 or 0.2.0rc1)")
    if changed := run("git", "status", "--porcelain"):
        sys.exit(f"release: the checkout has changes; commit or remove them:\n{changed.rstrip()}")
    if run("git", "tag", "--list", f"v{version}"):
        sys.exit(f"release: the tag v{version} exists")


def main(
    version: Annotated[str | None, typer.Argument(help="The version to release, such as 0.2.0.")] = None,
    trial: Annotated[bool, typer.Option("--try", help="Build and try the present version only.")] = False,
    out: Annotated[Path, typer.Option(help="Where sdist and wheel go.")] = ROOT / "out" / "dist",
) -> None:
    """Release a version: nothing is pushed, and nothing is committed before both packages have run."""
    project, changelog = ROOT / "pyproject.toml", ROOT / "CHANGELOG.md"
    before = {path: path.read_text(encoding="utf-8") for path in (project, changelog)}
    if version is None and not trial:
        sys.exit("release: which version? make release VERSION=0.2.0")
    if version is None:
        version = str(tomllib.loads(before[project])["project"]["version"])
    else:
        _checked(version)
    try:
        if not trial:
            day = datetime.datetime.now(datetime.UTC).date().isoformat()
            project.write_text(with_version(before[project], version), encoding="utf-8")
            changelog.write_text(with_section(before[changelog], version, day), encoding="utf-8")
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "dist").mkdir()
            sdist, wheel = build(folder / "dist")
            rehearse((wheel, sdist), version, folder)
            for package in (sdist, wheel):
                shutil.copy(package, out)
    except BaseException:
        for path, text in before.items():
            path.write_text(text, encoding="utf-8")
        raise
    if not trial:
        run("git", "commit", "-qam", f"Release version {version}", "-m", "Sdist and wheel were installed and run.")
        run("git", "tag", "-a", f"v{version}", "-m", f"Stromkreis {version}")
    print(f"{version}: sdist and wheel are in {out}")


if __name__ == "__main__":
    typer.run(main)
