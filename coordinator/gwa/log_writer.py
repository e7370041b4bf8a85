"""
The one writer of the enrolment log: enters what was certified, revoked and finished, and signs the tree's head.

Whatever made a certificate, it is found in the database and entered; so nothing that a gateway would believe stays out
of the log, whichever process or command issued it.  The writer has a key of its own and a copy of the log of its own, a
file to which each entry is appended durably before the database has it: `log_dir` may lie on another disk or machine
than the database.  A database that was put back gets the entries back that it lacks; one whose entries differ from the
file's is not signed.  `stromkreis audit log --json` prints the same lines: an auditor's copy replaces one that is lost.
So whoever holds the database alone can rewrite no entry and sign no fork.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

import trio
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from coordinator.events import Emit, StoreFailed
from coordinator.storage.engine import fault_of
from coordinator.storage.enrolment_log import EnrolmentLogRepository, LoggedEntry
from coordinator.threads import in_thread
from protocol.durable import flush_directory
from protocol.enrolment_log.entries import Entry, Kind, TreeHead
from protocol.enrolment_log.merkle import MerkleTree
from protocol.errors import StromkreisError

log = logging.getLogger(__name__)
LOG_FILE = "enrolment-log.jsonl"
LOG_KEY_FILE = "log.json"
_WAKE_S = 0.2  # until a certificate that was issued here is entered
_LOOK_S = 5.0  # between two looks for what other processes issued and revoked
SIGN_AGAIN_S = 3600.0  # gateways refuse a head that is a day old
_BATCH = 1000


class LogWriter:
    """`sign` signs with the log's key; `clock` is Unix time in seconds."""

    def __init__(
        self, repository: EnrolmentLogRepository, path: Path, sign: Callable[[bytes], bytes],
        clock: Callable[[], float], emit: Emit, signed: Callable[[int, float], None] = lambda _size, _time_s: None,
    ) -> None:  # fmt: skip
        """`signed` hears size and time (Unix, s) of each head that is signed."""
        self._repository = repository
        self._path = path
        self._sign = sign
        self._clock = clock
        self._emit = emit
        self._signed = signed
        self._is_wanted = False
        self._lock: IO[bytes] | None = None
        self._tree = MerkleTree()
        self._head: TreeHead | None = None

    def close(self) -> None:
        """Let another process write."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _is_writer(self) -> bool:
        """
        Whether we are the only writer: of two processes one stands by.

        Raises StromkreisError where file and database hold different logs, or the file is damaged.
        """
        if self._lock is not None:
            return True
        lock = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        try:
            kept = _read(self._path)
            self._tree = MerkleTree(each.entry.leaf for each in kept)
            self._head = self._repository.head()
            self._reconcile(kept)
        except BaseException:
            lock.close()
            raise
        self._lock = lock
        return True

    def _reconcile(self, kept: list[LoggedEntry]) -> None:
        known = self._repository.entries(0)
        for mine, theirs in zip(kept, known, strict=False):
            if mine != theirs:
                raise StromkreisError(
                    f"entry {mine.number} of the enrolment log is not the one in {self._path}: somebody has changed the"
                    " database; nothing is signed. Bring back the database, or the file that belongs to it"
                )
        if len(known) > len(kept):
            log.warning(
                "%s has %d entries of the enrolment log, the database %d: the rest is taken from there",
                self._path, len(kept), len(known),
            )  # fmt: skip
            rest = known[len(kept) :]
            _append(self._path, rest)
            for each in rest:
                self._tree.append(each.entry.leaf)
        elif len(kept) > len(known):
            log.warning(
                "%d entries of the enrolment log were not in the database, and are again; was it put back to an earlier"
                " state?", len(kept) - len(known),
            )  # fmt: skip
            self._store(kept[len(known) :])

    def enter_all(self) -> None:
        """Enter all that there is, at the start.  Raises StromkreisError where the log cannot be written."""
        try:
            while self.step():
                pass
        except OSError as error:
            raise StromkreisError(f"{self._path}: the enrolment log cannot be written ({error})") from error
        except SQLAlchemyError as error:
            raise StromkreisError(f"the enrolment log cannot be written: {fault_of(error)}") from error

    def step(self) -> bool:
        """
        Enter what there is and sign; whether there may be more.

        Raises SQLAlchemyError, OSError; StromkreisError where file and database hold different logs.
        """
        if not self._is_writer():
            return False
        known = self._repository.size()
        if known > self._tree.size:  # another machine's writer has its own file: what it entered is taken over
            self.close()
            return True
        if known < self._tree.size:  # the database failed when it was about to store these
            self._store(_read(self._path)[known:])
            return True
        found = self._repository.unlogged(_BATCH)
        if not found and self._head is not None and abs(self._clock() - self._head.time_ms / 1000) < SIGN_AGAIN_S:
            return False
        now_ms, first = round(self._clock() * 1000), self._tree.size
        made = [
            LoggedEntry(first + i, Entry(each.kind, each.subject, each.digest, now_ms), each.reference)
            for i, each in enumerate(found)
        ]
        size = _append(self._path, made)
        for each in made:
            self._tree.append(each.entry.leaf)
        try:
            self._store(made)
        except IntegrityError:  # another machine's writer was first: nobody has seen what we signed
            os.truncate(self._path, size)
            self.close()
            return True
        return len(found) == _BATCH

    def _store(self, made: Sequence[LoggedEntry]) -> None:
        head = TreeHead(self._tree.size, self._tree.root(), round(self._clock() * 1000))
        head = replace(head, signature=self._sign(head.text))
        self._repository.append(made, head)
        self._head = head
        self._signed(head.size, head.time_ms / 1000)

    def wake(self) -> None:
        """A certificate was issued; safe from any thread."""
        self._is_wanted = True

    async def _rest(self) -> None:
        until_s = trio.current_time() + _LOOK_S
        while not self._is_wanted and trio.current_time() < until_s:
            await trio.sleep(_WAKE_S)
        self._is_wanted = False

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            try:
                is_more = await in_thread(self.step)
            except (SQLAlchemyError, OSError) as error:
                self._emit(StoreFailed.by(error, "the enrolment log cannot be written, new gateways wait"))
                is_more = False
            if not is_more:
                await self._rest()


def _read(path: Path) -> list[LoggedEntry]:
    """All whole lines; one that a crash has cut off was in no head.  Raises StromkreisError for a damaged file."""
    if not path.exists():
        return []
    found: list[LoggedEntry] = []
    lines = path.read_bytes().split(b"\n")
    for line in lines[:-1]:
        try:
            row = json.loads(line)
            entry = Entry(
                Kind[row["kind"].upper()], str(row["subject"]), bytes.fromhex(row["digest"]), int(row["time_ms"])
            )
            each = LoggedEntry(int(row["number"]), entry, str(row["reference"]))
            if each.number != len(found) or not each.entry.leaf:
                raise ValueError("out of order")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StromkreisError(
                f"{path}: line {len(found) + 1} is no entry {len(found)} of the enrolment log; bring the file back from"
                " its newest copy"
            ) from error
        found.append(each)
    return found


def _append(path: Path, made: Sequence[LoggedEntry]) -> int:
    """Add lines, durably; the size of the file before (bytes)."""
    if not made:
        return path.stat().st_size
    lines = [
        json.dumps(
            {
                "number": each.number, "kind": each.entry.kind.name.lower(), "subject": each.entry.subject,
                "digest": each.entry.digest.hex(), "time_ms": each.entry.time_ms, "reference": each.reference,
            }
        ).encode() + b"\n"
        for each in made
    ]  # fmt: skip
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size and (file.seek(size - 1), file.read(1))[1] != b"\n":  # a crash has cut the last line off
            file.seek(0)
            size = file.read().rfind(b"\n") + 1
        file.seek(size)
        file.truncate()
        file.write(b"".join(lines))
        file.flush()
        os.fsync(file.fileno())
    if size == 0:
        flush_directory(path.parent)
    return size
