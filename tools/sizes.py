"""
The longest functions and files of the code, and its import contracts: `make lint` prints them at its end.

    python -m tools.sizes

A figure, not a gate: who reads it grow splits what has grown.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "protocol",
    "node",
    "coordinator",
    "netem",
    "loadtest",
    "stromkreis",
    "mutation",
    "fuzz",
    "tools",
    "examples",
)


def functions(path: Path) -> Iterator[tuple[int, str]]:
    """Lines and `file:line name` of each function in a file, decorators not counted."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1, f"{_name(path)}:{node.lineno} {node.name}"


def files() -> list[Path]:
    """Every Python file of the packages."""
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def longest(count: int = 3) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """The longest functions and the longest files, each as lines and name."""
    found = files()
    sizes = [(len(path.read_text(encoding="utf-8").splitlines()), _name(path)) for path in found]
    return sorted((each for path in found for each in functions(path)), reverse=True)[:count], sorted(
        sizes, reverse=True
    )[:count]


def contracts() -> list[str]:
    """The names of the import contracts."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [contract["name"] for contract in document["tool"]["importlinter"]["contracts"]]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def main() -> None:
    """Print them."""
    by_function, by_file = longest()
    for title, rows in (("longest functions", by_function), ("longest files", by_file)):
        print(f"{title}: " + ", ".join(f"{name} ({size} lines)" for size, name in rows))
    print("import contracts: " + "; ".join(contracts()))


if __name__ == "__main__":
    main()
