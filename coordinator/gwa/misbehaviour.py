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

from coordinator.events import Emit, MisbehaviourReported, StatusChanged, StoreFailed
from coordinator.metrics import CoordinatorMetrics
from coordinator.storage.misbehaviour import MisbehaviourRepository, StoredReport
from coordinator.threads import RETRY_S, in_thread

log = logging.getLogger(__name__)
_WAITING_MAX = 10_000  # reports that wait for the disk
_PRUNE_S = 3600.0


class MisbehaviourReports:
    """Takes them on the trio thread and has them written; `run` serves until cancelled."""

    def __init__(
        self,
        repository: MisbehaviourRepository,
        metrics: CoordinatorMetrics,
        clock: Callable[[], float],
        emit: Emit,
    ) -> None:
        self._repository = repository
        self._metrics = metrics
        self._clock = clock
        self._emit = emit
        self._waiting: dict[tuple[str, str, str], StoredReport] = {}
        self._wanted = trio.Event()

    def add(self, report: MisbehaviourReported) -> None:
        """Log, count and keep a report."""
        log.warning(
            "epoch %d ring %d round %d: %s reports %s of %s", report.epoch, report.ring, report.round, report.reporter,
            report.misbehaviour, report.reported,
        )  # fmt: skip
        self._metrics.misbehaviour_report(report.misbehaviour)
        now_ms = self._now_ms()
        if len(self._waiting) < _WAITING_MAX:
            self._waiting[report.reporter, report.reported, report.misbehaviour] = StoredReport(
                report.reporter, report.reported, report.misbehaviour, report.area, 1, report.epoch, report.ring,
                report.round, now_ms, now_ms,
            )  # fmt: skip
            self._wanted.set()

    async def run(self) -> None:
        """Write until cancelled, and forget what is old."""
        while True:
            batch, self._waiting = self._waiting, {}
            self._wanted = trio.Event()
            try:
                await in_thread(self._repository.write, list(batch.values()), self._now_ms())
            except SQLAlchemyError as error:
                self._emit(StoreFailed.by(error, "misbehaviour reports cannot be written, they wait"))
                self._waiting = batch | self._waiting
                await trio.sleep(RETRY_S)
                continue
            if batch:
                self._emit(StatusChanged())
            with trio.move_on_after(_PRUNE_S):
                await self._wanted.wait()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
