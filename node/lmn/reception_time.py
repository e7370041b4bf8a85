"""
When a message's first byte came, which is its time of reception [REQ.TLSHDLC.SMGW.50].

A reader says whether it holds the beginning of a message, but not whether that ever was one: half a telegram, or noise
that looks like a start, may lie there for a quarter hour until the next telegram shows it to be none.  The time of
those bytes must not become the next telegram's.  No protocol here pauses for seconds inside a message (IEC 62056-21
allows 1.5 s between two characters, M-Bus and HDLC less), so after a pause a message begins anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

import trio

PAUSE_S: Final = 2.0  # longer makes a stale beginning count, shorter makes a telegram late that a converter holds up

T = TypeVar("T")


class ReceptionTime(Generic[T]):
    """The reception time of what is being received on one line, in the time of `now`."""

    def __init__(self, now: Callable[[], T]) -> None:
        self._now = now
        self._heard_at = self.began_at = now()  # `began_at`: when what is being received began
        self._heard_s = trio.current_time()
        self._is_stale_before = False  # the reader holds bytes from before a pause

    def heard(self, *, inside: bool) -> None:
        """Bytes came, which the reader has not seen yet; `inside` says that it holds the beginning of a message."""
        now_s, self._heard_at = trio.current_time(), self._now()
        paused = now_s - self._heard_s > PAUSE_S
        if paused or not inside:
            self.began_at, self._is_stale_before = self._heard_at, paused and inside
        self._heard_s = now_s

    def ended(self) -> T:
        """When the message that ended here began; what follows began with the bytes heard last."""
        began_at, self.began_at, self._is_stale_before = self.began_at, self._heard_at, False
        return began_at

    def failed(self) -> None:
        """What was held was no message; what follows began after the pause in it, else with the bytes heard last."""
        if self._is_stale_before:
            self._is_stale_before = False
        else:
            self.began_at = self._heard_at
