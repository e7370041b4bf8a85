"""
The audit log's entries and their chain: who has a later entry can tell whether an earlier one was touched.

Each entry names the digest (SHA-256) of the one before it.  A tail that was cut off leaves a shorter chain that is
right in itself: it is found against a head, number and digest, that lies elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256

from protocol.errors import RemoteProtocolError

FIRST = bytes(32)
"""What the first entry names as the digest before it."""
_PURPOSE = b"stromkreis audit log entry 1\0"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """
    What an account asked for: numbered from 1, `time_ms` real time (Unix, ms).

    `action` is the name of the operation (docs/reference/rest.md), `subject` what it was about, `address` whose request
    it was; `previous` is the digest of the entry before.
    """

    number: int
    time_ms: int
    account: str
    role: str
    action: str
    subject: str
    address: str
    previous: bytes

    @property
    def digest(self) -> bytes:
        """By which the next entry and a head name it."""
        document = asdict(self) | {"previous": self.previous.hex()}
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return sha256(_PURPOSE + text.encode()).digest()


def check_chain(
    entries: Iterable[tuple[AuditEntry, bytes]], head: tuple[int, bytes] | None = None
) -> tuple[int, bytes]:
    """
    Follow all entries of a log, each with the digest that is kept beside it; returns its head: number and digest.

    `head` is one from before, which must be among them.  Raises RemoteProtocolError: `audit_gap`, `audit_changed`,
    `audit_cut` where the earlier head is not there.
    """
    number, digest = 0, FIRST
    is_found = head is None or head == (0, FIRST)
    for entry, kept in entries:
        if entry.number != number + 1:
            raise RemoteProtocolError("audit_gap", f"entry {number + 1} is missing, {entry.number} follows {number}")
        if entry.previous != digest or entry.digest != kept:
            raise RemoteProtocolError("audit_changed", f"entry {entry.number} or the one before it was changed")
        number, digest = entry.number, entry.digest
        is_found |= (number, digest) == head
    if not is_found and head is not None:
        what = f"cut off behind entry {number}" if number < head[0] else f"entry {head[0]} is another one"
        raise RemoteProtocolError("audit_cut", f"the head that was kept is not in the log: {what}")
    return number, digest
