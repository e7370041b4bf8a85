"""
The state diagrams of the documentation, drawn from the machines' own transition tables.

    python -m loadtest.diagrams                          print them
    python -m loadtest.diagrams --into docs/protocol.md  draw them anew between the marks of a document

A table is what a machine holds its messages to, so a picture made from it cannot say anything else.  Deadlines are in
no table: what a machine does when one passes is told in the document's text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from protocol import wire
from protocol.dcnet.machines import head, member

_Arrows = Iterable[tuple[Enum, type[wire.RingMessage], tuple[Enum, ...]]]
NAMES = ("member", "head")


def _machine(name: str) -> tuple[Enum, _Arrows]:
    if name == "member":
        return member.State.WAITING, ((*key, targets) for key, targets in member.TRANSITIONS.items())
    return head.State.GATHERING, ((*key, targets) for key, targets in head.TRANSITIONS.items())


def _constant_case(name: str) -> str:
    """The name of a message as the documentation writes it: `MaskedInput` is MASKED_INPUT."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()


def mermaid(name: str) -> str:
    """The Mermaid text of one machine, in the order of its table; messages that share an arrow share its label."""
    start, table = _machine(name)
    arrows: dict[tuple[str, str], list[str]] = {}
    for source, message, targets in table:
        for target in targets:
            arrows.setdefault((source.value, target.value), []).append(_constant_case(message.__name__))
    lines = ["stateDiagram-v2", f"    [*] --> {start.value}"]
    lines += [f"    {source} --> {target}: {', '.join(labels)}" for (source, target), labels in arrows.items()]
    return "\n".join(lines)


def block(name: str) -> str:
    """One machine's diagram as it stands in a document, with its marks."""
    return f"<!-- diagram: {name} -->\n```mermaid\n{mermaid(name)}\n```\n<!-- end of diagram -->"


def redraw(document: str) -> str:
    """The document with every marked diagram as the tables have it now."""
    marked = re.compile(rf"<!-- diagram: ({'|'.join(NAMES)}) -->.*?<!-- end of diagram -->", re.DOTALL)
    return marked.sub(lambda found: block(found[1]), document)


def main(into: Annotated[Path | None, typer.Option(help="Document to draw the diagrams into.")] = None) -> None:
    """Print the diagrams, or draw them into a document."""
    if into is None:
        typer.echo("\n\n".join(mermaid(name) for name in NAMES))
    else:
        into.write_text(redraw(into.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
