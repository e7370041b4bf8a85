"""
The picture of the layers in CONTRIBUTING.md, drawn from the import contracts of pyproject.toml.

    python -m tools.layers                         print it
    python -m tools.layers --into CONTRIBUTING.md  draw it anew between its marks

import-linter holds the code to those contracts in `make lint`, so the picture cannot show other layers than it checks.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

ROOT = Path(__file__).parents[1]
_MARKED = re.compile(r"<!-- layers -->.*?<!-- end of layers -->", re.DOTALL)


def contracts() -> list[dict[str, Any]]:
    """The layer contracts, as pyproject.toml has them."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [each for each in document["tool"]["importlinter"]["contracts"] if each["type"] == "layers"]


def mermaid(contract: dict[str, Any]) -> str:
    """One contract as a flowchart: a box for each layer, an arrow to the next one that it may import."""
    lines, rows = ["flowchart TD"], [layer.split(" | ") for layer in contract["layers"]]
    for number, row in enumerate(rows):
        lines.append(f'    layer{number}["{" · ".join(name.strip() for name in row)}"]')
    lines += [f"    layer{number} --> layer{number + 1}" for number in range(len(rows) - 1)]
    return "\n".join(lines)


def block() -> str:
    """All pictures with their marks, each under its contract's name."""
    parts = [f"**{each['name']}**\n\n```mermaid\n{mermaid(each)}\n```" for each in contracts()]
    return "<!-- layers -->\n" + "\n\n".join(parts) + "\n<!-- end of layers -->"


def redraw(document: str) -> str:
    """The document with the pictures as the contracts have them now."""
    return _MARKED.sub(lambda _: block(), document)


def main(into: Annotated[Path | None, typer.Option(help="Document to draw the layers into.")] = None) -> None:
    """Print the layers, or draw them into a document."""
    if into is None:
        typer.echo(block())
    else:
        into.write_text(redraw(into.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
