"""
The durable store of a gateway process: one SQLite file, one writer, thousands of gateways.

A gateway may not let a share leave before the contribution is on disk: every round costs every gateway an fsync.  One
fsync is some milliseconds whatever it covers; so the writes that queue up while one transaction is being synced all
go into the next (group commit), and `write` returns when the transaction that holds its records is on disk.

Why it is as it is:

- WAL with synchronous=FULL: a commit is one sequential write and one fsync; NORMAL would acknowledge before it.
- The file is locked exclusively for the life of the process.  Two processes on one store would serve two attempts of a
  round with the same reading, which is the one thing a gateway must never do.  A restored backup does the same.
- Each write has a savepoint: what the database refuses of one gateway (a second ending of a round) does not touch the
  others in the transaction.  If the transaction as a whole fails, each write gets a transaction of its own before
  anybody is told that it failed.
- The writer is shielded from cancellation and leaves when the store is closed and its queue is empty, so that a
  gateway that shuts down can still write.
- A deleted epoch's secrets have to be gone (forward secrecy): secure_delete overwrites them in the database, and the
  write-ahead log, which still has the old pages, is checkpointed and truncated before the deletion is acknowledged.
  What the file system or a flash translation layer keeps of freed blocks is out of reach from here.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import trio

from node.records import (
    SCHEMA,
    SCHEMA_VERSION,
    Contribution,
    ContributionState,
    EpochEnd,
    EpochState,
    Record,
    Register,
    Settled,
)
from protocol.errors import LocalProtocolError, StromkreisError

T = TypeVar("T")

PRUNE_ROWS = 5000
"""Rows deleted in one transaction: pruning must not make a round's writes wait for seconds."""

REFUSALS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, OverflowError)
"""What SQLite says about the content of one write; everything else is about the file."""


class StoreError(StromkreisError):
    """The store cannot be opened, or a write is not durable: which file, what SQLite said, what to do."""


@dataclass(frozen=True, slots=True)
class GatewayState:
    """
    What a gateway finds of itself at start-up.

    `registers`: the latest reading of every register; `baseline`: by slot; `contributions`: those whose round has not
    ended, oldest first; `epochs`: its memberships.
    """

    registers: tuple[Register, ...]
    baseline: dict[int, int]
    contributions: tuple[Contribution, ...]
    epochs: tuple[EpochState, ...]


@dataclass(slots=True)
class StoreCounters:
    """Since the store was opened; `writes` counts acknowledged ones, `failed` those that raised."""

    transactions: int = 0
    writes: int = 0
    records: int = 0
    failed: int = 0


class _Job:
    """Something to do inside a transaction, and its outcome once that is durable."""

    __slots__ = ("action", "done", "error", "result", "wipes")

    def __init__(self, action: Callable[[sqlite3.Connection], Any], wipes: bool) -> None:
        self.action = action
        self.wipes = wipes
        self.done = trio.Event()
        self.result: Any = None
        self.error: Exception | None = None


