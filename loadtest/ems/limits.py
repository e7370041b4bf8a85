"""
Limitation of power by a remote energy management system (EMS), as the use case LPC of EEBUS has it (§ 14a EnWG).

A system follows a limit for its duration.  While the other side's heartbeat is heard it is controlled; once that has
been missing for `HEARTBEAT_TIMEOUT_S` it falls back on the failsafe limit, which it leaves only when heartbeat and
limit have come again, or by itself when the failsafe duration is over.  Time is an argument, so that all of it can be
tested without waiting.  What is sent here are lines of JSON, not SHIP and SPINE.

Sources: EEBUS UC TS Limitation of Power Consumption 1.0.0, states init, limited, unlimited/controlled,
unlimited/autonomous, failsafe; heartbeat every 60 s, missed after 120 s; failsafe duration at least 2 h.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

HEARTBEAT_S = 60.0
HEARTBEAT_TIMEOUT_S = 120.0
FAILSAFE_DURATION_S = 7_200.0


class State(Enum):
    """Where the controllable system is."""

    INIT = "init"
    CONTROLLED = "unlimited/controlled"
    LIMITED = "limited"
    FAILSAFE = "failsafe"
    AUTONOMOUS = "unlimited/autonomous"


@dataclass(slots=True)
class PowerLimit:
    """
    One controllable system's; tell it what comes, and ask `limit_w` at any time.  Times are seconds of one clock.

    `begun_s` is when it was started: until the first heartbeat and limit it keeps to the failsafe limit, for
    `heartbeat_timeout_s` at most.
    """

    failsafe_w: int
    begun_s: float
    heartbeat_timeout_s: float = HEARTBEAT_TIMEOUT_S
    failsafe_duration_s: float = FAILSAFE_DURATION_S
    state: State = State.INIT
    changes: list[tuple[float, State]] = field(default_factory=list)
    _heard_s: float | None = None
    _since_s: float = 0.0
    _limit_w: int | None = None
    _ends_s: float | None = None

    def __post_init__(self) -> None:
        self._since_s = self.begun_s

    def heartbeat(self, now_s: float) -> None:
        """The other side lives."""
        self.advance(now_s)
        self._heard_s = now_s

    def receive(self, limit_w: int | None, now_s: float, duration_s: float | None = None) -> bool:
        """
        A limit (W; None: none) for `duration_s` (None: until further notice); whether it is accepted.

        Without a heartbeat that is fresh it is not: who sends it might be gone (LPC: a limit needs the heartbeat).
        """
        self.advance(now_s)
        if limit_w is not None and limit_w < 0:
            return False
        if self._heard_s is None or now_s - self._heard_s > self.heartbeat_timeout_s:
            return False
        self._limit_w = limit_w
        self._ends_s = None if duration_s is None else now_s + duration_s
        self._go(State.CONTROLLED if limit_w is None else State.LIMITED, now_s)
        return True

    def advance(self, now_s: float) -> None:
        """What time alone brings about."""
        if self.state is State.LIMITED and self._ends_s is not None and now_s >= self._ends_s:
            self._limit_w, ended_s = None, self._ends_s
            self._go(State.CONTROLLED, ended_s)
        if self.state in {State.LIMITED, State.CONTROLLED} and self._heard_s is not None:
            missed_s = self._heard_s + self.heartbeat_timeout_s
            if now_s > missed_s:
                self._go(State.FAILSAFE, missed_s)
        if self.state is State.INIT and now_s > self.begun_s + self.heartbeat_timeout_s:
            self._go(State.AUTONOMOUS, self.begun_s + self.heartbeat_timeout_s)
        if self.state is State.FAILSAFE and now_s > self._since_s + self.failsafe_duration_s:
            self._go(State.AUTONOMOUS, self._since_s + self.failsafe_duration_s)

    def limit_w(self, now_s: float) -> int | None:
        """What it may draw now (W); None: there is no limit."""
        self.advance(now_s)
        match self.state:
            case State.INIT | State.FAILSAFE:
                return self.failsafe_w
            case State.LIMITED:
                return self._limit_w
        return None

    def _go(self, state: State, now_s: float) -> None:
        if state is not self.state:
            self.state, self._since_s = state, now_s
            self.changes.append((now_s, state))
