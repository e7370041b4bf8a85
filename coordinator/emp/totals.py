"""
What the market participant asks the round book: totals by time and area, how rounds ended, who took part.

Rings are a means: the operator wants areas.  A total of an area is the exact integer sum of its rings' totals of one
metering interval; it is complete once every ring of the area has ended that round, opened or void.  Sums are made
with Python's integers, not in SQL: a sum there overflows or changes its type.  Rounds of different epochs are never
added up, since their schemas may differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import Row, func, select, tuple_

from coordinator.store import Ended, Ring, Slot, Store, ended_of, epoch_of, unpack_roster, unpack_total
from coordinator.tables import epochs, ring_rounds, rings

RoundKey = tuple[int, int, int]  # epoch, round, ring: the order of pages, newest first
_JOINED = ring_rounds.join(rings, (ring_rounds.c.epoch == rings.c.epoch) & (ring_rounds.c.ring == rings.c.ring))


@dataclass(frozen=True, slots=True)
class AreaTotal:
    """
    One metering interval of an area (of all areas where `area` is None).

    `words` are exact sums in the order of `slots`; `present` of `expected` gateways are in them; `opened` and `void`
    rings ended out of `rings`.
    """

    interval_ms: int
    epoch: int
    period_s: int
    area: str | None
    slots: tuple[Slot, ...]
    words: tuple[int, ...]
    present: int
    expected: int
    opened: int
    void: int
    rings: int

    @property
    def complete(self) -> bool:
        """Whether every ring has ended this interval's round."""
        return self.opened + self.void == self.rings


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """How a round ended, with its ring's area and size; `missing` are not in the roster (all of them, where void)."""

    ended: Ended
    area: str
    size: int
    missing: tuple[str, ...]

    @property
    def key(self) -> RoundKey:
        """Where this round stands in the order of pages."""
        return self.ended.epoch, self.ended.round, self.ended.ring


class Totals:
    """Queries over the round book; all of them block."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def areas(self) -> list[str]:
        """The names of all areas that ever had a ring."""
        with self._store.read() as connection:
            return list(connection.scalars(select(rings.c.area).distinct().order_by(rings.c.area)))

    def last_interval_ms(self, *, area: str | None = None) -> int | None:
        """The start of the newest interval that has an ended round."""
        statement = select(func.max(ring_rounds.c.interval_ms)).select_from(_JOINED)
        if area is not None:
            statement = statement.where(rings.c.area == area)
        with self._store.read() as connection:
            last: int | None = connection.scalar(statement)
        return last

    def totals(self, from_ms: int, to_ms: int, *, area: str | None = None, limit: int | None = None) -> list[AreaTotal]:
        """Totals of the intervals that start in [from_ms, to_ms), oldest first, of at most `limit` intervals."""
        rounds = (
            select(ring_rounds)
            .select_from(_JOINED)
            .where(ring_rounds.c.interval_ms >= from_ms, ring_rounds.c.interval_ms < to_ms)
        )
        layout = select(rings.c.epoch, func.count().label("rings")).group_by(rings.c.epoch)
        if area is not None:
            rounds, layout = rounds.where(rings.c.area == area), layout.where(rings.c.area == area)
        if limit is not None:
            intervals = rounds.with_only_columns(ring_rounds.c.interval_ms).distinct()
            page = intervals.order_by(ring_rounds.c.interval_ms).limit(limit).subquery()
            rounds = rounds.where(ring_rounds.c.interval_ms.in_(select(page.c.interval_ms)))
        with self._store.read() as connection:
            rows = connection.execute(rounds.order_by(ring_rounds.c.interval_ms, ring_rounds.c.epoch)).all()
            used = sorted({row.epoch for row in rows})
            of_epoch = connection.execute(select(epochs).where(epochs.c.epoch.in_(used))).mappings()
            schemas = {row["epoch"]: epoch_of(row) for row in of_epoch}
            sizes = {row.epoch: row.rings for row in connection.execute(layout.where(rings.c.epoch.in_(used)))}
        out = []
        for (interval_ms, number), group in groupby(rows, key=lambda row: (row.interval_ms, row.epoch)):
            ended, epoch = list(group), schemas[number]
            out.append(AreaTotal(
                interval_ms, number, epoch.period_s, area, epoch.slots, _sum(ended, len(epoch.slots)),
                present=sum(row.present for row in ended), expected=sum(row.expected for row in ended),
                opened=sum(row.state == "opened" for row in ended), void=sum(row.state == "void" for row in ended),
                rings=sizes[number],
            ))  # fmt: skip
        return out

    def rounds(
        self, *, limit: int, before: RoundKey | None = None, epoch: int | None = None, ring: int | None = None,
        area: str | None = None, state: str | None = None,
    ) -> list[RoundRecord]:  # fmt: skip
        """Ended rounds, newest first, those older than `before`."""
        key = tuple_(ring_rounds.c.epoch, ring_rounds.c.round, ring_rounds.c.ring)
        statement = select(ring_rounds, rings.c.area, rings.c.members).select_from(_JOINED)
        wanted = {ring_rounds.c.epoch: epoch, ring_rounds.c.ring: ring, rings.c.area: area, ring_rounds.c.state: state}
        for column, value in wanted.items():
            if value is not None:
                statement = statement.where(column == value)
        if before is not None:
            statement = statement.where(key < before)
        newest = (ring_rounds.c.epoch.desc(), ring_rounds.c.round.desc(), ring_rounds.c.ring.desc())
        with self._store.read() as connection:
            return [_record(row) for row in connection.execute(statement.order_by(*newest).limit(limit))]

    def latest_per_ring(self, epoch: int) -> list[tuple[Ring, RoundRecord | None]]:
        """Every ring of an epoch with its last ended round, by ring index."""
        last = (
            select(ring_rounds.c.ring, func.max(ring_rounds.c.round).label("round"))
            .where(ring_rounds.c.epoch == epoch)
            .group_by(ring_rounds.c.ring)
            .subquery()
        )
        statement = (
            select(ring_rounds, rings.c.area, rings.c.members)
            .select_from(_JOINED)
            .join(last, (ring_rounds.c.ring == last.c.ring) & (ring_rounds.c.round == last.c.round))
            .where(ring_rounds.c.epoch == epoch)
        )
        with self._store.read() as connection:
            found = {row.ring: _record(row) for row in connection.execute(statement)}
        return [(ring, found.get(ring.ring)) for ring in self._store.epoch_rings(epoch)]


def _sum(rows: Iterable[Row[Any]], size: int) -> tuple[int, ...]:
    vectors = [unpack_total(row.total) for row in rows if row.total is not None]
    return tuple(map(sum, zip(*vectors, strict=True))) if vectors else (0,) * size


def _record(row: Row[Any]) -> RoundRecord:
    members: Sequence[str] = row.members
    roster = set(unpack_roster(row.roster or b""))
    missing = tuple(member for position, member in enumerate(members) if position not in roster)
    return RoundRecord(ended_of(row._mapping), row.area, len(members), missing)
