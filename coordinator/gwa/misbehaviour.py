"""
What gateways say of each other: a head that a member lies, a member that its neighbour dealt it a bad share.

It is one gateway's claim, and nothing follows from it but that the operator reads it.  What is kept is bounded,
whatever liars say: a row for each accuser, accused and lie, with the number of epochs that it was said in (a ring lets
each pair through once an epoch); of each accuser the ACCUSED_MAX that it named last; none that was not repeated for
KEEP_DAYS.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio
from sqlalchemy import Connection, and_, case, func, select, tuple_
from sqlalchemy.exc import SQLAlchemyError

from coordinator.metrics import CoordinatorMetrics
from coordinator.store import Store, fault_of
from coordinator.tables import accusations
from coordinator.threads import in_thread
from protocol.wire import Misbehaviour

log = logging.getLogger(__name__)
BAD_DEAL = "bad_deal"
LIES = (*(each.name.lower() for each in Misbehaviour), BAD_DEAL)
ACCUSED_MAX = 64  # of one accuser: who names more says it of itself; more makes the table larger, rows a gateway
KEEP_DAYS = 400
_WAITING_MAX = 10_000  # claims that wait for the disk
_RETRY_S = 1.0
_PRUNE_S = 3600.0

Key = tuple[int, str, str, str]
"""Where an accusation stands in the order of pages: last_ms, accuser, accused, lie."""


@dataclass(frozen=True, slots=True)
class Accused:
    """`accuser` says that `accused` lies; `round` of `epoch` and `ring` is where it did so last, at `last_ms`."""

    accuser: str
    accused: str
    lie: str
    area: str
    epochs: int
    epoch: int
    ring: int
    round: int
    first_ms: int
    last_ms: int

    @property
    def key(self) -> Key:
        """Its place in the order of pages."""
        return self.last_ms, self.accuser, self.accused, self.lie


class MisbehaviourLog:
    """The accusations in a coordinator's database; all calls block."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def write(self, batch: Sequence[Accused], now_ms: int) -> None:
        """Keep new ones, and forget what is too old or too much."""
        statement = self._store.insert(accusations)
        new, old = statement.excluded, accusations.c
        statement = statement.on_conflict_do_update(
            index_elements=["accuser", "accused", "lie"],
            set_={
                # Said again in the same epoch, after a restart of ours, it is no other time.
                "epochs": old.epochs + case((new.epoch > old.epoch, 1), else_=0),
                **{name: new[name] for name in ("area", "epoch", "ring", "round", "last_ms")},
            },
        )
        rows = [{column.name: getattr(each, column.name) for column in accusations.columns} for each in batch]
        with self._store.write() as connection:
            if rows:
                connection.execute(statement, rows)
            for accuser in sorted({each.accuser for each in batch}):
                _forget_oldest(connection, accuser)
            connection.execute(accusations.delete().where(old.last_ms < now_ms - KEEP_DAYS * 86_400_000))

    def page(
        self, *, limit: int, area: str | None = None, accuser: str | None = None, accused: str | None = None,
        before: Key | None = None,
    ) -> list[Accused]:  # fmt: skip
        """MisbehaviourReports, the last said first, those before `before`."""
        columns = accusations.c
        order = (columns.last_ms, columns.accuser, columns.accused, columns.lie)
        statement = select(accusations).order_by(*(each.desc() for each in order)).limit(limit)
        for column, value in ((columns.area, area), (columns.accuser, accuser), (columns.accused, accused)):
            if value is not None:
                statement = statement.where(column == value)
        if before is not None:
            statement = statement.where(tuple_(*order) < before)
        with self._store.read() as connection:
            return [Accused(**row) for row in connection.execute(statement).mappings()]

    def count(self, *, area: str | None = None) -> int:
        """How many are kept."""
        statement = select(func.count()).select_from(accusations)
        if area is not None:
            statement = statement.where(accusations.c.area == area)
        with self._store.read() as connection:
            return connection.scalar(statement) or 0


class MisbehaviourReports:
    """Hears them, on the trio thread, and has them written; `run` serves until cancelled."""

    def __init__(self, reports: MisbehaviourLog, metrics: CoordinatorMetrics, clock: Callable[[], float]) -> None:
        self._reports = reports
        self._metrics = metrics
        self._clock = clock
        self._waiting: dict[tuple[str, str, str], Accused] = {}
        self._wanted = trio.Event()

    def hear(self, accuser: str, accused: str, lie: str, area: str, place: tuple[int, int, int]) -> None:
        """Log, count and keep an accusation; `place` is epoch, ring and round."""
        epoch, ring, round_ = place
        log.warning("epoch %d ring %d round %d: %s says that %s lies: %s", epoch, ring, round_, accuser, accused, lie)
        self._metrics.accusation(lie)
        now_ms = self._now_ms()
        if len(self._waiting) < _WAITING_MAX:
            said = Accused(accuser, accused, lie, area, 1, epoch, ring, round_, now_ms, now_ms)
            self._waiting[accuser, accused, lie] = said
            self._wanted.set()

    async def run(self, changed: Callable[[], None]) -> None:
        """Write until cancelled, and forget what is old; `changed` is called when something new is durable."""
        while True:
            batch, self._waiting = self._waiting, {}
            self._wanted = trio.Event()
            try:
                await in_thread(self._reports.write, list(batch.values()), self._now_ms())
            except SQLAlchemyError as error:
                self._metrics.peer_error("store_error")
                log.error("accusations cannot be written, they wait: %s", fault_of(error))
                self._waiting = batch | self._waiting
                await trio.sleep(_RETRY_S)
                continue
            if batch:
                changed()
            with trio.move_on_after(_PRUNE_S):
                await self._wanted.wait()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _forget_oldest(connection: Connection, accuser: str) -> None:
    """All that an accuser said but the ACCUSED_MAX that it said last."""
    columns = accusations.c
    kept = select(columns.accused, columns.lie, columns.last_ms).where(columns.accuser == accuser)
    kept = kept.order_by(columns.last_ms.desc(), columns.accused, columns.lie).offset(ACCUSED_MAX)
    for row in connection.execute(kept).all():
        mine = and_(columns.accuser == accuser, columns.accused == row.accused, columns.lie == row.lie)
        connection.execute(accusations.delete().where(mine))
