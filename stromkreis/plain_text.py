"""Text of others in a table: shown as it is, so that nobody else decides how a terminal looks."""

from __future__ import annotations

from rich.text import Text


def plain(text: str) -> Text:
    """A cell without markup, which rich would carry out or fail at, and without characters that move the cursor."""
    return Text("".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text))
