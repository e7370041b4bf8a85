"""Log lines that anybody can cause, limited: one for each subject and period, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

PEER_LINE_S: Final = 10.0
"""Between two log lines of one kind that a peer can cause as often as it likes; the counters have them all."""

_SUBJECTS_MAX = 1_000  # remembered at once; beyond that the oldest is forgotten, and logged again when it comes back


class LogLimiter:
    """Says whether a line about a subject is due; the counters have them all."""

    def __init__(self, period_s: float, clock: Callable[[], float]) -> None:
        """One line each `period_s` of `clock`, which may be set back."""
        self._period_s = period_s
        self._clock = clock
        self._said_s: dict[str, float] = {}

    def is_due(self, subject: str) -> bool:
        """Whether to write a line now; the answer counts as written."""
        now_s = self._clock()
        said_s = self._said_s.pop(subject, None)
        is_due = said_s is None or abs(now_s - said_s) >= self._period_s
        self._said_s[subject] = now_s if is_due or said_s is None else said_s
        if len(self._said_s) > _SUBJECTS_MAX:
            del self._said_s[next(iter(self._said_s))]
        return is_due
