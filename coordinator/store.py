"""
The coordinator's memory on SQLAlchemy Core: directory, epochs, and the round ledger that lasts.

SQLite serves one machine; PostgreSQL by URL serves more.  Two things carry the weight:

- A round of a ring ends once.  `record_many` inserts with ON CONFLICT DO NOTHING and reads back what it inserted: the
  database's primary key decides, not a check that another thread or process could overtake.
- What is answered is durable.  SQLite runs in WAL mode with synchronous=FULL (NORMAL may lose the last commits on a
  power cut, and a gateway that was told "opened" never carries that energy again).

All calls block: run them through `coordinator.threads`.  Writers take SQLite's write lock at BEGIN, because a
transaction that begins by reading cannot wait for the lock later; it fails at once instead.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, RowMapping, create_engine, event, func, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from coordinator.tables import epoch_calls, epoch_states, epochs, metadata, ring_commitments, ring_rounds, rings
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.schema import Schema
from protocol.errors import LocalProtocolError, StromkreisError
from protocol.metering.interval import start_of
from protocol.wire import Outcome


@dataclass(frozen=True, slots=True)
class Epoch:
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
class Ring:
    """One ring of an epoch with its members' gateway ids in position order."""

    epoch: int
    ring: int
    members: tuple[str, ...]


