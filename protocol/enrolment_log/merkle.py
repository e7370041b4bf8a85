"""
The Merkle tree of RFC 9162, section 2.1: SHA-256, append-only, with proofs of inclusion and of consistency.

A leaf hashes as H(0x00 ‖ data), a node as H(0x01 ‖ left ‖ right); a tree of n leaves is split at the largest power of
two below n.  A proof has at most 64 hashes in a tree of up to 2^63 leaves, and a verifier takes no more: proofs come
from whoever is to be caught.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence

from protocol.errors import LocalProtocolError, RemoteProtocolError

HASH_SIZE = 32
PROOF_LENGTH_MAX = 64
SIZE_MAX = 2**40  # leaves; an index and a size fit a wire integer
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf, 32 bytes (RFC 9162, 2.1.1)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node, 32 bytes (RFC 9162, 2.1.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class MerkleTree:
    """All leaf hashes and the hashes of all complete subtrees: an append costs one hash on average, a proof log n."""

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]
        for each in leaf_hashes:
            self.append(each)

    @property
    def size(self) -> int:
        """How many leaves it has."""
        return len(self._levels[0])

    def append(self, leaf: bytes) -> None:
        """Add a leaf by its hash, 32 bytes."""
        level, carry = 0, leaf
        while True:
            if level == len(self._levels):
                self._levels.append([])
            row = self._levels[level]
            row.append(carry)
            if len(row) % 2:
                return
            carry = node_hash(row[-2], row[-1])
            level += 1

    def root(self, size: int | None = None) -> bytes:
        """The root of the first `size` leaves, 32 bytes."""
        size = self._checked(self.size if size is None else size)
        return EMPTY_ROOT if size == 0 else self._hash(0, size)

    def _checked(self, size: int) -> int:
        if not 0 <= size <= self.size:
            raise LocalProtocolError(f"a tree of {size} leaves, of {self.size}")
        return size

    def _hash(self, start: int, end: int) -> bytes:
        """The hash over leaves [start, end); start is a multiple of the subtree's size."""
        count = end - start
        level = count.bit_length() - 1
        if count == 1 << level:
            return self._levels[level][start >> level]
        middle = start + _split(count)
        return node_hash(self._hash(start, middle), self._hash(middle, end))

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """The audit path of leaf `index` in the tree of the first `size` leaves (RFC 9162, 2.1.3.1)."""
        if not 0 <= index < self._checked(size):
            raise LocalProtocolError(f"leaf {index} of a tree of {size}")
        path, start, end = [], 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._hash(middle, end))
                end = middle
            else:
                path.append(self._hash(start, middle))
                start = middle
        return path[::-1]

    def consistency_proof(self, first: int, second: int) -> list[bytes]:
        """That the tree of `first` leaves is the beginning of that of `second` (RFC 9162, 2.1.4.1)."""
        if not 0 < first <= self._checked(second):
            raise LocalProtocolError(f"consistency of {first} with {second} leaves")
        path, start, end, is_whole = [], 0, second, True
        while first != end:
            middle = start + _split(end - start)
            if first <= middle:
                path.append(self._hash(middle, end))
                end = middle
            else:
                path.append(self._hash(start, middle))
                start, is_whole = middle, False
        if not is_whole:
            path.append(self._hash(start, end))
        return path[::-1]


def _split(count: int) -> int:
    """The largest power of two below `count`, which is 2 or more."""
    return int(1 << (count - 1).bit_length() - 1)


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """
    Return if the leaf of hash `leaf` is at `index` in the tree of `size` leaves with this root (RFC 9162, 2.1.3.2).

    Raises RemoteProtocolError `not_in_log`.
    """
    node, last = index, size - 1
    if not 0 <= index < size <= SIZE_MAX or len(path) > PROOF_LENGTH_MAX:
        raise RemoteProtocolError("not_in_log", f"leaf {index} of {size} with a proof of {len(path)} hashes")
    hash_ = leaf
    for each in path:
        if last == 0:
            raise RemoteProtocolError("not_in_log", "an inclusion proof that is too long")
        if node & 1 or node == last:
            hash_ = node_hash(each, hash_)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            hash_ = node_hash(hash_, each)
        node, last = node >> 1, last >> 1
    if last != 0 or not hmac.compare_digest(hash_, root):
        raise RemoteProtocolError("not_in_log", "an inclusion proof that does not lead to the tree's root")


def check_consistency(
    first: int, first_root: bytes, second: int, second_root: bytes, path: Sequence[bytes]
) -> None:  # fmt: skip
    """
    Return if the tree of `first` leaves is the beginning of that of `second` leaves (RFC 9162, 2.1.4.2).

    An empty tree is the beginning of every tree.  Raises RemoteProtocolError `log_rewritten`.
    """
    if not 0 <= first <= second <= SIZE_MAX or len(path) > PROOF_LENGTH_MAX:
        raise RemoteProtocolError("log_rewritten", f"a log of {second} leaves, of which {first} were seen before")
    if first in {0, second}:
        expected = second_root if first == second else EMPTY_ROOT
        if path or not hmac.compare_digest(first_root, expected):
            raise RemoteProtocolError("log_rewritten", "another root of a log of the same size")
        return
    hashes = [first_root, *path] if first & (first - 1) == 0 else list(path)
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    if not hashes:
        raise RemoteProtocolError("log_rewritten", "a consistency proof without hashes")
    old = new = hashes[0]
    for each in hashes[1:]:
        if last == 0:
            raise RemoteProtocolError("log_rewritten", "a consistency proof that is too long")
        if node & 1 or node == last:
            old, new = node_hash(each, old), node_hash(each, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, each)
        node, last = node >> 1, last >> 1
    is_same = hmac.compare_digest(old, first_root) and hmac.compare_digest(new, second_root)
    if last != 0 or not is_same:
        raise RemoteProtocolError("log_rewritten", "what was in the log before is not in it now")
