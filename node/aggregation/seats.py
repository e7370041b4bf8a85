"""Where a gateway sits now, among the rings that it has a seat in."""

from __future__ import annotations

from collections.abc import Iterable

from node.aggregation.membership import Membership
from node.readiness import Seat
from protocol import wire
from protocol.dcnet.setup.epoch import registration_grid


def seat_of(rings: Iterable[tuple[wire.EpochCall, Membership]], now_s: float) -> tuple[Seat, bool]:
    """The seat at `now_s` (Unix, s), and whether the head of a running ring is reached."""
    seat, is_linked = Seat.NONE, False
    for call, ring in rings:
        grid = registration_grid(call)
        if grid.time_s(0) <= now_s < grid.time_s(call.rounds):
            seat, is_linked = Seat.RUNNING, is_linked or ring.is_head_linked
        elif now_s < grid.time_s(0) and seat is Seat.NONE:
            seat = Seat.NEXT
    return seat, is_linked


def running_epoch(rings: Iterable[tuple[wire.EpochCall, Membership]], now_s: float) -> int | None:
    """The epoch of the ring that runs at `now_s` (Unix, s), None where none does."""
    for call, _ in rings:
        grid = registration_grid(call)
        if grid.time_s(0) <= now_s < grid.time_s(call.rounds):
            return call.epoch
    return None
