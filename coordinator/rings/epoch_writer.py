"""
Messages that make an epoch leave once what they promise is durable: the call, as gateways take no second one of its
number and try; the list, as they show their values for no second one; layout, deals and first appointment.

Epochs are written in a worker thread and again every RETRY_S where the database refuses, so a full disk delays what it
concerns and nothing else.  What cannot be written before its gateways would have to answer has come to nothing: the
coordinator then gives that epoch up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import trio
from sqlalchemy.exc import SQLAlchemyError

from coordinator.events import Emit, MessagesReady, StoreFailed, To
from coordinator.rings.epochs import AreaEpoch, Phase
from coordinator.storage.enrolment_log import EnrolmentLogRepository
from coordinator.storage.epochs import EpochRecord, EpochRepository, RingLayout
from coordinator.storage.irrevocable import IrrevocableLog
from coordinator.threads import RETRY_S, in_thread
from protocol.dcnet.setup.schema import Schema

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    """What waits for an epoch to be durable: its messages, and greetings for gateways that came meanwhile."""

    epoch: AreaEpoch
    messages: list[To] = field(default_factory=list)
    greetings: dict[str, Callable[[], Sequence[To]]] = field(default_factory=dict)


class EpochWriter:
    """Durable first, then said: emits `MessagesReady` for what may leave, `StoreFailed` for what was not written."""

    def __init__(
        self, epochs: EpochRepository, irrevocable: IrrevocableLog, emit: Emit, log_: EnrolmentLogRepository
    ) -> None:  # fmt: skip
        self._epochs = epochs
        self._log = log_
        self._irrevocable = irrevocable
        self._emit = emit
        self._held: dict[int, _Held] = {}
        self._over: dict[int, Mapping[int, bytes]] = {}
        self._work = trio.Event()

    def holds(self, epoch: AreaEpoch) -> bool:
        """Whether something of this epoch is not durable yet."""
        return epoch.call.epoch in self._held

    def keep(self, epoch: AreaEpoch, messages: Sequence[To]) -> None:
        """Make the epoch durable as it stands, then send."""
        self._held.setdefault(epoch.call.epoch, _Held(epoch)).messages += messages
        self._work.set()

    def greet(self, epoch: AreaEpoch, identity: str, greeting: Callable[[], Sequence[To]]) -> None:
        """Send a gateway what `greeting` returns: now, or when all that it may contain is durable."""
        held = self._held.get(epoch.call.epoch)
        if held is None:
            self._emit(MessagesReady(greeting()))
        else:
            held.greetings[identity] = greeting

    def drop(self, number: int, histories: Mapping[int, bytes] | None = None) -> None:
        """
        The epoch is over or given up: what a restart would need of it goes, and with it the result key.

        `histories` are the leaves of its rings' histories, for the enrolment log.
        """
        self._held.pop(number, None)
        self._over[number] = histories or {}
        self._work.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            written = [await self._write(each) for each in list(self._held.values()) if self.holds(each.epoch)]
            written += [await self._forget(number) for number in list(self._over)]
            if not all(written):
                await trio.sleep(RETRY_S)
                self._work.set()

    async def _write(self, held: _Held) -> bool:
        epoch, count = held.epoch, len(held.messages)
        call = epoch.call
        schema = Schema.from_bytes(call.schema)  # the call's, whatever is configured since
        row = EpochRecord(call.epoch, call.area, schema, call.rounds, call.interval_start_s, call.interval_s)
        rings = [RingLayout(call.epoch, ring.view.ring, tuple(ring.positions)) for ring in epoch.rings]
        try:
            if epoch.phase is Phase.CALLED:
                await in_thread(self._note_call, call.area, call.epoch, epoch.to_state())
            else:
                await in_thread(_lay_out, self._epochs, row, rings, epoch.to_state())
        except (SQLAlchemyError, OSError) as error:
            what = f"epoch {call.epoch} of area {call.area} cannot be kept, its gateways wait"
            self._emit(StoreFailed.by(error, what))
            return False
        if self._held.get(call.epoch) is not held:  # given up while it was written
            return True
        if epoch.phase is Phase.DEALING:
            self._log_layout(epoch)
        self._emit(MessagesReady(held.messages[:count]))
        del held.messages[:count]
        if not held.messages:
            del self._held[call.epoch]
            for greeting in held.greetings.values():
                self._emit(MessagesReady(greeting()))
        else:
            self._work.set()
        return True

    def _note_call(self, area: str, epoch: int, state: bytes) -> None:
        self._epochs.note_call(area, epoch, state)
        self._irrevocable.call(epoch)

    async def _forget(self, number: int) -> bool:
        try:
            await in_thread(self._end, number, self._over[number])
        except SQLAlchemyError as error:
            self._emit(StoreFailed.by(error, f"the keys of epoch {number}, which is over, cannot be deleted yet"))
            return False
        del self._over[number]
        return True

    def _end(self, number: int, histories: Mapping[int, bytes]) -> None:
        for ring, leaf in histories.items():
            self._log.add_history(number, ring, leaf)
        self._epochs.delete_state(number)

    @staticmethod
    def _log_layout(epoch: AreaEpoch) -> None:
        view = epoch.rings[0].view
        log.info(
            "epoch %d of area %s: %d gateways in rings of %s, k=%d t=%d n_min=%d", epoch.call.epoch, epoch.call.area,
            epoch.joined, sorted({ring.view.size for ring in epoch.rings}), view.k, view.t, view.n_min,
        )  # fmt: skip


def _lay_out(epochs: EpochRepository, epoch: EpochRecord, rings: Sequence[RingLayout], state: bytes) -> None:
    """A connection that breaks at the commit does not say whether the layout was written; so look first."""
    if epochs.layout(epoch.epoch) != rings:
        epochs.add(epoch, rings)
    epochs.save_state(epoch.epoch, state)
