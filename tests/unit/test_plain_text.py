"""Tables of commands show what gateways and accounts have said, whatever it looks like."""

from __future__ import annotations

import pytest

from stromkreis.gwa import _show

SAID = "[/red] [bold]no[/bold]\n9\x1b[2K"


def test_a_reason_with_markup_is_shown_as_it_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"gateway": "ESTK0100000001", "version": 1, "state": "refused", "answered_at": None, "reason": SAID}
    _show([row])
    shown = capsys.readouterr().out
    assert "[/red] [bold]no[/bold]\N{REPLACEMENT CHARACTER}9\N{REPLACEMENT CHARACTER}[2K" in shown