class Store:
    """
    The database of one coordinator; safe to call from several threads.

    Raises sqlalchemy.exc.SQLAlchemyError where the database itself fails: then nothing was written.
    """

    def __init__(self, url: str) -> None:
        """
        `url` is an SQLAlchemy URL (`sqlite:///path`, `postgresql+psycopg://...`); tables are made if absent.

        Raises StromkreisError where it cannot be opened.
        """
        self.engine = open_engine(url)
        self._writer = self.engine.execution_options(stromkreis_writes=True)
        try:
            with self.write() as connection:
                metadata.create_all(connection)
        except SQLAlchemyError as error:
            self.close()
            raise StromkreisError(
                f"{self.engine.url.render_as_string()}: the database cannot be opened ({fault_of(error)})"
            ) from error

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One writing transaction: committed at the end, rolled back by an exception."""
        with self._writer.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One reading transaction: all of its queries see the same state."""
        with self.engine.begin() as connection:
            yield connection

    def insert(self, table: Any) -> Any:
        """An INSERT of the dialect in use, which knows ON CONFLICT."""
        return (postgresql if self.engine.dialect.name == "postgresql" else sqlite).insert(table)

    # --- epochs and rings ------------------------------------------------------------------------------------------

    def add_epoch(self, epoch: Epoch, layout: Sequence[Ring]) -> None:
        """Keep an epoch with its rings, all or nothing.  Raises LocalProtocolError where the number is taken."""
        row = {
            "epoch": epoch.epoch, "area": epoch.area, "schema": epoch.schema.to_bytes(), "rounds": epoch.rounds,
            "interval_start_s": epoch.interval_start_s, "interval_s": epoch.interval_s,
        }  # fmt: skip
        ring_rows = [{"epoch": r.epoch, "ring": r.ring, "size": len(r.members), "members": r.members} for r in layout]
        with self.write() as connection:
            added = self.insert(epochs).values(row).on_conflict_do_nothing().returning(epochs.c.epoch)
            if connection.execute(added).first() is None:
                raise LocalProtocolError(f"epoch {epoch.epoch} exists already")
            if ring_rows:
                connection.execute(rings.insert(), ring_rows)

    def note_call(self, area: str, epoch: int) -> None:
        """An area is about to be called into an epoch: the number is used up, whatever becomes of it."""
        statement = self.insert(epoch_calls).values(area=area, epoch=epoch)
        with self.write() as connection:
            connection.execute(
                statement.on_conflict_do_update(index_elements=["area"], set_={"epoch": statement.excluded.epoch})
            )

    def last_epoch(self) -> int | None:
        """The highest epoch number in use."""
        with self.read() as connection:
            used = [connection.scalar(select(func.max(column))) for column in (epochs.c.epoch, epoch_calls.c.epoch)]
        return max((each for each in used if each is not None), default=None)

    def latest_epochs(self) -> list[Epoch]:
        """The newest epoch of every area, by area."""
        newest = select(func.max(epochs.c.epoch)).group_by(epochs.c.area)
        statement = select(epochs).where(epochs.c.epoch.in_(newest)).order_by(epochs.c.area)
        with self.read() as connection:
            return [epoch_of(row) for row in connection.execute(statement).mappings()]

    def epoch_rings(self, epoch: int) -> list[Ring]:
        """The rings of an epoch by index."""
        with self.read() as connection:
            rows = connection.execute(select(rings).where(rings.c.epoch == epoch).order_by(rings.c.ring))
            return [Ring(row.epoch, row.ring, tuple(row.members)) for row in rows]

    def keep_state(self, epoch: int, state: bytes) -> None:
        """Keep, or replace, what a restart needs of an epoch."""
        row = {"epoch": epoch, "state": state}
        statement = self.insert(epoch_states).values(row)
        with self.write() as connection:
            connection.execute(
                statement.on_conflict_do_update(index_elements=["epoch"], set_={"state": statement.excluded.state})
            )

    def drop_state(self, epoch: int) -> None:
        """The epoch is over: its result key is needed no more."""
        with self.write() as connection:
            connection.execute(epoch_states.delete().where(epoch_states.c.epoch == epoch))

    def states(self) -> list[bytes]:
        """What was kept of the epochs that were not over, oldest first."""
        with self.read() as connection:
            return list(connection.scalars(select(epoch_states.c.state).order_by(epoch_states.c.epoch)))

    # --- the round ledger --------------------------------------------------------------------------------------------

    def record(self, ended: Ended) -> bool:
        """End one round; False where it had ended before (this outcome is then not the one that counts)."""
        return self.record_many([ended])[0]

    def record_many(
        self, batch: Sequence[Ended], commitments: Mapping[tuple[int, int, int], bytes] | None = None
    ) -> list[bool]:
        """
        End many rounds in one durable transaction; for each whether this call ended it.

        `commitments` are those of verified rounds, by (epoch, ring, round), joined by roster position and committed
        slot; they are kept where this call ended the round.  Of two outcomes of one round in the same batch the first
        counts.  Raises LocalProtocolError for an epoch that was never added.
        """
        recorded: set[tuple[int, int, int]] = set()
        statement = (
            self.insert(ring_rounds)
            .on_conflict_do_nothing()
            .returning(ring_rounds.c.epoch, ring_rounds.c.ring, ring_rounds.c.round)
        )
        with self.write() as connection:
            numbers = {ended.epoch for ended in batch}
            used = connection.execute(select(epochs).where(epochs.c.epoch.in_(numbers))).mappings()
            known = {row["epoch"]: epoch_of(row) for row in used}
            if unknown := numbers - known.keys():
                raise LocalProtocolError(f"there is no epoch {min(unknown)}")
            # One order for all writers: two batches that met in opposite orders would deadlock in PostgreSQL.
            rows = [_row(ended, known[ended.epoch]) for ended in sorted(batch, key=_key)]
            if rows:
                recorded.update((row.epoch, row.ring, row.round) for row in connection.execute(statement, rows))
            kept = [
                {
                    "epoch": key[0], "ring": key[1], "round": key[2], "commitments": data,
                    "interval_start_s": known[key[0]].interval_of(key[2]),
                }
                for key, data in (commitments or {}).items()
                if key in recorded
            ]  # fmt: skip
            if kept:
                connection.execute(ring_commitments.insert(), kept)
        answers = []
        for ended in batch:
            answers.append(_key(ended) in recorded)
            recorded.discard(_key(ended))
        return answers

    def ended(self, epoch: int, ring: int, round_: int) -> Ended | None:
        """How a round ended, None where it is still open."""
        where = (ring_rounds.c.epoch == epoch, ring_rounds.c.ring == ring, ring_rounds.c.round == round_)
        with self.read() as connection:
            row = connection.execute(select(ring_rounds).where(*where)).mappings().first()
        return None if row is None else ended_of(row)

    def epoch_outcomes(self, epoch: int) -> list[Ended]:
        """All ended rounds of an epoch, by ring and round: what a restarted coordinator goes on from."""
        statement = select(ring_rounds).where(ring_rounds.c.epoch == epoch)
        with self.read() as connection:
            rows = connection.execute(statement.order_by(ring_rounds.c.ring, ring_rounds.c.round)).mappings()
            return [ended_of(row) for row in rows]


