"""
What gateways report of each other, kept for the operator to read.

What is kept is bounded, whatever they say: a row for each reporter, reported gateway and misbehaviour, with the number
of epochs that it was said in; of each reporter the REPORTED_MAX that it named last; none that was not repeated for
KEEP_DAYS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, case, func, select, tuple_

from coordinator.storage.engine import Database
from coordinator.storage.tables import misbehaviour_reports as reports

REPORTED_MAX = 64  # of one reporter: who names more says it of itself; more makes the table larger, rows a gateway
KEEP_DAYS = 400

ReportKey = tuple[int, str, str, str]
"""Where a report stands in the order of pages: last_ms, reporter, reported, misbehaviour."""


@dataclass(frozen=True, slots=True)
class StoredReport:
    """`reporter` says that `reported` misbehaves; last in `round` of `epoch` and `ring`, at `last_ms`."""

    reporter: str
    reported: str
    misbehaviour: str
    area: str
    epochs: int
    epoch: int
    ring: int
    round: int
    first_ms: int
    last_ms: int

    @property
    def key(self) -> ReportKey:
        """Its place in the order of pages."""
        return self.last_ms, self.reporter, self.reported, self.misbehaviour


class MisbehaviourRepository:
    """Table `misbehaviour_reports`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, batch: Sequence[StoredReport], now_ms: int) -> None:
        """Keep new ones, and forget what is too old or too much."""
        statement = self._database.insert(reports)
        new, old = statement.excluded, reports.c
        statement = statement.on_conflict_do_update(
            index_elements=["reporter", "reported", "misbehaviour"],
            set_={
                # Said again in the same epoch, after a restart of ours, it is no other time.
                "epochs": old.epochs + case((new.epoch > old.epoch, 1), else_=0),
                **{name: new[name] for name in ("area", "epoch", "ring", "round", "last_ms")},
            },
        )
        rows = [{column.name: getattr(each, column.name) for column in reports.columns} for each in batch]
        with self._database.write() as connection:
            if rows:
                connection.execute(statement, rows)
            for reporter in sorted({each.reporter for each in batch}):
                _forget_oldest(connection, reporter)
            connection.execute(reports.delete().where(old.last_ms < now_ms - KEEP_DAYS * 86_400_000))

    def page(
        self, *, limit: int, area: str | None = None, reporter: str | None = None, reported: str | None = None,
        before: ReportKey | None = None,
    ) -> list[StoredReport]:  # fmt: skip
        """Reports, the last said first, those before `before`."""
        columns = reports.c
        order = (columns.last_ms, columns.reporter, columns.reported, columns.misbehaviour)
        statement = select(reports).order_by(*(each.desc() for each in order)).limit(limit)
        for column, value in ((columns.area, area), (columns.reporter, reporter), (columns.reported, reported)):
            if value is not None:
                statement = statement.where(column == value)
        if before is not None:
            statement = statement.where(tuple_(*order) < before)
        with self._database.read() as connection:
            return [StoredReport(**row) for row in connection.execute(statement).mappings()]

    def count(self, *, area: str | None = None) -> int:
        """How many are kept."""
        statement = select(func.count()).select_from(reports)
        if area is not None:
            statement = statement.where(reports.c.area == area)
        with self._database.read() as connection:
            return connection.scalar(statement) or 0


def _forget_oldest(connection: Connection, reporter: str) -> None:
    """All that a gateway reported but the REPORTED_MAX that it said last."""
    columns = reports.c
    kept = select(columns.reported, columns.misbehaviour, columns.last_ms).where(columns.reporter == reporter)
    kept = kept.order_by(columns.last_ms.desc(), columns.reported, columns.misbehaviour).offset(REPORTED_MAX)
    for row in connection.execute(kept).all():
        mine = and_(
            columns.reporter == reporter, columns.reported == row.reported, columns.misbehaviour == row.misbehaviour
        )
        connection.execute(reports.delete().where(mine))
