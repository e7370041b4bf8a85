"""Where a head can stand, and what leads from where to where: the table that machine and diagram are held to."""

from __future__ import annotations

from enum import StrEnum

from protocol import wire
from protocol.dcnet.machines.event_log import Local
from protocol.dcnet.machines.machine import Transitions


class State(StrEnum):
    """Where the head stands."""

    GATHERING = "gathering"
    IDLE = "idle"
    COLLECTING = "collecting"
    CONFIRMING = "confirming"
    REVEALING = "revealing"
    RECOVERING = "recovering"
    REPORTED = "reported"


_IN_ROUND = (State.COLLECTING, State.CONFIRMING, State.REVEALING, State.RECOVERING)

# Which event moves what in which state.  READY is noted in every state, any other message of a member is late or early.
TRANSITIONS: Transitions[State] = {
    (State.GATHERING, wire.Ready): (State.GATHERING, State.COLLECTING, State.IDLE),
    (State.COLLECTING, wire.MaskedInput): (State.COLLECTING, State.CONFIRMING, State.REPORTED),
    (State.CONFIRMING, wire.Confirm): (State.CONFIRMING, State.REVEALING),
    (State.REVEALING, wire.Reveal): (State.REVEALING, State.RECOVERING, State.REPORTED),
    (State.RECOVERING, wire.Reveal): (State.RECOVERING, State.REPORTED),
    (State.RECOVERING, wire.Partial): (State.RECOVERING, State.REPORTED),
    **{(state, wire.Result): (State.IDLE,) for state in (*_IN_ROUND, State.REPORTED)},
    (State.GATHERING, Local.DEADLINE): (State.GATHERING, State.COLLECTING, State.REPORTED, State.IDLE),
    (State.IDLE, Local.DEADLINE): (State.IDLE, State.COLLECTING, State.REPORTED),
    (State.COLLECTING, Local.DEADLINE): (State.COLLECTING, State.CONFIRMING, State.REPORTED),
    (State.CONFIRMING, Local.DEADLINE): (State.COLLECTING, State.REVEALING, State.REPORTED),
    (State.REVEALING, Local.DEADLINE): (State.REVEALING, State.RECOVERING, State.REPORTED),
    (State.RECOVERING, Local.DEADLINE): (State.RECOVERING, State.REPORTED),
    (State.REPORTED, Local.DEADLINE): (State.IDLE,),
}