class Store:
    """
    Async context manager: `async with Store.open(path) as store`.

    `queue_writes`: how many writes may wait at once before `write` waits for room.  At least the number of gateways
    that contribute at the same moment, or a round takes more than two transactions.
    """

    def __init__(self, path: Path, *, queue_writes: int = 8192) -> None:
        self.path = path
        self.counters = StoreCounters()
        self._room = trio.Semaphore(queue_writes)
        self._queue: deque[_Job] = deque()
        self._work = trio.Event()
        self._closing = False
        self._connection: sqlite3.Connection | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, queue_writes: int = 8192) -> Store:
        """Name the file; entering the context opens or creates it.  Raises `StoreError` there."""
        return cls(Path(path), queue_writes=queue_writes)

    @property
    def queued(self) -> int:
        """Writes that wait for the next transaction."""
        return len(self._queue)

    async def __aenter__(self) -> Store:
        self._connection = await trio.to_thread.run_sync(self._connect)
        self._nursery_manager = trio.open_nursery()
        nursery = await self._nursery_manager.__aenter__()
        nursery.start_soon(self._run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._work.set()
        try:
            # Only the writer is in the nursery; what the body raised leaves the `async with` as it is.
            await self._nursery_manager.__aexit__(None, None, None)
        finally:
            assert self._connection is not None  # noqa: S101
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._connection.close)

    async def write(self, records: Sequence[Record]) -> None:
        """
        Return when `records` are on disk, all of them or, on `StoreError`, none.

        Cancelled while it waits: all or none, unknown which.  Raises `OverflowError` for an integer over 64 bits.
        """
        statements = [record.statement() for record in records]
        wipes = any(isinstance(record, EpochEnd) for record in records)

        def insert(connection: sqlite3.Connection) -> None:
            for sql, parameters in statements:
                connection.execute(sql, parameters)

        await self._do(insert, wipes=wipes)
        self.counters.writes += 1
        self.counters.records += len(records)

    async def load(self, gateway: str) -> GatewayState:
        """Return what is durable of `gateway`; empty for one that the store does not know."""
        return await self._do(lambda connection: _load(connection, gateway))

    async def settled(self, gateway: str) -> tuple[Settled, ...]:
        """Return the gateway's ended rounds in order."""
        return await self._do(lambda connection: _settled(connection, gateway))

    async def gateways(self) -> tuple[str, ...]:
        """Return the names of all gateways that have a membership or a baseline here."""
        sql = "SELECT gateway FROM epoch UNION SELECT gateway FROM baseline ORDER BY 1"
        return await self._do(lambda connection: tuple(name for (name,) in connection.execute(sql)))

    async def prune(self, *, registers_before_ms: int, interval_before: int, settled_before_ms: int) -> int:
        """
        Forget readings measured before, ended contributions of intervals before, and settled entries before.

        The latest reading of a register stays, however old.  Returns the number of rows deleted.
        """
        deletions = (
            (
                "DELETE FROM registers WHERE (gateway, device, obis, measured_at_ms) IN (SELECT gateway, device, obis,"
                " measured_at_ms FROM registers AS old WHERE measured_at_ms < ? AND EXISTS (SELECT 1 FROM registers AS"
                " newer WHERE newer.gateway = old.gateway AND newer.device = old.device AND newer.obis = old.obis"
                " AND newer.measured_at_ms > old.measured_at_ms) LIMIT ?)",
                registers_before_ms,
            ),
            (
                "DELETE FROM contribution WHERE rowid IN (SELECT rowid FROM contribution WHERE interval < ?"
                " AND state IN ('opened', 'void') LIMIT ?)",
                interval_before,
            ),
            (
                "DELETE FROM settled WHERE rowid IN (SELECT rowid FROM settled WHERE settled_at_ms < ? LIMIT ?)",
                settled_before_ms,
            ),
        )
        deleted = 0
        for sql, before in deletions:

            def delete(connection: sqlite3.Connection, sql: str = sql, before: int = before) -> int:
                return connection.execute(sql, (before, PRUNE_ROWS)).rowcount

            while rows := await self._do(delete):
                deleted += rows
        return deleted

    async def _do(self, action: Callable[[sqlite3.Connection], T], *, wipes: bool = False) -> T:
        async with self._room:
            if self._closing or self._connection is None:
                raise LocalProtocolError("the store is not open")
            job = _Job(action, wipes)
            self._queue.append(job)
            self._work.set()
            await job.done.wait()
        if job.error is not None:
            self.counters.failed += 1
            raise self._error("this write is not durable", job.error) from job.error
        result: T = job.result
        return result

    async def _run(self) -> None:
        """The writer: whatever is queued goes into one transaction."""
        with trio.CancelScope(shield=True):
            while self._queue or not self._closing:
                await self._work.wait()
                self._work = trio.Event()
                if self._queue:
                    jobs = tuple(self._queue)
                    self._queue.clear()
                    await trio.to_thread.run_sync(self._commit, jobs)
                    for job in jobs:
                        job.done.set()
                if self._queue or self._closing:
                    self._work.set()

    def _commit(self, jobs: tuple[_Job, ...]) -> None:
        """Run `jobs` in one transaction; if that fails, each in its own.  In a worker thread."""
        failure = self._attempt(jobs)
        if failure is not None:
            for job in jobs:
                job.error = failure if len(jobs) == 1 else self._attempt((job,)) or job.error
        if any(job.wipes and job.error is None for job in jobs):
            failure = self._wipe_log()
            for job in jobs:
                if job.wipes and job.error is None:
                    job.error = failure

    def _attempt(self, jobs: tuple[_Job, ...]) -> Exception | None:
        """Run `jobs` in one transaction.  Refused ones get their error; returns what made the transaction fail."""
        connection = self._connection
        assert connection is not None  # noqa: S101
        for job in jobs:
            job.error = None
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                connection.execute("SAVEPOINT job")
                try:
                    job.result = job.action(connection)
                except REFUSALS as refusal:
                    job.error = refusal
                    connection.execute("ROLLBACK TO job")
                connection.execute("RELEASE job")
            connection.execute("COMMIT")
        except sqlite3.Error as failure:
            # A full disk may have ended the transaction already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return failure
        self.counters.transactions += 1
        return None

    def _wipe_log(self) -> Exception | None:
        connection = self._connection
        assert connection is not None  # noqa: S101
        try:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as failure:
            return failure
        return (
            sqlite3.OperationalError("the write-ahead log is in use and still holds what was deleted") if busy else None
        )

    def _connect(self) -> sqlite3.Connection:
        connection = None
        try:
            # Readings and ring secrets: nobody else's to read.  The log file inherits the mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=0)
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise sqlite3.OperationalError("no write-ahead log on this file system")
            for pragma in ("synchronous = FULL", "secure_delete = ON", "temp_store = MEMORY"):
                connection.execute(f"PRAGMA {pragma}")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            elif version != SCHEMA_VERSION:
                raise sqlite3.OperationalError(f"schema version {version}, this program knows {SCHEMA_VERSION}")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            # The names of new files are only durable once their directory is.
            directory = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except (OSError, sqlite3.Error) as failure:
            if connection is not None:
                connection.close()
            raise self._error("cannot open the store", failure) from failure
        return connection

    def _error(self, what: str, failure: Exception) -> StoreError:
        code = getattr(failure, "sqlite_errorname", type(failure).__name__)
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            advice = "another process has it open; a store belongs to one process"
        elif code.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
            advice = "free space on its file system and check the disk; the gateways do not contribute until it works"
        elif code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            advice = "move the file away and enrol its gateways anew; never put back an older copy"
        elif isinstance(failure, REFUSALS):
            advice = "the record contradicts what is stored; the rest of the process goes on"
        else:
            advice = "check that the folder exists, is writable and is on a local file system"
        return StoreError(f"{self.path}: {what}: {failure} ({code}); {advice}")


