"""
The node's durable store: one SQLite file and one writer for all gateways of the process.

A gateway may not let a share leave before the contribution is on disk: every round costs every gateway a flush.  One
flush is some milliseconds whatever it covers, so what many gateways want to write at the same moment shares one
transaction, and thousands of gateways cost what a few do.  `write` returns when its transaction is on the disk.

Why it is as it is:

- WAL with synchronous=FULL: a commit is one sequential write and one flush; NORMAL would acknowledge before it.
- A lock file keeps a second process out.  Two processes on one store would serve two attempts of a round with the same
  reading, which is the one thing a gateway must never do.  A backup that is put back does the same.
- What the database refuses of one gateway does not touch the others: the transaction is then begun anew, with a
  savepoint for each write.  If it fails as a whole, each write gets one of its own before anybody is informed that it
  failed.
- The writer finishes what is queued before it lets itself be cancelled, and a write that finds no writer fails: nobody
  waits for ever, and nobody takes an unwritten contribution for a written one.
- A write that is queued cannot be cancelled, so whoever remembers what is on the disk never has to guess.  It waits for
  one or two flushes at most; without that each of a thousand gateways would pay for a cancel scope of its own.
- secure_delete: a contribution is a household's reading; what is deleted is overwritten.  The write-ahead log keeps
  older pages, and so is emptied after whatever deletes or changes a row, at most once in some seconds, and at each
  epoch's end, at the start and at the stop: by the writer, when nobody waits.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import trio

from node.storage.cipher import Cipher
from node.storage.errors import SchemaError, SealError, StoreError, StoreHeldError
from node.storage.migrations import STEPS, check_version, migrate, store_steps
from node.storage.migrations.step004_blindings import BlindingKey
from protocol.durable import flush_directory

log = logging.getLogger(__name__)
_REFUSALS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, OverflowError)
"""What SQLite says about one write; everything else is about the file."""
_BUSY_MS = 5_000
_TRUNCATION_S_MIN = 5.0
"""Between two; each is a flush or two of the disk.  So long is what was deleted still found in the log."""


class Statement(NamedTuple):
    """One SQL statement with its parameters; they are never shown."""

    sql: str
    parameters: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"Statement(sql={self.sql!r})"

    @property
    def leaves_traces(self) -> bool:
        """Whether the log then holds pages with what is no longer in the database."""
        return self.sql.lstrip().startswith(("DELETE", "UPDATE"))


class _Write:
    """Statements that are written together, and the task that waits for them."""

    __slots__ = ("error", "statements", "task")

    def __init__(self, statements: Sequence[Statement], task: trio.lowlevel.Task) -> None:
        self.statements = statements
        self.task = task
        self.error: Exception | None = None


def _finish(writes: Sequence[_Write]) -> None:
    """It is known what became of these."""
    for each in writes:
        trio.lowlevel.reschedule(each.task)


def _not_now(_raise_cancel: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


@dataclass(slots=True)
class StoreCounters:
    """Since it was opened: `writes` that were acknowledged, `failed` that raised, `truncations` of the log."""

    transactions: int = 0
    writes: int = 0
    failed: int = 0
    truncations: int = 0


class Store:
    """
    Open with a path; `run` must be running in a nursery for `write` to return.  `cipher` is for the repositories: what
    goes into their statements is sealed already.

    `queue_writes`: how many writes may wait at once before `write` waits for room.  Below the number of gateways that
    contribute at the same moment, a round takes more than two transactions.  `blinding_key` is for a store of an
    earlier release, which may need it to be brought up to date.
    """

    def __init__(
        self, path: Path, cipher: Cipher, *, queue_writes: int = 16384, blinding_key: BlindingKey | None = None
    ) -> None:
        self._path = path
        self._blinding_key = blinding_key
        self.cipher = cipher
        self.counters = StoreCounters()
        self.observe_write: Callable[[float], None] | None = None
        """Hears how long each transaction took (s)."""
        self._room = trio.Semaphore(queue_writes)
        self._next: list[_Write] = []
        self._wanted = trio.Event()
        self._stopped = False
        self._is_truncation_due = False
        self._truncate_from_s = -math.inf
        self._is_reader_reported = False
        with ExitStack() as opened:
            try:
                self._open(path, opened)
            except BlockingIOError as error:
                raise StoreHeldError(str(self._error(error))) from error
            except (OSError, sqlite3.Error) as error:
                raise self._error(error) from error
            except SchemaError as error:
                raise StoreError(f"{path}: {error}") from None
            self._resources = opened.pop_all()

    def _open(self, path: Path, opened: ExitStack) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # A file of its own: closing any other descriptor of the database would drop SQLite's locks on it.
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        opened.callback(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Nobody else's to read.  SQLite gives its log the mode of the database.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        opened.callback(self._connection.close)
        check_version(self._connection, len(STEPS))  # before a pragma changes the file of a later release
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "temp_store=MEMORY"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._check_key()  # before a step seals more under a key that is not the store's
        found = migrate(self._connection, store_steps(self.cipher, self._blinding_key))
        if 0 < found < len(STEPS):
            log.info("%s: schema version %d is now %d", path, found, len(STEPS))
        self._truncate_log()
        # A connection of its own: reading must not wait, and the event loop with it, for the writer's flush.
        self._reader = sqlite3.connect(path, isolation_level=None)
        opened.callback(self._reader.close)
        self._reader.execute("PRAGMA query_only=ON")
        # The name of a new file is only durable once its directory is.
        flush_directory(path.parent)

    def _check_key(self) -> None:
        if not self._connection.execute("SELECT 1 FROM sqlite_schema WHERE name='key_check'").fetchall():
            return
        for (sealed,) in self._connection.execute("SELECT sealed FROM key_check"):
            try:
                self.cipher.open("key_check", (), sealed)
            except SealError:
                raise SchemaError(
                    "it is sealed under another storage key; put the key back that belongs to it. Where that is lost,"
                    " move the store away and let its gateways start anew; never put back an older copy"
                ) from None

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def queued(self) -> int:
        """Writes that wait for the next transaction."""
        return len(self._next)

    def read(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a query, committed ones; used at start-up.  Raises StoreError."""
        try:
            return self._reader.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._error(error) from error

    async def write(self, statements: Sequence[Statement]) -> None:
        """
        Return when the statements are durable, all or none.  Raises StoreError: then none is.

        It can be cancelled only while it waits for room; then none is either.
        """
        try:
            self._room.acquire_nowait()  # at once where it can be: a checkpoint comes with the wait below
        except trio.WouldBlock:
            await self._room.acquire()
        try:
            if self._stopped:
                raise StoreError(f"{self._path}: the store's writer has stopped; nothing was contributed")
            mine = _Write(statements, trio.lowlevel.current_task())
            self._next.append(mine)
            self._wanted.set()
            await trio.lowlevel.wait_task_rescheduled(_not_now)
        finally:
            self._room.release()
        if mine.error is not None:
            self.counters.failed += 1
            raise self._error(mine.error) from mine.error
        self.counters.writes += 1

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Run the writer until the block is left, cancelled or not: what the block writes at its end is still taken."""
        scope = trio.CancelScope(shield=True)

        async def write() -> None:
            with scope:
                await self.run()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            try:
                yield
            finally:
                scope.cancel()

    async def run(self) -> None:
        """The writer: one transaction after the other, each with whatever was asked for meanwhile."""
        batch: list[_Write] = []
        self._truncate_from_s = trio.current_time() + _TRUNCATION_S_MIN  # it was emptied when the store was opened
        try:
            while True:
                if not self._next:
                    await self._rest()
                    continue
                batch, self._next = self._next, []
                begun_s = trio.current_time()
                await self._in_thread(self._commit, batch)
                if self.observe_write is not None:
                    self.observe_write(trio.current_time() - begun_s)
                _finish(batch)
                self._is_truncation_due |= any(each.leaves_traces for write in batch for each in write.statements)
                self._is_truncation_due |= self._is_reader_reported  # a reader kept the log from being emptied
                batch = []
        finally:
            self._stopped = True
            unwritten, self._next = [*batch, *self._next], []
            for each in unwritten:
                each.error = sqlite3.OperationalError("the store's writer has stopped")
            _finish(unwritten)
            await self._in_thread(self._truncate_log)

    async def _rest(self) -> None:
        """Nobody waits: empty the log where it is time to, else wait for the next write."""
        wait_s = self._truncate_from_s - trio.current_time() if self._is_truncation_due else math.inf
        if wait_s <= 0:
            self._truncate_from_s = trio.current_time() + _TRUNCATION_S_MIN
            await self._in_thread(self._truncate_log)
            # Each keeps up to 2 MB of pages that were read once; a node of one gateway is not much larger itself.
            for connection in (self._connection, self._reader):
                connection.execute("PRAGMA shrink_memory")
            return
        with trio.move_on_after(wait_s):
            await self._wanted.wait()
            self._wanted = trio.Event()

    async def _in_thread(self, work: Callable[..., None], *arguments: Any) -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(work, *arguments)

    def truncate_log(self) -> None:
        """
        Ask the writer to empty the write-ahead log, which still holds what was deleted from the database.

        It does so as soon as no write waits: a flush or two, for which a write that comes meanwhile has to wait.
        """
        self._is_truncation_due, self._truncate_from_s = True, -math.inf
        self._wanted.set()

    def _truncate_log(self) -> None:
        """Fold the log into the database and cut it to nothing; after a later write where another process reads it."""
        self._is_truncation_due = False
        try:
            self._connection.execute("PRAGMA busy_timeout=0")
            try:
                ((is_busy, _, _),) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                self._connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        except sqlite3.Error as error:
            log.warning("%s: the write-ahead log was not emptied (%s)", self._path, error)
            return
        if not is_busy:
            self.counters.truncations += 1
        elif not self._is_reader_reported:
            log.warning("%s: another process reads it, the write-ahead log is emptied later", self._path)
        self._is_reader_reported = bool(is_busy)

    def close(self) -> None:
        """Close the file; another process may have it then."""
        self._resources.close()

    def _commit(self, writes: Sequence[_Write]) -> None:
        """Write all in one transaction; if that fails, each in its own.  In a worker thread."""
        failure = self._attempt(writes)
        if failure is None:
            return
        for each in writes:
            failure = failure if len(writes) == 1 else self._attempt((each,))
            each.error = failure or each.error

    def _attempt(self, writes: Sequence[_Write]) -> Exception | None:
        """One transaction.  Refused writes get their error; returned is what made the transaction as a whole fail."""
        execute = self._connection.execute
        for each in writes:
            each.error = None
        try:
            execute("BEGIN IMMEDIATE")
            try:
                for each in writes:
                    for statement in each.statements:
                        execute(statement.sql, statement.parameters)
            except _REFUSALS:
                execute("ROLLBACK")
                execute("BEGIN IMMEDIATE")
                self._execute_apart(writes)
            execute("COMMIT")
        except sqlite3.Error as failure:
            # A full disk may have ended the transaction already.
            if self._connection.in_transaction:
                execute("ROLLBACK")
            return failure
        self.counters.transactions += 1
        return None

    def _execute_apart(self, writes: Sequence[_Write]) -> None:
        """Each write whole or not at all; three times the statements, so only where one was refused."""
        execute = self._connection.execute
        for each in writes:
            execute("SAVEPOINT one")
            try:
                for statement in each.statements:
                    execute(statement.sql, statement.parameters)
            except _REFUSALS as refusal:
                each.error = refusal
                execute("ROLLBACK TO one")
            execute("RELEASE one")

    def _error(self, error: Exception) -> StoreError:
        code = getattr(error, "sqlite_errorname", type(error).__name__)
        if isinstance(error, BlockingIOError) or code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            advice = "another process has it open; a store belongs to one process"
        elif code.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
            advice = "free disk space and check the disk"
        elif code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            advice = "move the file away and let its gateways start anew; never put back an older copy"
        elif isinstance(error, _REFUSALS):
            advice = "the write contradicts what is stored; the other gateways go on"
        else:
            advice = "check that the folder exists, is writable and on a local disk"
        return StoreError(f"{self._path}: SQLite says '{error}' ({code}); {advice}; nothing was contributed")
