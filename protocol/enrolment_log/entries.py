"""
What the enrolment log holds, as bytes, and the head of its tree, which is signed.

Nothing personal is in it: gateway ids, digests, times.  A gateway knows an entry of another one by its certificate, so
a certified invention is in the log for everybody to see, or in no ring.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from protocol.dcnet.crypto.suite import digest
from protocol.enrolment_log.merkle import HASH_SIZE, leaf_hash
from protocol.errors import LocalProtocolError, RemoteProtocolError

SUBJECT_SIZE_MAX = 64


class Kind(IntEnum):
    """What an entry says; the number is in its leaf."""

    CERTIFICATE = 1
    """A signature certificate was issued to a gateway: SHA-256 of it (DER)."""
    REVOKED = 2
    """A gateway was revoked, or its id released: SHA-256 of its last signature certificate."""
    HISTORY = 3
    """How all rounds of a ring ended: `History.leaf`.  The subject is EPOCH/RING."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: a gateway id or EPOCH/RING, 32 bytes, and the time (Unix, ms) at which it was entered."""

    kind: Kind
    subject: str
    digest: bytes
    time_ms: int

    @property
    def leaf(self) -> bytes:
        """The hash of its leaf in the tree."""
        subject = self.subject.encode()
        if not 0 < len(subject) <= SUBJECT_SIZE_MAX or len(self.digest) != HASH_SIZE:
            raise LocalProtocolError(
                f"an entry has a subject of 1 to {SUBJECT_SIZE_MAX} octets and 32 octets of digest"
            )
        numbers = struct.pack(">BQB", self.kind, self.time_ms, len(subject))
        return leaf_hash(b"stromkreis enrolment log" + numbers + subject + self.digest)


@dataclass(frozen=True, slots=True)
class TreeHead:
    """The tree of `size` entries, as it stood at `time_ms`, signed by the log's key (Ed25519)."""

    size: int
    root: bytes
    time_ms: int
    signature: bytes = bytes(64)

    @property
    def text(self) -> bytes:
        """What is signed."""
        return digest("enrolment-log-head", struct.pack("<QQ", self.size, self.time_ms), self.root)

    def check(self, verify: Callable[[bytes, bytes], bool]) -> None:
        """Raise RemoteProtocolError `forged_tree_head` unless `verify(text, signature)` says that the log signed it."""
        if not verify(self.text, self.signature):
            raise RemoteProtocolError("forged_tree_head", "a tree head that the pinned key of the log did not sign")