def open_engine(url: str) -> Engine:
    """
    An engine whose SQLite connections are durable, wait for each other, and begin writes by taking the lock.

    Raises StromkreisError for a URL that names no database we have a driver for; its text may hold a password and is
    not repeated.
    """
    try:
        # Room for all that may ask at once, the web's threads included: a viewer's slow query keeps no round waiting.
        engine = create_engine(url, pool_pre_ping=True, max_overflow=20, connect_args=_postgres_timeouts(make_url(url)))
    except (ArgumentError, ImportError) as error:
        raise StromkreisError(
            f"no database by that URL ({type(error).__name__}); expected a URL such as sqlite:///PATH or"
            " postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
        ) from error
    if engine.dialect.name == "sqlite":
        if engine.url.database not in (None, "", ":memory:"):
            _restrict_permissions(Path(str(engine.url.database)))

        @event.listens_for(engine, "connect")
        def _on_connect(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # the driver's own BEGIN comes too late, at the first write
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
                connection.execute(f"PRAGMA {pragma}")

        @event.listens_for(engine, "begin")
        def _on_begin(connection: Connection) -> None:
            writes = connection.get_execution_options().get("stromkreis_writes", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgres_timeouts(url: URL) -> dict[str, str]:
    """
    PostgreSQL gives up instead of waiting for ever: on a lock or a query after a minute, on a dead network earlier.

    What the URL says of these itself is left as it is.  Source: PostgreSQL documentation, "Parameter Key Words" of
    libpq, and `statement_timeout`.
    """
    if url.get_backend_name() != "postgresql":
        return {}
    wanted = {"connect_timeout": "10", "tcp_user_timeout": "30000", "options": "-c statement_timeout=60s"}
    return {name: value for name, value in wanted.items() if name not in url.query}


def _restrict_permissions(path: Path) -> None:
    """Nobody else's to read, whatever the umask: it holds living epochs' keys.  SQLite gives its log the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)


def fault_of(error: SQLAlchemyError) -> str:
    """What the database said, for the log: the driver's first line, without the statement and its values."""
    words = str(error.orig).splitlines() if isinstance(error, DBAPIError) else []
    return words[0] if words else type(error).__name__


def pack_words(words: Sequence[int]) -> bytes:
    """Words mod 2^64 as 64-bit little-endian."""
    return struct.pack(f"<{len(words)}Q", *words)


def unpack_words(data: bytes) -> tuple[int, ...]:
    """The inverse of `pack_words`: unsigned."""
    return struct.unpack(f"<{len(data) // 8}Q", data)


def pack_positions(bitmap: int) -> bytes:
    """A bitmap of ring positions without leading zeros; position i is bit i mod 8 of byte i//8."""
    return bitmap.to_bytes((bitmap.bit_length() + 7) // 8, "little")


def unpack_positions(data: bytes) -> int:
    """The inverse of `pack_positions`."""
    return int.from_bytes(data, "little")


def _key(ended: Ended) -> tuple[int, int, int]:
    return ended.epoch, ended.ring, ended.round


def _row(ended: Ended, epoch: Epoch) -> dict[str, Any]:
    opened = ended.outcome is Outcome.OPENED
    return {
        "epoch": ended.epoch, "ring": ended.ring, "round": ended.round, "outcome": ended.outcome.name.lower(),
        "attempt": ended.attempt, "term": ended.term, "expected": pack_positions(ended.expected),
        "roster": pack_positions(ended.roster), "present": ended.roster.bit_count(),
        "total": pack_words(ended.total) if opened else None, "verified": ended.verified, "reason": ended.reason[:80],
        "interval_start_s": epoch.interval_of(ended.round), "opened_s": ended.opened_s, "ended_s": ended.ended_s,
    }  # fmt: skip


def ended_of(row: RowMapping) -> Ended:
    """A row of `ring_rounds` as the outcome it stands for."""
    return Ended(
        row["epoch"], row["ring"], row["round"], Outcome[row["outcome"].upper()], row["attempt"], row["term"],
        unpack_positions(row["expected"]), unpack_positions(row["roster"]), unpack_words(row["total"] or b""),
        row["verified"], row["reason"], row["opened_s"], row["ended_s"],
    )  # fmt: skip


def epoch_of(row: RowMapping) -> Epoch:
    """A row of `epochs`."""
    return Epoch(
        row["epoch"], row["area"], Schema.from_bytes(row["schema"]), row["rounds"], row["interval_start_s"],
        row["interval_s"],
    )  # fmt: skip
