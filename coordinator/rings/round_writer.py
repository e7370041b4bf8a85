"""
Ends of rounds on their way to the disk: written many at a time, and only then announced.

If they cannot be written nobody hears of them, the gateways keep asking, and the operator reads why in the log and in
`stromkreis_peer_errors_total{reason="store_error"}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio
from sqlalchemy.exc import SQLAlchemyError

from coordinator.events import Emit, StoreFailed
from coordinator.rings.epochs import AreaEpoch, EpochRing
from coordinator.storage.irrevocable import IrrevocableLog
from coordinator.storage.range_checks import RangeCheck
from coordinator.storage.rounds import RoundRepository
from coordinator.threads import RETRY_S, in_thread
from protocol import wire
from protocol.dcnet.machines.effects import Ended, RoundEnded, ToMember, ToRing


@dataclass(slots=True)
class PendingRoundResult:
    """The end of a ring's round that waits for the disk, with what follows it."""

    record: RoundEnded
    ring: EpochRing
    epoch: AreaEpoch
    then: list[ToMember[wire.Message] | ToRing] = field(default_factory=list)
    checks: list[RangeCheck] | None = None
    """Who proves what of it, drawn once: a write that failed may have been done."""

    @property
    def ended(self) -> Ended:
        """How the round ended."""
        return self.record.ended

    @property
    def signature(self) -> bytes | None:
        """That of the RESULT that follows it."""
        results = (each.message for each in self.then if isinstance(each.message, wire.Result))
        return next((each.signature for each in results), None)


def _key(ended: Ended) -> tuple[int, int, int]:
    return ended.epoch, ended.ring, ended.round


class RoundWriter:
    """
    The queue to the disk; `written` is called with each end as soon as it is durable.

    `enrolled` counts the active gateways of each area, as far as that is known; `draw` says who proves ranges.
    """

    def __init__(
        self,
        rounds: RoundRepository,
        irrevocable: IrrevocableLog,
        enrolled: Callable[[], Mapping[str, int]],
        emit: Emit,
        written: Callable[[PendingRoundResult], None],
        draw: Callable[[PendingRoundResult], list[RangeCheck]],
    ) -> None:
        self._rounds = rounds
        self._irrevocable = irrevocable
        self._enrolled = enrolled
        self._emit = emit
        self._written = written
        self._draw = draw
        self._queue: list[PendingRoundResult] = []
        self._undurable: set[tuple[int, int, int]] = set()
        self._wanted = trio.Event()

    def add(self, ending: PendingRoundResult) -> None:
        """Have it written."""
        self._queue.append(ending)
        self._undurable.add(_key(ending.ended))
        self._wanted.set()

    def is_waiting(self, epoch: int, ring: int, round_: int) -> bool:
        """Whether the end of this round is known but not durable yet."""
        return (epoch, ring, round_) in self._undurable

    def waiting_epochs(self) -> set[int]:
        """The epochs of which a round's end is known but not durable yet."""
        return {epoch for epoch, _, _ in self._undurable}

    @property
    def queued(self) -> int:
        """Ended rounds that wait for the disk."""
        return len(self._undurable)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            batch, self._queue = self._queue, []
            try:
                await in_thread(self._write, batch, self._enrolled())
            except (SQLAlchemyError, OSError) as error:
                self._emit(StoreFailed.by(error, "the round ledger cannot be written, rounds stay unanswered"))
                self._queue = batch + self._queue
                await trio.sleep(RETRY_S)
                self._wanted.set()
                continue
            for each in batch:
                self._undurable.discard(_key(each.ended))
                self._written(each)

    def _write(self, batch: list[PendingRoundResult], enrolled: Mapping[str, int]) -> None:
        for each in batch:
            if each.checks is None:
                each.checks = self._draw(each)
        commitments = {_key(each.ended): each.record.commitments for each in batch if each.record.commitments}
        signatures = {_key(each.ended): each.signature for each in batch if each.signature is not None}
        checks = [check for each in batch for check in each.checks or ()]
        self._rounds.record_many([each.ended for each in batch], commitments, enrolled, signatures, checks)
        for each in batch:
            self._irrevocable.reach(each.ended.epoch, each.ended.round)
