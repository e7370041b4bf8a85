"""
Being the only process that does something on a database, and noticing when that is over.

SQLite's lock is a file beside the database; the kernel gives it back with the process and at no other time.
PostgreSQL's (an advisory lock) belongs to a connection and ends with it: when the server restarts, or the network
between drops it, another process may take the lock while this one still believes that it has it.  So whoever holds it
looks again and again (`Lease.check`), takes it anew where nobody has, and ends where somebody has.
"""

from __future__ import annotations

import fcntl
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from coordinator.storage.engine import Database, fault_of
from protocol.errors import StromkreisError

log = logging.getLogger(__name__)
_TRY_LOCK = text("SELECT pg_try_advisory_lock(:key)")
_IS_ALIVE = text("SELECT 1")


class Lease:
    """Made by `exclusive`; used from one thread at a time."""

    def __init__(self, database: Database, what: str) -> None:
        self._database = database
        self._what = what
        self._connection: Connection | None = None

    def check(self) -> None:
        """
        Return if we are still the only one.

        Raises StromkreisError where another process is, sqlalchemy.exc.SQLAlchemyError where the database does not
        answer: then it is not known yet, and nobody can write meanwhile.
        """
        if self._database.engine.dialect.name != "postgresql":
            return
        if self._connection is not None:
            try:
                self._connection.scalar(_IS_ALIVE)
            except SQLAlchemyError as error:
                log.warning("the connection that makes us the %s was lost (%s)", self._what, fault_of(error))
                self.release()
            else:
                return
            self.acquire()
            log.warning("we are the %s again: nobody was in between or is now", self._what)
            return
        self.acquire()

    def acquire(self) -> None:
        """Take PostgreSQL's lock on a connection of its own.  Raises as `check`."""
        connection = self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            is_ours = bool(connection.scalar(_TRY_LOCK, {"key": zlib.crc32(self._what.encode())}))
        except SQLAlchemyError:
            connection.close()
            raise
        if not is_ours:
            connection.close()
            raise refusal(self._database, self._what)
        self._connection = connection

    def release(self) -> None:
        """Give the connection up, and the lock with it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.invalidate()  # not back into the pool, where it would keep the lock
            with suppress(SQLAlchemyError):
                connection.close()


@contextmanager
def exclusive(database: Database, what: str) -> Iterator[Lease]:
    """
    Be the only process that does `what` on this database, until the end of the block or of the process.

    Raises StromkreisError where another does it.
    """
    lease = Lease(database, what)
    with ExitStack() as held:
        if database.engine.dialect.name == "postgresql":
            held.callback(lease.release)
            lease.acquire()
        elif database.engine.url.database not in (None, "", ":memory:"):
            path = f"{database.engine.url.database}.{what.replace(' ', '-')}"
            file = held.enter_context(os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600)))
            if not _try_lock(file.fileno()):
                raise refusal(database, what)
        yield lease


def refusal(database: Database, what: str) -> StromkreisError:
    """What is said where another process was there first."""
    return StromkreisError(f"{database.name}: another process is the {what} of this database; stop that one first")


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
