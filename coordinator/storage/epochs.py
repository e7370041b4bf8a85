"""Epochs with their rings, and what a restart needs of an epoch that is not over."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import RowMapping, bindparam, func, or_, select

from coordinator.storage.engine import Database
from coordinator.storage.tables import epoch_calls, epoch_states, epochs, rings
from protocol.dcnet.setup.schema import Schema
from protocol.errors import LocalProtocolError
from protocol.metering.interval import start_of


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """The life of one area's ring layout; round r covers the interval from interval_start_s + r·interval_s."""

    epoch: int
    area: str
    schema: Schema
    rounds: int
    interval_start_s: int
    interval_s: int

    def interval_of(self, round_: int) -> int:
        """The start of a round's metering interval, Unix time in seconds."""
        return start_of(round_, self.interval_start_s, self.interval_s)


@dataclass(frozen=True, slots=True)
class RingLayout:
    """One ring of an epoch with its members' gateway ids in position order."""

    epoch: int
    ring: int
    members: tuple[str, ...]


class EpochRepository:
    """Tables `epochs`, `rings`, `epoch_calls` and `epoch_states`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, epoch: EpochRecord, layout: Sequence[RingLayout]) -> None:
        """Keep an epoch with its rings, all or nothing.  Raises LocalProtocolError where the number is taken."""
        row = {
            "epoch": epoch.epoch, "area": epoch.area, "schema": epoch.schema.to_bytes(), "rounds": epoch.rounds,
            "interval_start_s": epoch.interval_start_s, "interval_s": epoch.interval_s,
        }  # fmt: skip
        ring_rows = [{"epoch": r.epoch, "ring": r.ring, "size": len(r.members), "members": r.members} for r in layout]
        with self._database.write() as connection:
            added = self._database.insert(epochs).values(row).on_conflict_do_nothing().returning(epochs.c.epoch)
            if connection.execute(added).first() is None:
                raise LocalProtocolError(f"epoch {epoch.epoch} exists already")
            if ring_rows:
                connection.execute(rings.insert(), ring_rows)

    def note_call(self, area: str, epoch: int, state: bytes) -> None:
        """
        An area is about to be called into an epoch, or shown the list of a try: the number is used up, whatever becomes
        of it, and a restart goes on with `state`.
        """
        statement = self._database.insert(epoch_calls).values(area=area, epoch=epoch, state=state)
        changed = {"epoch": statement.excluded.epoch, "state": statement.excluded.state}
        with self._database.write() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["area"], set_=changed))

    def last_number(self) -> int | None:
        """The highest epoch number in use."""
        with self._database.read() as connection:
            used = [connection.scalar(select(func.max(column))) for column in (epochs.c.epoch, epoch_calls.c.epoch)]
        return max((each for each in used if each is not None), default=None)

    def get(self, epoch: int) -> EpochRecord | None:
        """An epoch by its number."""
        with self._database.read() as connection:
            row = connection.execute(select(epochs).where(epochs.c.epoch == epoch)).mappings().first()
        return None if row is None else epoch_of(row)

    def all(self) -> list[EpochRecord]:
        """Every epoch, oldest first."""
        with self._database.read() as connection:
            return [epoch_of(row) for row in connection.execute(select(epochs).order_by(epochs.c.epoch)).mappings()]

    def newest_of(self, area: str, since: int, count: int) -> list[EpochRecord]:
        """At most `count` epochs of an area, none before `since`, newest first."""
        wanted = (epochs.c.area == area, epochs.c.epoch >= since)
        statement = select(epochs).where(*wanted).order_by(epochs.c.epoch.desc()).limit(count)
        with self._database.read() as connection:
            return [epoch_of(row) for row in connection.execute(statement).mappings()]

    def latest(self) -> list[EpochRecord]:
        """The newest epoch of every area, by area."""
        newest = select(func.max(epochs.c.epoch)).group_by(epochs.c.area)
        statement = select(epochs).where(epochs.c.epoch.in_(newest)).order_by(epochs.c.area)
        with self._database.read() as connection:
            return [epoch_of(row) for row in connection.execute(statement).mappings()]

    def covering(self, area: str, first_s: int, last_s: int) -> list[int]:
        """The numbers of an area's epochs that have an interval within [first_s, last_s]."""
        statement = select(epochs.c.epoch).where(
            epochs.c.area == area, epochs.c.interval_start_s <= last_s,
            epochs.c.interval_start_s + epochs.c.rounds * epochs.c.interval_s > first_s,
        )  # fmt: skip
        with self._database.read() as connection:
            return list(connection.scalars(statement))

    def areas(self) -> list[str]:
        """The names of all areas that ever had an epoch."""
        with self._database.read() as connection:
            return list(connection.scalars(select(epochs.c.area).distinct().order_by(epochs.c.area)))

    def layout(self, epoch: int) -> list[RingLayout]:
        """The rings of an epoch by index."""
        with self._database.read() as connection:
            rows = connection.execute(select(rings).where(rings.c.epoch == epoch).order_by(rings.c.ring))
            return [RingLayout(row.epoch, row.ring, tuple(row.members)) for row in rows]

    def members(self, area: str, from_s: int) -> list[tuple[int, frozenset[str]]]:
        """Start (metering time) and members of an area's first epoch, and of those that began at `from_s` or later."""
        mine = epochs.c.area == area
        first = select(func.min(epochs.c.epoch)).where(mine).scalar_subquery()
        statement = (
            select(epochs.c.epoch, epochs.c.interval_start_s, rings.c.members)
            .join(rings, rings.c.epoch == epochs.c.epoch)
            .where(mine, or_(epochs.c.epoch == first, epochs.c.interval_start_s >= from_s))
            .order_by(epochs.c.epoch)
        )
        found: dict[int, tuple[int, set[str]]] = {}
        with self._database.read() as connection:
            for row in connection.execute(statement):
                found.setdefault(row.epoch, (row.interval_start_s, set()))[1].update(row.members)
        return [(start_s, frozenset(members)) for start_s, members in found.values()]

    def save_state(self, epoch: int, state: bytes) -> None:
        """Keep, or replace, what a restart needs of an epoch that has its rings."""
        statement = self._database.insert(epoch_states).values(epoch=epoch, state=state)
        with self._database.write() as connection:
            connection.execute(
                statement.on_conflict_do_update(index_elements=["epoch"], set_={"state": statement.excluded.state})
            )
            connection.execute(_FORGET_CALL, {"number": epoch})

    def delete_state(self, epoch: int) -> None:
        """The epoch is over or given up: its result key is needed no more."""
        with self._database.write() as connection:
            connection.execute(epoch_states.delete().where(epoch_states.c.epoch == epoch))
            connection.execute(_FORGET_CALL, {"number": epoch})

    def states(self, areas: Collection[str] | None = None) -> list[tuple[int, bytes]]:
        """What was kept of the epochs (of these areas) that were not over, with their numbers, oldest first."""
        called = select(epoch_calls.c.epoch, epoch_calls.c.state).where(epoch_calls.c.state.is_not(None))
        laid_out = select(epoch_states.c.epoch, epoch_states.c.state)
        if areas is not None:
            called = called.where(epoch_calls.c.area.in_(areas))
            laid_out = laid_out.join(epochs, epochs.c.epoch == epoch_states.c.epoch).where(epochs.c.area.in_(areas))
        with self._database.read() as connection:
            rows = [*connection.execute(laid_out), *connection.execute(called)]
        return sorted((row.epoch, row.state) for row in rows)

    def left_over(self, areas: Collection[str], before_s: int) -> list[int]:
        """Epochs of areas other than these with a kept state that ended before `before_s` (metering time)."""
        end_s = epochs.c.interval_start_s + epochs.c.rounds * epochs.c.interval_s
        statement = (
            select(epoch_states.c.epoch)
            .join(epochs, epochs.c.epoch == epoch_states.c.epoch)
            .where(epochs.c.area.not_in(areas), end_s < before_s)
        )
        with self._database.read() as connection:
            return list(connection.scalars(statement))


_FORGET_CALL = epoch_calls.update().where(epoch_calls.c.epoch == bindparam("number")).values(state=None)


@lru_cache(maxsize=64)
def schema_of(data: bytes) -> Schema:
    """A stored aggregate schema; a view of a week reads the same one for each of its intervals."""
    return Schema.from_bytes(data)


def epoch_of(row: RowMapping) -> EpochRecord:
    """A row of `epochs`."""
    return EpochRecord(
        row["epoch"], row["area"], schema_of(row["schema"]), row["rounds"], row["interval_start_s"],
        row["interval_s"],
    )  # fmt: skip
