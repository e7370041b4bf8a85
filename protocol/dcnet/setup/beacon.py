"""
The beacon: the order of the rings is drawn by all gateways of an area together, and by nobody alone.

Each gateway commits to a random value before it sees another's, shows its value for one list of commitments and never
for a second, and the beacon hashes all values under the digest of that list.  Whoever knows the beacon before the last
value is shown has no value left to choose; whoever withholds its own makes everybody commit afresh, without it.  What
that leaves is one yes or no for each try, and a gateway shows few values a day (`crowd.RevealBudget`).

    CALL(epoch, try) -> JOIN(c) -> LIST of all (id, c, join digest) -> REVEAL(ρ) -> LAYOUT with all ρ

Going on with the values that came, without those withheld, would let a coordinator with w gateways of its own choose
the best of 2^w rings offline; so a list is used with all its values or not at all.  The coordinator adds nothing of its
own: what it could choose would be ground against the values that it sees last.

Without I/O and without entropy of its own: values come in.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from protocol.dcnet.crypto.suite import digest
from protocol.errors import LocalProtocolError, RemoteProtocolError

RANDOM_SIZE = 32  # bytes of a gateway's part of the beacon


@dataclass(frozen=True, slots=True)
class ListEntry:
    """One line of a LIST: a gateway id, its commitment and the digest of its JOIN, 32 bytes each."""

    identity: str
    commitment: bytes
    join_digest: bytes


def commit(identity: str, epoch: int, try_: int, value: bytes) -> bytes:
    """The commitment c of a JOIN to `value`, 32 random bytes: hiding and binding as SHA-256 is."""
    return digest("beacon-commitment", identity.encode(), struct.pack("<QQ", epoch, try_), value)


def list_digest(call_digest: bytes, entries: Sequence[ListEntry]) -> bytes:
    """32 bytes over a LIST and, with its call, over area, epoch and try: what is signed, and what a REVEAL is for."""
    parts = [part for each in entries for part in (each.identity.encode(), each.commitment, each.join_digest)]
    return digest("beacon-list", call_digest, *parts)


def check_list(entries: Sequence[ListEntry], rejected: Sequence[str]) -> None:
    """
    Raise RemoteProtocolError unless ids rise strictly (so that nobody stands twice) and none is rejected.

    Reasons: `bad_list`, `rejected_member`.
    """
    identities = [each.identity for each in entries]
    if any(left >= right for left, right in pairwise(identities)):
        raise RemoteProtocolError("bad_list", "expected gateway ids that rise")
    if not set(rejected).isdisjoint(identities):
        raise RemoteProtocolError("rejected_member", "a gateway that withheld its value in this epoch is listed again")


def beacon(list_digest_: bytes, values: Sequence[bytes]) -> bytes:
    """32 bytes that nobody knows before all `values`, in the order of the LIST, have been shown."""
    return digest("beacon", list_digest_, *values)


def check_values(entries: Sequence[ListEntry], epoch: int, try_: int, values: Sequence[bytes]) -> None:
    """Raise RemoteProtocolError `wrong_values` unless there is one value for each entry that its commitment is to."""
    if len(values) != len(entries):
        raise RemoteProtocolError("wrong_values", f"{len(values)} values, expected all {len(entries)} of the list")
    for entry, value in zip(entries, values, strict=True):
        if commit(entry.identity, epoch, try_, value) != entry.commitment:
            raise RemoteProtocolError("wrong_values", f"the value shown for {entry.identity} is not committed to")


@dataclass(frozen=True, slots=True)
class Try:
    """
    A gateway's part in one try: its value, and the digest of the one list that it shows, or showed, it for.

    Durable as it stands: with the value before JOIN leaves, with the list before REVEAL leaves.
    """

    epoch: int
    number: int
    value: bytes = field(repr=False)
    shown_for: bytes | None = None

    def __post_init__(self) -> None:
        if len(self.value) != RANDOM_SIZE:
            raise LocalProtocolError(f"a part of the beacon has {RANDOM_SIZE} bytes")

    def commitment(self, identity: str) -> bytes:
        """What the JOIN says."""
        return commit(identity, self.epoch, self.number, self.value)

    def show_for(self, identity: str, list_digest_: bytes, entries: Sequence[ListEntry]) -> Try:
        """
        Return the try as it is once its value is shown for a list: the same again for the same list.

        Raises RemoteProtocolError: `second_list`, `not_listed` where our commitment is not in it.
        """
        if self.shown_for not in (None, list_digest_):
            raise RemoteProtocolError("second_list", "another list of a try whose value has been shown")
        own = self.commitment(identity)
        if not any(each.identity == identity and each.commitment == own for each in entries):
            raise RemoteProtocolError("not_listed", "a list without our commitment")
        return Try(self.epoch, self.number, self.value, list_digest_)


class ValueCollector:
    """The coordinator's side: the values that come in for one list; all of them, or the ids that are missing."""

    def __init__(self, entries: Sequence[ListEntry], epoch: int, try_: int, list_digest_: bytes) -> None:
        self.list_digest = list_digest_
        self._commitments = {each.identity: each.commitment for each in entries}
        self._epoch = epoch
        self._try = try_
        self._values: dict[str, bytes] = {}

    def take(self, identity: str, list_digest_: bytes, value: bytes) -> bool:
        """
        Take a gateway's REVEAL; True where it was the last one missing.

        Raises RemoteProtocolError: `not_listed`, `wrong_values`.
        """
        commitment = self._commitments.get(identity)
        if commitment is None or list_digest_ != self.list_digest:
            raise RemoteProtocolError("not_listed", "a value for a list in which this gateway does not stand")
        if commit(identity, self._epoch, self._try, value) != commitment:
            raise RemoteProtocolError("wrong_values", "the value shown is not the one committed to")
        complete = not self.missing
        self._values[identity] = value
        return not complete and not self.missing

    @property
    def missing(self) -> tuple[str, ...]:
        """Who has shown no value yet; at the window's end the next try is without them."""
        return tuple(each for each in self._commitments if each not in self._values)

    @property
    def values(self) -> tuple[bytes, ...]:
        """All values in the order of the list.  Raises LocalProtocolError while one is missing."""
        if self.missing:
            raise LocalProtocolError("a list is used with all its values or not at all")
        return tuple(self._values[each] for each in self._commitments)
