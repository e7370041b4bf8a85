"""
Time: when epochs are called, cut, begun and forgotten, and when rounds are over.

The machines (areas, epochs, round ledgers) say when they want to be woken; here is the one task that does it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import trio

from coordinator.events import Emit, MessagesReady, To
from coordinator.metrics import CoordinatorMetrics
from coordinator.rings.areas import Areas
from coordinator.rings.early import EarlyCalls
from coordinator.rings.epoch_writer import EpochWriter
from coordinator.rings.epochs import AreaEpoch, Phase
from coordinator.rings.histories import history_leaves
from coordinator.rings.rounds import Rounds

log = logging.getLogger(__name__)
_TICK_S = 5.0  # longest sleep of the timer loop: bounds the harm of a clock that is set


class Scheduler:
    """Wakes the machines; `run` serves until cancelled."""

    def __init__(
        self,
        areas: Areas,
        keeper: EpochWriter,
        rounds: Rounds,
        metrics: CoordinatorMetrics,
        emit: Emit,
        clock: Callable[[], float],
        early: EarlyCalls,
    ) -> None:
        self._areas = areas
        self._keeper = keeper
        self._rounds = rounds
        self._metrics = metrics
        self._emit = emit
        self._clock = clock
        self._early = early
        self._wake = trio.Event()

    def wake(self) -> None:
        """Something happened that may be due earlier."""
        self._wake.set()

    def after_phase(self, epoch: AreaEpoch, messages: Sequence[To]) -> None:
        """An epoch has (perhaps) gone on: make it durable, then say what it has to say."""
        if epoch.phase is not Phase.REFUSED and messages:
            self._keeper.keep(epoch, messages)
        elif epoch.phase is Phase.REFUSED:
            log.warning("epoch %d: %s", epoch.call.epoch, epoch.refusal)
            self._metrics.peer_error("epoch_refused")
            self._keeper.drop(epoch.call.epoch)
            self._emit(MessagesReady(messages))
        self.wake()

    async def run(self) -> None:
        """Keep time until cancelled."""
        while True:
            self._on_time(self._clock())
            with trio.move_on_after(min(_TICK_S, max(0.0, self._next_timer_s() - self._clock()))):
                await self._wake.wait()
            self._wake = trio.Event()
            await trio.lowlevel.checkpoint()

    def _next_timer_s(self) -> float:
        times = [self._areas.next_timer_s(), self._early.next_timer_s()]
        for area in self._areas.areas.values():
            times += [epoch.next_timer_s() for epoch in area.epochs]
        for epoch, ring in self._areas.rings():
            if ring.ledger is not None and not epoch.has_ended(ring):
                times.append(ring.ledger.next_timer_s())
        return min(times)

    def _on_time(self, now_s: float) -> None:
        self._areas.forget_silent(now_s)
        for area in self._areas.areas.values():
            for epoch in area.epochs:
                self._on_epoch_time(epoch, now_s)
        self._areas.end_replaced()
        for epoch, ring in self._areas.rings():
            if ring.ledger is not None and not epoch.has_ended(ring):
                # However late we are: no round is closed that is the next epoch's.
                until_s = ring.view.timing.open_at_s(epoch.rounds)
                self._rounds.carry_out(epoch, ring, ring.ledger.on_timer(min(now_s, until_s)))
        for epoch in self._areas.drop_finished(now_s, self._rounds.writer.waiting_epochs()):
            self._keeper.drop(epoch.call.epoch, history_leaves(epoch))
        for area, epoch in [*self._areas.call_due(now_s), *self._early.call_due(now_s)]:
            log.info("epoch %d of area %s: called %d gateways", epoch.call.epoch, area.name, len(area.present))
            self._keeper.keep(epoch, [to for identity in sorted(area.present) for to in epoch.invite(identity)])
        rings = self._areas.rings()
        for epoch in {id(each): each for each, _ in rings}.values():
            timing = epoch.rings[0].view.timing
            if timing.open_at_s(0) <= now_s < (end_s := timing.open_at_s(epoch.rounds)):
                self._metrics.areas.running(epoch.call.area, epoch.call.epoch, end_s)
        self._metrics.rings.set(len(rings))
        self._metrics.ring_members.set(sum(ring.view.size for _, ring in rings))

    def _on_epoch_time(self, epoch: AreaEpoch, now_s: float) -> None:
        if self._keeper.holds(epoch) and now_s >= epoch.next_timer_s():
            what = "call or list" if epoch.phase is Phase.CALLED else "their layout"
            reason = f"area {epoch.call.area} cannot form rings: {what} could not be made durable in time"
            self.after_phase(epoch, epoch.give_up(reason))
        elif messages := epoch.on_timer(now_s):
            self.after_phase(epoch, messages)
