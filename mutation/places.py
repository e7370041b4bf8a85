"""
The places of a module where cosmic-ray's operators change something, and the module's text with one change made.

The text is parsed once; a change is made in a forked process, in its own copy of the tree.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.ast.ast_query import ASTQuery
from cosmic_ray.plugins import get_operator, operator_names

from mutation.outline import Outline
from mutation.survivors import Mutant


@dataclass(frozen=True, slots=True)
class Place:
    """
    One change of one module, not made yet.

    `occurrence` numbers the operator's changes of this text; `lines` are those of the statement, `function` is the
    qualified name of the function whose body it lies in.
    """

    module: Path
    operator: str
    occurrence: int
    definition: str
    function: str | None
    lines: range
    line: int
    is_annotation: bool
    _node: Any = field(repr=False, compare=False)
    _index: int = field(repr=False, compare=False)

    @property
    def key(self) -> tuple[str, str, int]:
        """What the place is known by as long as the module's text is the same."""
        return str(self.module), self.operator, self.occurrence

    def change(self) -> tuple[str, Mutant]:
        """The module's text with the change made, and the change; once in a process, whose tree it changes."""
        root, siblings = self._node.get_root_node(), self._node.parent.children
        at = next(i for i, each in enumerate(siblings) if each is self._node)
        before = root.get_code()
        changed = get_operator(self.operator)().mutate(self._node, self._index)
        siblings[at : at + 1] = [] if changed is None else [changed]
        after = root.get_code()
        return after, Mutant(self.definition, self.operator, *_changed_lines(before, after))


def places(root: Path, module: Path) -> Iterator[Place]:
    """The places of a module, in the order of operators and of the text."""
    source = (root / module).read_text(encoding="utf-8")
    outline, nodes = Outline(source), list(ast_nodes(get_ast(source)))
    for name in operator_names():
        if get_operator(name).arguments():
            continue
        operator = get_operator(name)()
        found = (
            (node, index, start)
            for node in nodes
            for index, (start, _end) in enumerate(operator.mutation_positions(node))
        )
        for occurrence, (node, index, start) in enumerate(found):
            yield Place(
                module, name, occurrence, ASTQuery(node).get_definition_name() or "module", outline.function_at(start),
                outline.lines_at(start[0]), start[0], outline.is_annotation(start), node, index,
            )  # fmt: skip


def _changed_lines(before: str, after: str) -> tuple[str, str]:
    """The lines that differ, without their indentation, several of them joined by a blank."""
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))[2:]
    old, new = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return old, new
