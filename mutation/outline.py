"""
What a position in a module's text lies in: the statement, the function, an annotation that nothing evaluates.

The tests that may notice a change are those that run its statement; a change in a function's body can be put into a
process that has the module already, any other one wants the module imported anew.
"""

from __future__ import annotations

import ast

Position = tuple[int, int]  # line from 1, column from 0
Span = tuple[Position, Position]  # the end is after the last


class Outline:
    """That of one module.  Raises ValueError for one that evaluates its annotations."""

    def __init__(self, source: str) -> None:
        tree = ast.parse(source)
        if not any(isinstance(each, ast.ImportFrom) and each.module == "__future__" for each in tree.body):
            raise ValueError("annotations are evaluated here: their mutants count")
        nodes = list(ast.walk(tree))
        self._annotations = [_span(each) for node in nodes for each in _annotations_of(node)]
        self._statements = [_header(node) for node in nodes if isinstance(node, ast.stmt)]
        self._bodies: dict[str, Span] = {}
        self._find_bodies(tree, ())

    def _find_bodies(self, of: ast.Module | ast.ClassDef, names: tuple[str, ...]) -> None:
        for node in of.body:
            if isinstance(node, ast.ClassDef):
                self._find_bodies(node, (*names, node.name))
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self._bodies[".".join((*names, node.name))] = _span(node.body[0])[0], _span(node.body[-1])[1]

    def is_annotation(self, position: Position) -> bool:
        """Whether a position lies in a type annotation."""
        return any(start <= position < end for start, end in self._annotations)

    def function_at(self, position: Position) -> str | None:
        """The qualified name of the outermost function whose body a position lies in; None outside of all."""
        return next((name for name, (start, end) in self._bodies.items() if start <= position < end), None)

    def lines_at(self, line: int) -> range:
        """The lines of the innermost statement that a line belongs to; of one with a body those before it."""
        around = [each for each in self._statements if line in each]
        return min(around, key=len, default=range(line, line + 1))


def _span(node: ast.expr | ast.stmt) -> Span:
    start, end = (node.lineno, node.col_offset), (node.end_lineno or node.lineno, node.end_col_offset or 0)
    return start, end


def _annotations_of(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.AnnAssign | ast.arg):
        return [node.annotation] if node.annotation is not None else []
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.returns] if node.returns is not None else []
    return []


def _header(node: ast.stmt) -> range:
    if isinstance(node, ast.Match):
        return range(node.lineno, node.cases[0].pattern.lineno)
    body = getattr(node, "body", None)
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(each.lineno for each in decorators)])
    last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
    return range(first, last + 1)
