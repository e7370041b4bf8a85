"""
What the market participant asks the round ledger: totals by time and area, how rounds ended, who took part.

Rings are a means: the operator wants areas.  A total of an area is the exact integer sum of its rings' totals of one
metering interval; it is complete once every ring has ended that round, opened or void.  Sums are made with Python's
integers, not in SQL: a sum there overflows or changes its type.  Totals of different schemas are never added up, and
one ring that is not verified makes the sum unverified.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, func, select, tuple_

from coordinator.store import Epoch, Store, ended_of, epoch_of
from coordinator.tables import epochs, ring_rounds, rings
from protocol.dcnet.crypto.noise import total_deviation
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.schema import Schema
from protocol.metering.interval import index_at

RoundKey = tuple[int, int, int]  # epoch, round, ring: the order of pages, newest first
_JOINED = ring_rounds.join(epochs, ring_rounds.c.epoch == epochs.c.epoch)
_WITH_RINGS = _JOINED.join(rings, (ring_rounds.c.epoch == rings.c.epoch) & (ring_rounds.c.ring == rings.c.ring))


@dataclass(frozen=True, slots=True)
class AreaTotal:
    """
    One metering interval of an area (of all areas where `area` is None).

    `words` are exact signed sums in the order of the schema; `present` of `members` gateways are in them; `opened` and
    `void` rings ended out of `rings`.  `latencies_s` are those of the opened rounds, `retries` their extra attempts.
    """

    interval_start_s: int
    interval_s: int
    area: str | None
    schema: Schema
    words: tuple[int, ...]
    verified: bool
    present: int
    members: int
    opened: int
    void: int
    rings: int
    retries: int
    latencies_s: tuple[float, ...]

    @property
    def complete(self) -> bool:
        """Whether every ring has ended this interval's round."""
        return self.opened + self.void >= self.rings

    def deviation(self, slot: int) -> float | None:
        """
        Standard deviation of the noise in a slot, in its own integers; None where the total is exact.

        Of each ring the noise that it has at least: what members beyond those that are taken to be honest add is more.
        """
        noise = self.schema.slots[slot].noise
        if noise is None or not self.opened:
            return None
        return math.sqrt(self.opened) * total_deviation(noise.epsilon_ppm, noise.sensitivity)


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """How a round ended, with its area and its ring's members in position order."""

    ended: Ended
    area: str
    interval_start_s: int
    members: tuple[str, ...]

    @property
    def key(self) -> RoundKey:
        """Where this round stands in the order of pages."""
        return self.ended.epoch, self.ended.round, self.ended.ring

    @property
    def missing(self) -> tuple[int, ...]:
        """Positions that are not in the roster: all of them where the round is void."""
        return tuple(position for position in range(len(self.members)) if not self.ended.roster >> position & 1)

    @property
    def head(self) -> str:
        """The gateway that was head."""
        return self.members[self.ended.term % len(self.members)]


@dataclass(frozen=True, slots=True)
class _Layout:
    epoch: Epoch
    rings: int
    members: int

    def covers(self, interval_start_s: int) -> bool:
        epoch = self.epoch
        return 0 <= index_at(interval_start_s, epoch.interval_start_s, epoch.interval_s) < epoch.rounds


