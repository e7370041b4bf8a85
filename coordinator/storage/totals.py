"""
Totals of areas by metering interval, kept as they end.

Rings are a means: the operator wants areas.  `area_totals` has a row for each round of an area's epoch, the sum over
the rings that ended it so far; it grows in the transaction that ends a ring's round, so that a view reads one row for
each area and interval, however many rings there are.  Sums are made with Python's integers, not in SQL: a sum there
overflows or changes its type.

A total of an area is final once every ring has ended that round, opened or void, and complete where all have opened.
Totals of different schemas are never added up, but for whom they are for, and one ring that is not verified makes the
sum unverified.  A market participant is shown totals of epochs whose call named it, and of those the slots that it is
named for: what a call said then counts, whatever is configured now.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, func, select

from coordinator.storage.engine import Database
from coordinator.storage.epochs import EpochRecord, epoch_of, schema_of
from coordinator.storage.packing import pack_sums, unpack_sums
from coordinator.storage.tables import area_totals, epochs, rings
from protocol.dcnet.crypto.noise import total_deviation
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.schema import Schema, signed
from protocol.metering.interval import index_at
from protocol.wire import Outcome

_LATENCY_US_MAX = 2**32 - 1
RELEASE_INTERVALS = 16
"""Carried energy is released over as many intervals at least (protocol.dcnet.discipline.carried_energy)."""


@dataclass(frozen=True, slots=True)
class AreaTotal:
    """
    One metering interval of an area (of all areas where `area` is None).

    `words` are exact signed sums in the order of the schema, None where no ring opened: nothing is known then.
    `present` of `members` gateways are in them, of `enrolled` that the directory had when the interval's first round
    ended (None: not known); `opened` and `void` rings ended out of `rings`, the smallest of `smallest_ring` members.
    `returned` says that somebody was away in one of the `RELEASE_INTERVALS` before: such a gateway adds a part of what
    it could not contribute then.  `latencies_s` are those of the opened rounds, `retries` their extra attempts.
    """

    interval_start_s: int
    interval_s: int
    area: str | None
    schema: Schema
    words: tuple[int, ...] | None
    verified: bool
    present: int
    members: int
    enrolled: int | None
    opened: int
    void: int
    rings: int
    smallest_ring: int
    retries: int
    latencies_s: tuple[float, ...]
    returned: bool = False

    @property
    def final(self) -> bool:
        """Whether every ring has ended this interval's round: the total will not grow."""
        return self.opened + self.void >= self.rings

    @property
    def complete(self) -> bool:
        """Whether every ring has opened this interval's round."""
        return self.opened >= self.rings

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
class _Layout:
    """An epoch with its rings; `shown` is its schema for whoever asks."""

    epoch: EpochRecord
    shown: Schema
    rings: int
    members: int
    smallest: int

    def covers(self, interval_start_s: int) -> bool:
        epoch = self.epoch
        return 0 <= index_at(interval_start_s, epoch.interval_start_s, epoch.interval_s) < epoch.rounds


