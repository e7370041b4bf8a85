"""
Who the ring service of an area is: a lease in the database, so that another process stands by and takes over.

Each area has a row that says who holds it, since which term, and a beat that the holder counts up (`Lease.renew`).  A
process that wants an area watches the row on its own monotonic clock, so no two clocks are compared:

- a lease that was given back is taken at once;
- one whose beat stands still is taken after FREE_S where the holder's lock is free, and after STALLED_S where it is not
  (the process hangs, or its machine is gone and the server has not noticed).

The lock is the kernel's on a file beside an SQLite database, which ends with the process and at no other time, so there
nothing is waited for; PostgreSQL's advisory lock ends with its connection, also where the server restarts.

Neither decides who may write.  That is the fence: each writing transaction of the ring service asks for its own row,
and keeps it from being changed until the commit (`Lease.fence`).  Whoever was deposed writes nothing more, however late
it notices.  Source: M. Kleppmann, "How to do distributed locking" (2016), fencing tokens; PostgreSQL documentation,
"Explicit Locking": FOR KEY SHARE holds up an update of a column with a unique index, and no other.

Epoch numbers are unique in a database while several ring services draw them, so each holder reserves some.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row, func, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from coordinator.storage.engine import Database
from coordinator.storage.holder_lock import HolderLock, holder_lock
from coordinator.storage.tables import epoch_calls, epochs, leases
from protocol.errors import StromkreisError

log = logging.getLogger(__name__)
RENEW_S = 2.0  # between two beats
FREE_S = 5.0  # more than two beats: a server that restarts drops the lock of a holder that is well
STALLED_S = 15.0  # longer than a slow commit, shorter than a round that would be lost
_NUMBERS, _NUMBERS_PER_AREA = 16, 4  # reserved at once: each area calls one, or some more where it is called early
_TAKING_KEY = 0x5354524C  # PostgreSQL's advisory lock under which leases are taken, one process at a time
_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(:key)")


class Deposed(StromkreisError):
    """Another process is the ring service of an area that this one served."""


@dataclass(slots=True)
class _Seen:
    """A row's state as it was last seen, and since when it has been the same (monotonic, s)."""

    state: tuple[int, int]
    since_s: float


