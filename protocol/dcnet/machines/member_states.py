"""Where a member can stand, and what leads from where to where: the table that machine and diagram are held to."""

from __future__ import annotations

from enum import StrEnum

from protocol import wire
from protocol.dcnet.machines.event_log import Local
from protocol.dcnet.machines.machine import Transitions


class State(StrEnum):
    """Where the member stands in the current round."""

    WAITING = "waiting"
    SHARED = "shared"
    CONFIRMED = "confirmed"
    SERVED = "served"


# Which event may do something in which state, and where it leads.  The documentation draws its diagram from this.
TRANSITIONS: Transitions[State] = {
    (State.WAITING, Local.OFFERED): (State.WAITING, State.SHARED),
    (State.WAITING, wire.Open): (State.WAITING, State.SHARED),
    (State.SHARED, wire.Open): (State.SHARED,),
    (State.CONFIRMED, wire.Open): (State.CONFIRMED, State.SHARED),
    (State.SERVED, wire.Open): (State.SERVED,),
    (State.SHARED, wire.Roster): (State.SHARED, State.CONFIRMED),
    (State.CONFIRMED, wire.Roster): (State.CONFIRMED,),
    (State.CONFIRMED, wire.Confirmed): (State.CONFIRMED, State.SERVED),
    (State.SERVED, wire.Recover): (State.SERVED,),
    (State.WAITING, wire.Result): (State.WAITING, State.SHARED),
    (State.SHARED, wire.Result): (State.SHARED, State.WAITING),
    (State.CONFIRMED, wire.Result): (State.CONFIRMED, State.WAITING),
    (State.SERVED, wire.Result): (State.SERVED, State.WAITING),
    **{(state, Local.DEADLINE): (state,) for state in State},  # it complains and asks, and stays where it is
}
