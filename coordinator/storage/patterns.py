"""Patterns of names in which * stands for any text, as conditions."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ColumnElement, or_


def matches(column: Column[Any], pattern: str) -> ColumnElement[bool]:
    """Whether a column is the pattern's; what LIKE reads in it of its own counts for nothing."""
    return or_(column == pattern, column.like(pattern.replace("%", "").replace("_", "").replace("*", "%")))