class Lease:
    """The lease of some areas, all or none; used from one thread at a time, `fence` from any."""

    def __init__(
        self, database: Database, areas: Sequence[str], name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`name` is what others read of the holder: its machine and process."""
        self.areas = tuple(sorted(areas))
        self.term = 0
        """How often one of the areas has changed hands; 0: not held."""
        self.numbers = (0, 0)
        """The epoch numbers that `take` has reserved, [first, end)."""
        self._database = database
        self._name = name[:80]
        self._clock = clock
        self._holder = 1 + secrets.randbelow(2**62)
        self._lock: HolderLock = holder_lock(database, self._holder)
        self._seen: dict[str, _Seen] = {}

    def take(self, reached: Iterable[int] = ()) -> str | None:
        """
        Try to become the ring service of all areas: None where we are, else whom we wait for.

        `reached` are epoch numbers that were used whatever the database says.  Raises sqlalchemy.exc.SQLAlchemyError
        where the database does not answer.
        """
        try:
            if not self._lock.hold():
                return "a ring service of an earlier release, or `stromkreis restore`, has the database for itself"
            with self._database.write() as connection:
                rows = self._rows(connection)
                for area in self.areas:
                    if area in rows and (holder := self._is_alive(connection, rows[area])) is not None:
                        return holder
                term = 1 + max((rows[area].term for area in self.areas if area in rows), default=0)
                numbers = self._numbers(connection, rows, 1 + max(reached, default=-1))
                values = {
                    "holder": self._holder, "name": self._name, "term": term, "beat": 0, "numbers_end": numbers[1]
                }  # fmt: skip
                for area in self.areas:
                    if area in rows:
                        connection.execute(update(leases).where(leases.c.area == area).values(values))
                    else:
                        connection.execute(leases.insert().values(area=area, **values))
        except SQLAlchemyError:
            self._seen.clear()  # a holder could not count either
            raise
        self.term, self.numbers = term, numbers
        return None

    def renew(self) -> None:
        """
        Count the beat up.

        Raises Deposed where another process is the ring service, SQLAlchemyError where the database does not answer:
        then it is not known yet, and nobody can write meanwhile.
        """
        ours = leases.c.holder == self._holder
        with self._database.write() as connection:
            counted = connection.execute(update(leases).where(ours).values(beat=leases.c.beat + 1)).rowcount
            if counted != len(self.areas):
                raise self._deposed(connection)
        if not self._lock.is_held():
            log.warning("the connection that shows others that we are the ring service was lost, and is made anew")
            self._lock.release()
            self._lock.hold()

    def fence(self, connection: Connection) -> None:
        """
        In a writing transaction of the ring service: keep the lease from changing hands until its end.

        Raises Deposed where it has.
        """
        ours = select(leases.c.area).where(leases.c.holder == self._holder).with_for_update(read=True, key_share=True)
        if len(connection.execute(ours).all()) != len(self.areas):
            raise self._deposed(connection)

    def release(self) -> None:
        """Give the lease back, so that nobody waits; a database that does not answer finds out by itself."""
        try:
            if self.term:
                with self._database.write() as connection:
                    ours = leases.c.holder == self._holder
                    connection.execute(update(leases).where(ours).values(holder=0))
        except SQLAlchemyError:
            log.warning("the lease could not be given back: another ring service takes it in %g s", FREE_S)
        finally:
            self.term = 0
            self._lock.release()

    def _is_alive(self, connection: Connection, row: Row[tuple[object, ...]]) -> str | None:
        """Who holds this lease, as far as we can see; None where nobody does."""
        if row.holder in (0, self._holder):
            return None
        now_s, state = self._clock(), (row.holder, row.beat)
        seen = self._seen.get(row.area)
        if seen is None or seen.state != state:
            seen = self._seen[row.area] = _Seen(state, now_s)
        is_free = self._lock.is_free(connection, row.holder)
        patience_s = STALLED_S if not is_free else 0.0 if self._lock.ends_with_process else FREE_S
        if now_s - seen.since_s >= patience_s:
            log.warning(
                "the ring service %s of area %s %s", row.name, row.area,
                "is gone" if is_free else f"has given no sign of life for {STALLED_S:g} s",
            )  # fmt: skip
            return None
        return f"{row.name} is the ring service of area {row.area} (term {row.term})"

    def reserve(self, at_least: int = 0) -> tuple[int, int]:
        """
        More epoch numbers for this holder alone, [first, end), `at_least` so high.

        Raises as `renew`.
        """
        with self._database.write() as connection:
            rows = self._rows(connection)
            ours = [rows[area] for area in self.areas if area in rows and rows[area].holder == self._holder]
            if len(ours) != len(self.areas):
                raise self._deposed(connection)
            first, end = self._numbers(connection, rows, max(at_least, *(row.numbers_end for row in ours)))
            mine = leases.c.holder == self._holder
            connection.execute(update(leases).where(mine).values(numbers_end=end))
        return first, end

    def _rows(self, connection: Connection) -> dict[str, Row[tuple[object, ...]]]:
        """All leases, which nobody else takes until the end of this transaction."""
        if connection.dialect.name == "postgresql":
            connection.execute(_ONE_AT_A_TIME, {"key": _TAKING_KEY})
        return {row.area: row for row in connection.execute(select(leases))}

    def _numbers(
        self, connection: Connection, rows: dict[str, Row[tuple[object, ...]]], at_least: int
    ) -> tuple[int, int]:
        """Numbers above all that are in use, or reserved by who else may be there."""
        nobody = {0, self._holder, *(rows[area].holder for area in self.areas if area in rows)}
        reserved = [row.numbers_end for row in rows.values() if row.holder not in nobody]
        first = max(at_least, 1 + _highest(connection), *reserved)
        return first, first + _NUMBERS + _NUMBERS_PER_AREA * len(self.areas)

    def _deposed(self, connection: Connection) -> Deposed:
        rows = connection.execute(select(leases).where(leases.c.area.in_(self.areas), leases.c.holder != self._holder))
        who = sorted({row.name for row in rows if row.holder != 0})
        others = ", ".join(who) or "another process"
        return Deposed(
            f"{self._database.name}: {others} is the ring service of {', '.join(self.areas)} now; this one writes"
            " nothing more and ends"
        )


def _highest(connection: Connection) -> int:
    """The highest epoch number in use; -1: none."""
    used = [connection.scalar(select(func.max(table.c.epoch))) for table in (epochs, epoch_calls)]
    return max((each for each in used if each is not None), default=-1)


def refusal(database: Database, holder: str) -> StromkreisError:
    """What is said where another process was there first and this one is not to stand by."""
    return StromkreisError(
        f"{database.name}: another process is the ring service of this database: {holder}; stop that one first, or have"
        " this one stand by ([coordinator] standby = true)"
    )