def _load(connection: sqlite3.Connection, gateway: str) -> GatewayState:
    registers = connection.execute(
        "SELECT device, obis, value, scaler, unit, status, MAX(measured_at_ms), received_at_ms FROM registers"
        " WHERE gateway = ? GROUP BY device, obis",
        (gateway,),
    )
    contributions = connection.execute(
        "SELECT epoch, ring, round, attempt, interval, vector, registers, state FROM contribution WHERE gateway = ?"
        " AND state IN ('shared', 'served') ORDER BY epoch, round, attempt",
        (gateway,),
    )
    epochs = connection.execute(
        "SELECT epoch, ring, position, state FROM epoch WHERE gateway = ? ORDER BY epoch, ring", (gateway,)
    )
    baseline = connection.execute("SELECT slot, value FROM baseline WHERE gateway = ? ORDER BY slot", (gateway,))
    return GatewayState(
        registers=tuple(
            Register(gateway=gateway, device=device, obis=obis, value=int(value), scaler=scaler, unit=unit,
                     status=None if status is None else int(status), measured_at_ms=measured, received_at_ms=received)
            for device, obis, value, scaler, unit, status, measured, received in registers
        ),
        baseline={slot: int(value) for slot, value in baseline},
        contributions=tuple(
            Contribution(gateway=gateway, epoch=epoch, ring=ring, round=round_, attempt=attempt, interval=interval,
                         vector=vector, registers=values, state=ContributionState(state))
            for epoch, ring, round_, attempt, interval, vector, values, state in contributions
        ),
        epochs=tuple(
            EpochState(gateway=gateway, epoch=epoch, ring=ring, position=position, state=state)
            for epoch, ring, position, state in epochs
        ),
    )  # fmt: skip


def _settled(connection: sqlite3.Connection, gateway: str) -> tuple[Settled, ...]:
    rows = connection.execute(
        "SELECT epoch, ring, round, attempt, interval, opened, vector, registers, settled_at_ms FROM settled"
        " WHERE gateway = ? ORDER BY epoch, round",
        (gateway,),
    )
    return tuple(
        Settled(gateway=gateway, epoch=epoch, ring=ring, round=round_, attempt=attempt, interval=interval,
                opened=bool(opened), vector=vector, registers=registers, settled_at_ms=settled_at_ms)
        for epoch, ring, round_, attempt, interval, opened, vector, registers, settled_at_ms in rows
    )  # fmt: skip