class TotalRepository:
    """Table `area_totals`; `add_to_totals` writes it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def last_interval_start_s(self, *, area: str | None = None) -> int | None:
        """The start of the newest interval that has an ended round."""
        statement = select(func.max(area_totals.c.interval_start_s))
        if area is not None:
            statement = statement.where(area_totals.c.area == area)
        with self._database.read() as connection:
            last: int | None = connection.scalar(statement)
        return last

    def newest_interval(self, area: str) -> tuple[int, int] | None:
        """Start and length in seconds of the newest interval of an area that has an ended round."""
        statement = (
            select(area_totals.c.interval_start_s, epochs.c.interval_s)
            .join(epochs, area_totals.c.epoch == epochs.c.epoch)
            .where(area_totals.c.area == area)
            .order_by(area_totals.c.interval_start_s.desc())
            .limit(1)
        )
        with self._database.read() as connection:
            row = connection.execute(statement).first()
        return None if row is None else (row.interval_start_s, row.interval_s)

    def totals(
        self, from_s: int, to_s: int, *, area: str | None = None, limit: int | None = None,
        participant: str | None = None,
    ) -> list[AreaTotal]:  # fmt: skip
        """
        Totals of the intervals that start in [from_s, to_s), oldest first, of at most `limit` intervals.

        Those that are for a `participant` (None: all); it is the recipient of the slots that it may see, and of no
        other.
        """
        start = area_totals.c.interval_start_s
        kept = (
            select(area_totals, epochs.c.schema)
            .join(epochs, area_totals.c.epoch == epochs.c.epoch)
            .where(start >= from_s, start < to_s)
            .order_by(start, epochs.c.schema, area_totals.c.epoch)
        )
        if area is not None:
            kept = kept.where(area_totals.c.area == area)
        if participant is not None:
            kept = kept.where(epochs.c.schema.in_(self._schemas_for(participant)))
        if limit is not None:
            page = kept.with_only_columns(start).order_by(None).order_by(start).distinct().limit(limit).subquery()
            kept = kept.where(start.in_(select(page.c.interval_start_s)))
        with self._database.read() as connection:
            rows = list(connection.execute(kept))
            rows.sort(key=lambda row: (row.interval_start_s, _shown(row.schema, participant)[0], row.epoch))
            span = (rows[0].interval_start_s, rows[-1].interval_start_s) if rows else None
            layouts = [] if span is None else _layouts(connection, *span, area, participant)
            earlier = _present_before(connection, rows[0].interval_start_s, layouts, area) if rows else {}
        grouped = groupby(rows, key=lambda row: (row.interval_start_s, _shown(row.schema, participant)[1]))
        totals = [_area_total(interval, schema, area, list(group), layouts) for (interval, schema), group in grouped]
        return [_marked(total, earlier) for total in totals]

    def _schemas_for(self, participant: str) -> list[bytes]:
        with self._database.read() as connection:
            known = connection.scalars(select(epochs.c.schema).distinct())
            return [each for each in known if schema_of(each).slots_for(participant)]

    def registers_for(self, participant: str, area: str | None = None) -> dict[str, tuple[str, ...]]:
        """By area (this one): the registers, as OBIS codes, of whose totals some are for a participant."""
        wanted = select(epochs.c.area, epochs.c.schema).distinct()
        if area is not None:
            wanted = wanted.where(epochs.c.area == area)
        found: dict[str, set[str]] = {}
        with self._database.read() as connection:
            for row in connection.execute(wanted):
                slots = schema_of(row.schema).slots
                if codes := {slots[each].obis or "" for each in schema_of(row.schema).slots_for(participant)}:
                    found.setdefault(row.area, set()).update(codes)
        return {name: tuple(sorted(found[name])) for name in sorted(found)}


def add_to_totals(
    connection: Connection, database: Database, known: Mapping[int, EpochRecord], ended: Sequence[Ended],
    enrolled: Mapping[str, int],
) -> None:  # fmt: skip
    """
    Add rounds of rings that ended just now, within the transaction that ends them; `known` are their epochs.

    `enrolled` counts the active gateways of each area: asked here, a directory that stalls would hold rounds up.

    Another writer of the same total waits at the row, which is made first where there is none.
    """
    by_total: dict[tuple[int, int], list[Ended]] = {}
    for each in sorted(ended, key=lambda each: (each.epoch, each.round)):
        by_total.setdefault((each.epoch, each.round), []).append(each)
    if not by_total:
        return
    empty = [_empty(known[epoch], round_, enrolled.get(known[epoch].area)) for epoch, round_ in by_total]
    connection.execute(database.insert(area_totals).on_conflict_do_nothing(), empty)
    mine, changes = area_totals.c, []
    for (epoch, round_), group in by_total.items():
        row = connection.execute(
            select(area_totals).where(mine.epoch == epoch, mine.round == round_).with_for_update()
        ).one()
        changes.append({"of_epoch": epoch, "of_round": round_, **_added(row._mapping, group)})
    here = (mine.epoch == bindparam("of_epoch"), mine.round == bindparam("of_round"))
    connection.execute(area_totals.update().where(*here), changes)


def _empty(epoch: EpochRecord, round_: int, enrolled: int | None) -> dict[str, Any]:
    """A row of `area_totals` before the first of its rings has ended the round."""
    return {
        "epoch": epoch.epoch, "round": round_, "area": epoch.area, "interval_start_s": epoch.interval_of(round_),
        "enrolled": enrolled, "opened": 0, "void": 0, "verified": 0, "present": 0, "retries": 0,
        "sums": pack_sums([0] * len(epoch.schema.slots)), "latencies": b"",
    }  # fmt: skip


def _added(row: RowMapping, ended: Iterable[Ended]) -> dict[str, Any]:
    """The changed columns of a row of `area_totals` after more of its rings have ended the round."""
    counts = {name: row[name] for name in ("opened", "void", "verified", "present", "retries")}
    sums, latencies = list(unpack_sums(row["sums"])), [row["latencies"]]
    for each in ended:
        counts["retries"] += each.attempt
        if each.outcome is not Outcome.OPENED:
            counts["void"] += 1
            continue
        counts["opened"] += 1
        counts["verified"] += each.verified
        counts["present"] += each.roster.bit_count()
        sums = [total + signed(word) for total, word in zip(sums, each.total, strict=True)]
        latency_us = round((each.ended_s - each.opened_s) * 1_000_000)
        latencies.append(struct.pack("<I", min(max(latency_us, 0), _LATENCY_US_MAX)))
    return {**counts, "sums": pack_sums(sums), "latencies": b"".join(latencies)}


def _layouts(
    connection: Connection, first_s: int, last_s: int, area: str | None, participant: str | None
) -> list[_Layout]:  # fmt: skip
    """The epochs that cover a part of [first_s, last_s], oldest first."""
    statement = (
        select(
            epochs,
            func.count().label("rings"),
            func.sum(rings.c.size).label("members"),
            func.min(rings.c.size).label("smallest"),
        )
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
    return [
        _Layout(
            epoch_of(row), _shown(row["schema"], participant)[1], row["rings"], int(row["members"]), row["smallest"]
        )
        for row in rows
    ]


def _present_before(
    connection: Connection, first_s: int, layouts: Iterable[_Layout], area: str | None
) -> dict[int, int]:  # fmt: skip
    """How many gateways were in the totals of the intervals that count for those from `first_s` on, by start."""
    length_s = max((layout.epoch.interval_s for layout in layouts), default=0)
    start = area_totals.c.interval_start_s
    statement = select(start, func.sum(area_totals.c.present)).where(
        start >= first_s - RELEASE_INTERVALS * length_s, start < first_s
    )
    if area is not None:
        statement = statement.where(area_totals.c.area == area)
    return {start_s: int(present) for start_s, present in connection.execute(statement.group_by(start))}


def _marked(total: AreaTotal, present: dict[int, int]) -> AreaTotal:
    """The total with what the intervals before it say of it; `present` has these, and gets this one."""
    since_s = total.interval_start_s - RELEASE_INTERVALS * total.interval_s
    before = [count for start_s, count in present.items() if since_s <= start_s < total.interval_start_s]
    present[total.interval_start_s] = total.present
    return replace(total, returned=bool(before) and min(before) < total.present)


@lru_cache(maxsize=64)
def _shown(data: bytes, participant: str | None) -> tuple[bytes, Schema]:
    """A stored schema as a participant (None: whoever may see all) is shown it, and its canonical form."""
    schema = schema_of(data).restricted_to(participant)
    return schema.to_bytes(), schema


def _area_total(
    interval_start_s: int, schema: Schema, area: str | None, rows: Sequence[Any], layouts: Iterable[_Layout]
) -> AreaTotal:
    used = {row.epoch for row in rows}
    # An epoch that was cut short leaves its last intervals to the next one: only the newest of an area counts as
    # awaited, and of the older ones those that ended a round here.
    awaited: dict[str, _Layout] = {}
    counted: dict[int, _Layout] = {}
    for layout in layouts:
        if layout.covers(interval_start_s) and layout.shown == schema:
            awaited[layout.epoch.area] = layout
            if layout.epoch.epoch in used:
                counted[layout.epoch.epoch] = layout
    counted |= {layout.epoch.epoch: layout for layout in awaited.values()}
    opened, verified = sum(row.opened for row in rows), sum(row.verified for row in rows)
    latencies = b"".join(row.latencies for row in rows)
    enrolled = {row.area: row.enrolled for row in rows}  # two epochs of an area may have shared the interval
    return AreaTotal(
        interval_start_s, counted[rows[0].epoch].epoch.interval_s, area, schema,
        words=tuple(map(sum, zip(*(unpack_sums(row.sums) for row in rows), strict=True))) if opened else None,
        verified=bool(opened) and verified == opened, present=sum(row.present for row in rows),
        members=sum(layout.members for layout in counted.values()), enrolled=_sum(enrolled.values()),
        opened=opened, void=sum(row.void for row in rows), rings=sum(layout.rings for layout in counted.values()),
        smallest_ring=min(layout.smallest for layout in counted.values()),
        retries=sum(row.retries for row in rows),
        latencies_s=tuple(each / 1_000_000 for (each,) in struct.iter_unpack("<I", latencies)),
    )  # fmt: skip


def _sum(counts: Collection[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
