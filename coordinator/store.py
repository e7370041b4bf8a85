"""
The coordinator's memory on SQLAlchemy Core: directory, epochs, and the round book that lasts.

SQLite serves one machine; PostgreSQL by URL serves more.  Two things carry the weight:

- A round of a ring ends once.  `record_many` inserts with ON CONFLICT DO NOTHING and reads back what it inserted: the
  database's primary key decides, not a check that another thread or process could overtake.
- What is answered is durable.  SQLite runs in WAL mode with synchronous=FULL (NORMAL may lose the last commits on a
  power cut, and a gateway that was told "opened" never carries that energy again).

All calls block: run them through `trio.to_thread.run_sync`.  Writers take SQLite's write lock at BEGIN, because a
transaction that begins by reading cannot wait for the lock later; it fails at once instead.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, create_engine, event, func, select
from sqlalchemy.dialects import postgresql, sqlite

from coordinator.tables import epochs, gateways, metadata, ring_rounds, rings
from protocol.errors import LocalProtocolError

_WORD = 1 << 64
_BATCH = 500  # rows a statement: 14 columns each stay under SQLite's 32,766 bound variables


@dataclass(frozen=True, slots=True)
class Slot:
    """One word of the aggregate: the quantity is word·10^scaler in `unit`; `kind` is count, energy or power."""

    name: str
    obis: str
    unit: str
    scaler: int
    kind: str


@dataclass(frozen=True, slots=True)
class Epoch:
    """The life of one ring layout; round r covers the interval that starts at first_interval_ms + r·period_s."""

    epoch: int
    slots: tuple[Slot, ...]
    period_s: int
    rounds: int
    first_interval_ms: int
    created_ms: int


@dataclass(frozen=True, slots=True)
class Ring:
    """One ring of an epoch with its members' gateway ids in position order."""

    epoch: int
    ring: int
    area: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """A round that ended with a total: `total` in the schema's order, words mod 2^64; `roster` the positions in it."""

    epoch: int
    ring: int
    round: int
    attempt: int
    head: int
    roster: tuple[int, ...]
    expected: int
    total: tuple[int, ...]
    interval_ms: int
    ended_ms: int
    latency_us: int


@dataclass(frozen=True, slots=True)
class Void:
    """A round that was given up, and why (a short snake_case reason)."""

    epoch: int
    ring: int
    round: int
    attempt: int
    head: int
    expected: int
    reason: str
    interval_ms: int
    ended_ms: int
    latency_us: int


Ended = Opened | Void


