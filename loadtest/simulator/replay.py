"""
Plays a machine's event log again: the same machine, in a ring of invented keys and readings, is given the same.

A log has no secrets, so everything secret in what the machine is given is made anew: genuine MACs and shares where the
log says that they were accepted, broken ones where it says that they were refused.  Where the machine now does
something else than the log says, there is the defect, or a change since.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from loadtest.simulator.event_log_file import Log, ReplayError, Row, read_log
from loadtest.simulator.replay_players import HeadPlayer, LedgerPlayer, MemberPlayer
from protocol.dcnet.machines.event_log import EventLog
from protocol.errors import InvariantError, RemoteProtocolError


@dataclass(frozen=True, slots=True)
class Step:
    """One event played: what the log has of it, and what differs now (empty where nothing does)."""

    row: Row
    differs: str


def replay(log: Log) -> Iterator[Step]:
    """Play a log from its first whole round.  Raises ReplayError where it has none, or an event that cannot be."""
    try:
        player = _PLAYERS[log.machine](log)
        for row in log.events[player.first :]:
            yield Step(row, _difference(row, _play(player, row)))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ReplayError(
            f"an event lacks what it needs or is out of range ({type(error).__name__}: {error})"
        ) from None


class _Player(Protocol):
    first: int  # index of the first event that is played
    machine: Any

    def __init__(self, log: Log) -> None: ...
    def tell(self, row: Row) -> None: ...


def _play(player: _Player, row: Row) -> Row:
    """What the machine's own log says of the event as it was played."""
    events: EventLog = player.machine.events
    before = events.added
    try:
        player.tell(row)
    except RemoteProtocolError as error:
        if events.added == before:
            return {"refused": error.reason}
    except InvariantError as error:
        return {**events.rows()[-1], "after": f"invariant broken: {error}"}
    return events.rows()[-1] if events.added > before else {}


def _difference(row: Row, now: Row) -> str:
    if not now:
        return "nothing happens now"
    differing = [name for name in ("after", "refused", "effects") if row.get(name) != now.get(name)]
    return "; ".join(f"{name}: {now.get(name, 'none')}, recorded {row.get(name, 'none')}" for name in differing)


_PLAYERS: dict[str, type[_Player]] = {"member": MemberPlayer, "head": HeadPlayer, "ledger": LedgerPlayer}

__all__ = ["Log", "ReplayError", "Step", "read_log", "replay"]
