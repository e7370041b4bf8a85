"""
The state diagrams of the documentation, drawn from the machines' own transition tables.

    python -m loadtest.diagrams                          print them
    python -m loadtest.diagrams --into docs/explanation/protocol.md  draw them anew between the marks of a document

A table is what a machine holds its events to, deadlines included, so a picture made from it cannot say anything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from protocol.dcnet.machines import head_states, ledger, member_states
from protocol.dcnet.machines.event_log import Local, Trigger

_Arrows = Iterable[tuple[Enum, Trigger, tuple[Enum, ...]]]
NAMES = ("member", "head", "ledger")


def _machine(name: str) -> tuple[Enum, _Arrows]:
    if name == "member":
        return member_states.State.WAITING, ((*key, targets) for key, targets in member_states.TRANSITIONS.items())
    if name == "head":
        return head_states.State.GATHERING, ((*key, targets) for key, targets in head_states.TRANSITIONS.items())
    return ledger.State.RUNNING, ((*key, targets) for key, targets in ledger.TRANSITIONS.items())


def _label(event: Trigger) -> str:
    """An event as the documentation writes it: `MaskedInput` is MASKED_INPUT; no message, small letters."""
    if isinstance(event, Local):
        return event.name.lower()
    return re.sub(r"(?<!^)(?=[A-Z])", "_", event.__name__).upper()


def mermaid(name: str) -> str:
    """The Mermaid text of one machine, in the order of its table; messages that share an arrow share its label."""
    start, table = _machine(name)
    arrows: dict[tuple[str, str], list[str]] = {}
    for source, event, targets in table:
        for target in targets:
            arrows.setdefault((source.value, target.value), []).append(_label(event))
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