class Totals:
    """Queries over the round ledger; all of them block."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def areas(self) -> list[str]:
        """The names of all areas that ever had an epoch."""
        with self._store.read() as connection:
            return list(connection.scalars(select(epochs.c.area).distinct().order_by(epochs.c.area)))

    def last_interval_start_s(self, *, area: str | None = None) -> int | None:
        """The start of the newest interval that has an ended round."""
        statement = select(func.max(ring_rounds.c.interval_start_s)).select_from(_JOINED)
        if area is not None:
            statement = statement.where(epochs.c.area == area)
        with self._store.read() as connection:
            last: int | None = connection.scalar(statement)
        return last

    def totals(self, from_s: int, to_s: int, *, area: str | None = None, limit: int | None = None) -> list[AreaTotal]:
        """Totals of the intervals that start in [from_s, to_s), oldest first, of at most `limit` intervals."""
        start = ring_rounds.c.interval_start_s
        columns = (
            start, epochs.c.schema, ring_rounds.c.epoch, ring_rounds.c.present, ring_rounds.c.attempt,
            ring_rounds.c.verified, ring_rounds.c.total, ring_rounds.c.opened_s, ring_rounds.c.ended_s,
        )  # fmt: skip
        rounds = (
            select(*columns).select_from(_JOINED).where(start >= from_s, start < to_s).order_by(start, epochs.c.schema)
        )
        if area is not None:
            rounds = rounds.where(epochs.c.area == area)
        if limit is not None:
            page = rounds.with_only_columns(start).order_by(None).order_by(start).distinct().limit(limit).subquery()
            rounds = rounds.where(start.in_(select(page.c.interval_start_s)))
        with self._store.read() as connection:
            rows = connection.execute(rounds).all()
            layouts = _layouts(connection, rows[0].interval_start_s, rows[-1].interval_start_s, area) if rows else []
        grouped = groupby(rows, key=lambda row: (row.interval_start_s, row.schema))
        return [_area_total(interval, schema, area, list(group), layouts) for (interval, schema), group in grouped]

    def rounds(
        self, *, limit: int, before: RoundKey | None = None, epoch: int | None = None, ring: int | None = None,
        area: str | None = None, outcome: str | None = None,
    ) -> list[RoundRecord]:  # fmt: skip
        """Ended rounds, newest first, those older than `before`."""
        key = tuple_(ring_rounds.c.epoch, ring_rounds.c.round, ring_rounds.c.ring)
        statement = select(ring_rounds, epochs.c.area, rings.c.members).select_from(_WITH_RINGS)
        wanted = (
            (ring_rounds.c.epoch, epoch), (ring_rounds.c.ring, ring), (epochs.c.area, area),
            (ring_rounds.c.outcome, outcome),
        )  # fmt: skip
        for column, value in wanted:
            if value is not None:
                statement = statement.where(column == value)
        if before is not None:
            statement = statement.where(key < before)
        newest = (ring_rounds.c.epoch.desc(), ring_rounds.c.round.desc(), ring_rounds.c.ring.desc())
        with self._store.read() as connection:
            return [_record(row) for row in connection.execute(statement.order_by(*newest).limit(limit))]


def _layouts(connection: Connection, first_s: int, last_s: int, area: str | None) -> list[_Layout]:
    """The epochs that cover a part of [first_s, last_s], oldest first."""
    statement = (
        select(epochs, func.count().label("rings"), func.sum(rings.c.size).label("members"))
        .join(rings, epochs.c.epoch == rings.c.epoch)
        .where(
            epochs.c.interval_start_s <= last_s,
            epochs.c.interval_start_s + epochs.c.rounds * epochs.c.interval_s > first_s,
        )
        .group_by(*epochs.c)
        .order_by(epochs.c.epoch)
    )
    if area is not None:
        statement = statement.where(epochs.c.area == area)
    rows = connection.execute(statement).mappings()
    return [_Layout(epoch_of(row), row["rings"], int(row["members"])) for row in rows]


def _area_total(
    interval_start_s: int, schema: bytes, area: str | None, rows: Sequence[Any], layouts: Iterable[_Layout]
) -> AreaTotal:
    meant = Schema.from_bytes(schema)
    used = {row.epoch for row in rows}
    # An epoch that was cut short leaves its last intervals to the next one: only the newest of an area counts as
    # awaited, and of the older ones those that ended a round here.
    awaited: dict[str, _Layout] = {}
    counted: dict[int, _Layout] = {}
    for layout in layouts:
        if layout.covers(interval_start_s) and layout.epoch.schema == meant:
            awaited[layout.epoch.area] = layout
            if layout.epoch.epoch in used:
                counted[layout.epoch.epoch] = layout
    counted |= {layout.epoch.epoch: layout for layout in awaited.values()}
    opened = [row for row in rows if row.total is not None]
    return AreaTotal(
        interval_start_s, counted[rows[0].epoch].epoch.interval_s, area, meant,
        words=_sum([row.total for row in opened], len(meant.slots)),
        verified=bool(opened) and all(row.verified for row in opened),
        present=sum(row.present for row in rows), members=sum(layout.members for layout in counted.values()),
        opened=len(opened), void=len(rows) - len(opened), rings=sum(layout.rings for layout in counted.values()),
        retries=sum(row.attempt for row in rows), latencies_s=tuple(row.ended_s - row.opened_s for row in opened),
    )  # fmt: skip


def _sum(totals: Sequence[bytes], size: int) -> tuple[int, ...]:
    """Exact sums of signed 64-bit words; the halves are added apart, so that 2^31 rings cannot overflow."""
    words = np.frombuffer(b"".join(totals), dtype="<i8").reshape(-1, size)
    high, low = (words >> 32).sum(axis=0), (words & 0xFFFFFFFF).sum(axis=0)
    return tuple((int(h) << 32) + int(part) for h, part in zip(high, low, strict=True))


def _record(row: Row[Any]) -> RoundRecord:
    return RoundRecord(ended_of(row._mapping), row.area, row.interval_start_s, tuple(row.members))
