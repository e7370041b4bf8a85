"""
How a node stops when it is asked to: the rounds under way are settled first, for a while; then it is cut off.

A gateway that vanishes between its share and the result costs its ring an attempt, and has to ask after its next start
what became of its contribution.  So a process that is told to stop waits until no gateway has one under way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Protocol

import trio

log = logging.getLogger(__name__)
_LOOK_S = 0.05


class HasContribution(Protocol):
    """A gateway."""

    @property
    def is_in_round(self) -> bool: ...  # noqa: D102


async def settled(gateways: Callable[[], Iterable[HasContribution]], drain_s: float) -> None:
    """Return when no gateway waits for the end of a round, after `drain_s` at the latest."""
    waiting = 0
    with trio.move_on_after(drain_s):
        while waiting := sum(each.is_in_round for each in gateways()):
            await trio.sleep(_LOOK_S)
        return
    log.warning("%d gateways are stopped within a round, which did not end in %g s", waiting, drain_s)