def signed(word: int) -> int:
    """A word mod 2^64 as the two's complement number it stands for."""
    return (word + _WORD // 2) % _WORD - _WORD // 2


def pack_total(words: Sequence[int]) -> bytes:
    """Words mod 2^64 as signed 64-bit little-endian."""
    return struct.pack(f"<{len(words)}q", *map(signed, words))


def unpack_total(data: bytes) -> tuple[int, ...]:
    """The inverse of `pack_total`: signed numbers."""
    return struct.unpack(f"<{len(data) // 8}q", data)


def pack_roster(positions: Sequence[int]) -> bytes:
    """Ring positions as a bitmap without trailing zero bytes; bit i sits in byte i//8, least significant first."""
    bits = sum(1 << position for position in set(positions))
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def unpack_roster(data: bytes) -> tuple[int, ...]:
    """The inverse of `pack_roster`, ascending."""
    bits = int.from_bytes(data, "little")
    return tuple(position for position in range(bits.bit_length()) if bits >> position & 1)


class Store:
    """
    The database of one coordinator; safe to call from several threads.

    Raises sqlalchemy.exc.SQLAlchemyError where the database itself fails: then nothing was written.
    """

    def __init__(self, url: str) -> None:
        """`url` is an SQLAlchemy URL (`sqlite:///path`, `postgresql+psycopg://...`); tables are made if absent."""
        self.engine = open_engine(url)
        self._writer = self.engine.execution_options(stromkreis_writes=True)
        with self.write() as connection:
            metadata.create_all(connection)

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
        row = asdict(epoch)
        row["schema"] = row.pop("slots")
        with self.write() as connection:
            added = self.insert(epochs).values(row).on_conflict_do_nothing().returning(epochs.c.epoch)
            if connection.execute(added).first() is None:
                raise LocalProtocolError(f"epoch {epoch.epoch} exists already")
            if layout:
                connection.execute(rings.insert(), [asdict(ring) for ring in layout])

    def last_epoch(self) -> Epoch | None:
        """The epoch with the highest number."""
        with self.read() as connection:
            row = connection.execute(select(epochs).order_by(epochs.c.epoch.desc()).limit(1)).mappings().first()
        return None if row is None else epoch_of(row)

    def epoch_rings(self, epoch: int) -> list[Ring]:
        """The rings of an epoch by index."""
        with self.read() as connection:
            rows = connection.execute(select(rings).where(rings.c.epoch == epoch).order_by(rings.c.ring)).mappings()
            return [Ring(row["epoch"], row["ring"], row["area"], tuple(row["members"])) for row in rows]

    # --- the round book --------------------------------------------------------------------------------------------

    def record(self, ended: Ended) -> bool:
        """End one round; False where it had ended before (this outcome is then not the one that counts)."""
        return self.record_many([ended])[0]

    def record_many(self, batch: Sequence[Ended]) -> list[bool]:
        """
        End many rounds in one durable transaction; for each whether this call ended it.

        Of two outcomes of one round in the same batch the first counts.
        """
        # One order for all writers: two batches that met in opposite orders would deadlock in PostgreSQL.
        rows = [_row(ended) for ended in sorted(batch, key=_key)]
        recorded: set[tuple[int, int, int]] = set()
        statement = (
            self.insert(ring_rounds)
            .on_conflict_do_nothing()
            .returning(ring_rounds.c.epoch, ring_rounds.c.ring, ring_rounds.c.round)
        )
        with self.write() as connection:
            for start in range(0, len(rows), _BATCH):
                inserted = connection.execute(statement.values(rows[start : start + _BATCH]))
                recorded.update((row.epoch, row.ring, row.round) for row in inserted)
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

    def counts(self) -> dict[str, int]:
        """How many gateways are active and how many rounds opened, were void, or took more than one attempt."""
        with self.read() as connection:
            active = select(func.count()).select_from(gateways).where(gateways.c.status == "active")
            by_state = connection.execute(select(ring_rounds.c.state, func.count()).group_by(ring_rounds.c.state))
            states = {state: count for state, count in by_state}  # noqa: C416
            retried = connection.scalar(select(func.coalesce(func.sum(ring_rounds.c.attempt), 0)))
            return {
                "gateways": connection.scalar(active) or 0,
                "opened": states.get("opened", 0),
                "void": states.get("void", 0),
                "retries": int(retried or 0),
            }


def open_engine(url: str) -> Engine:
    """An engine whose SQLite connections are durable, wait for each other, and begin writes by taking the lock."""
    engine = create_engine(url, pool_pre_ping=True)
    if engine.dialect.name == "sqlite":
        if engine.url.database not in (None, "", ":memory:"):
            Path(str(engine.url.database)).parent.mkdir(parents=True, exist_ok=True)

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


def _key(ended: Ended) -> tuple[int, int, int]:
    return ended.epoch, ended.ring, ended.round


def _row(ended: Ended) -> dict[str, Any]:
    row: dict[str, Any] = {
        "epoch": ended.epoch, "ring": ended.ring, "round": ended.round, "attempt": ended.attempt, "head": ended.head,
        "expected": ended.expected, "interval_ms": ended.interval_ms, "ended_ms": ended.ended_ms,
        "latency_us": ended.latency_us,
    }  # fmt: skip
    if isinstance(ended, Opened):
        return row | {
            "state": "opened", "roster": pack_roster(ended.roster), "present": len(ended.roster),
            "total": pack_total(ended.total), "void_reason": None,
        }  # fmt: skip
    return row | {"state": "void", "roster": None, "present": 0, "total": None, "void_reason": ended.reason}


def ended_of(row: RowMapping) -> Ended:
    """A row of `ring_rounds` as the outcome it stands for."""
    shared = {name: row[name] for name in (
        "epoch", "ring", "round", "attempt", "head", "expected", "interval_ms", "ended_ms", "latency_us",
    )}  # fmt: skip
    if row["state"] == "opened":
        return Opened(**shared, roster=unpack_roster(row["roster"]), total=unpack_total(row["total"]))
    return Void(**shared, reason=row["void_reason"])


def epoch_of(row: RowMapping) -> Epoch:
    """A row of `epochs`."""
    return Epoch(
        row["epoch"], tuple(Slot(**slot) for slot in row["schema"]), row["period_s"], row["rounds"],
        row["first_interval_ms"], row["created_ms"],
    )  # fmt: skip
