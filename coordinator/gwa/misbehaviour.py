"""
What gateways report of each other: a head that a member misbehaves, a member that its neighbour dealt it a bad share.

It is one gateway's word, and nothing follows from it but that the operator reads it.  How much of it is kept is bounded
(`coordinator.storage.misbehaviour`); a ring lets each pair through once an epoch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio
from sqlalchemy.exc import SQLAlchemyError

from coordinator.metrics import CoordinatorMetrics
from coordinator.storage.engine import fault_of
from coordinator.storage.misbehaviour import MisbehaviourRepository, StoredReport
from coordinator.threads import in_thread
from protocol.wire import Misbehaviour

log = logging.getLogger(__name__)
BAD_DEAL = "bad_deal"
MISBEHAVIOURS = (*(each.name.lower() for each in Misbehaviour), BAD_DEAL)
_WAITING_MAX = 10_000  # reports that wait for the disk
_RETRY_S = 1.0
_PRUNE_S = 3600.0


class MisbehaviourReports:
    """Takes them on the trio thread and has them written; `run` serves until cancelled."""

    def __init__(
        self, repository: MisbehaviourRepository, metrics: CoordinatorMetrics, clock: Callable[[], float]
    ) -> None:
        self._repository = repository
        self._metrics = metrics
        self._clock = clock
        self._waiting: dict[tuple[str, str, str], StoredReport] = {}
        self._wanted = trio.Event()

    def add(self, reporter: str, reported: str, misbehaviour: str, area: str, place: tuple[int, int, int]) -> None:
        """Log, count and keep a report; `place` is epoch, ring and round."""
        epoch, ring, round_ = place
        log.warning(
            "epoch %d ring %d round %d: %s reports %s of %s", epoch, ring, round_, reporter, misbehaviour, reported
        )
        self._metrics.misbehaviour_report(misbehaviour)
        now_ms = self._now_ms()
        if len(self._waiting) < _WAITING_MAX:
            report = StoredReport(reporter, reported, misbehaviour, area, 1, epoch, ring, round_, now_ms, now_ms)
            self._waiting[reporter, reported, misbehaviour] = report
            self._wanted.set()

    async def run(self, changed: Callable[[], None]) -> None:
        """Write until cancelled, and forget what is old; `changed` is called when something new is durable."""
        while True:
            batch, self._waiting = self._waiting, {}
            self._wanted = trio.Event()
            try:
                await in_thread(self._repository.write, list(batch.values()), self._now_ms())
            except SQLAlchemyError as error:
                self._metrics.peer_error("store_error")
                log.error("misbehaviour reports cannot be written, they wait: %s", fault_of(error))
                self._waiting = batch | self._waiting
                await trio.sleep(_RETRY_S)
                continue
            if batch:
                changed()
            with trio.move_on_after(_PRUNE_S):
                await self._wanted.wait()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
