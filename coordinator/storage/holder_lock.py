"""
The sign of life of who holds a lease: a lock that the kernel or the database server gives back when its process ends.

Beside its own lock each ring service shares one with all others: releases from before there were leases take that for
themselves alone, and `stromkreis restore` too.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from contextlib import suppress
from typing import Protocol

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from coordinator.storage.engine import Database

_SHARED_KEY = zlib.crc32(b"ring service")
_TRY_SHARED = text("SELECT pg_try_advisory_lock_shared(:key)")
_TRY_OWN = text("SELECT pg_try_advisory_lock(:key)")
_IS_FREE = text("SELECT pg_try_advisory_xact_lock(:key)")  # given back with the transaction that asks
_IS_ALIVE = text("SELECT 1")
_FLOCK = "hhqqi4x"  # struct flock of Linux on 64 bits: type, whence, start, length, process


class HolderLock(Protocol):
    """What a process holds while it lives, and can ask of others."""

    ends_with_process: bool
    """Whether it cannot be lost otherwise."""

    def hold(self) -> bool:
        """Take it, where we do not have it; False where an earlier release has the database for itself."""

    def is_held(self) -> bool:
        """Whether we still have it."""

    def is_free(self, _connection: Connection, holder: int) -> bool:
        """Whether nobody has that of `holder`."""

    def release(self) -> None:
        """Give it up."""


def holder_lock(database: Database, holder: int) -> HolderLock:
    """The lock of the process with this number on a database."""
    if database.engine.dialect.name == "postgresql":
        return _ServerLock(database, holder)
    return _FileLock(file_of(database), holder)


def file_of(database: Database) -> str | None:
    """The file beside an SQLite database that ring services lock; None: it is in memory, nobody else's."""
    name = database.engine.url.database
    return None if name in (None, "", ":memory:") else f"{name}.ring-service"


class _ServerLock:
    """PostgreSQL's advisory locks, on a connection of their own."""

    ends_with_process = False

    def __init__(self, database: Database, holder: int) -> None:
        self._database = database
        self._holder = holder
        self._connection: Connection | None = None

    def hold(self) -> bool:
        if self._connection is not None:
            return True
        connection = self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            is_ours = connection.scalar(_TRY_SHARED, {"key": _SHARED_KEY})
            if is_ours:
                connection.execute(_TRY_OWN, {"key": self._holder})  # ours alone, so it is free or asked for just now
        except SQLAlchemyError:
            connection.close()
            raise
        self._connection = connection
        if not is_ours:
            self.release()
        return bool(is_ours)

    def is_held(self) -> bool:
        if self._connection is None:
            return False
        try:
            self._connection.scalar(_IS_ALIVE)
            return bool(self._connection.scalar(_TRY_OWN, {"key": self._holder}))  # counts up where we have it
        except SQLAlchemyError:
            return False

    def is_free(self, _connection: Connection, holder: int) -> bool:
        return bool(_connection.scalar(_IS_FREE, {"key": holder}))

    def release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.invalidate()  # not back into the pool, where it would keep the lock
            with suppress(SQLAlchemyError):
                connection.close()


class _FileLock:
    """A byte of a file, locked by the open file description: at the holder's number."""

    ends_with_process = True

    def __init__(self, path: str | None, holder: int) -> None:
        self._path = path
        self._holder = holder
        self._file: int | None = None

    def hold(self) -> bool:
        if self._path is None or self._file is not None:
            return True
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, _byte(self._holder))
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

    def is_held(self) -> bool:
        return self._path is None or self._file is not None

    def is_free(self, _connection: Connection, holder: int) -> bool:
        if self._file is None:
            return True
        found = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, _byte(holder))
        return bool(struct.unpack(_FLOCK, found)[0] == fcntl.F_UNLCK)

    def release(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def _byte(number: int) -> bytes:
    return struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0)
