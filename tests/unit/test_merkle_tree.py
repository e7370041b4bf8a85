"""
The Merkle tree of RFC 9162 against the published vectors of Certificate Transparency, and against itself.

Vectors: transparency-dev/merkle, testonly/constants.go, and google/certificate-transparency, merkletree tests.
"""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.enrolment_log.entries import Entry, Kind, TreeHead
from protocol.enrolment_log.merkle import (
    PROOF_LENGTH_MAX,
    SIZE_MAX,
    MerkleTree,
    check_consistency,
    check_inclusion,
    leaf_hash,
    node_hash,
)
from protocol.errors import LocalProtocolError, RemoteProtocolError

LEAVES = [
    bytes.fromhex(each)
    for each in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
_N96 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
_N5F = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
_N6B = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
_NBC = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
_NCA = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
_ND3 = "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"
_N0E = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
INCLUSION = {(0, 8): [_N96, _N5F, _N6B], (5, 8): [_NBC, _NCA, _ND3]}
CONSISTENCY = {(1, 1): [], (1, 8): [_N96, _N5F, _N6B], (6, 8): [_N0E, _NCA, _ND3], (2, 5): [_N5F, _NBC]}


@pytest.fixture(scope="module")
def tree() -> MerkleTree:
    return MerkleTree(map(leaf_hash, LEAVES))


def hexes(proof: list[bytes]) -> list[str]:
    return [each.hex() for each in proof]


def test_roots_are_those_of_the_published_vectors(tree: MerkleTree) -> None:
    assert [tree.root(size).hex() for size in range(9)] == ROOTS
    assert tree.root() == tree.root(8)


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_inclusion_proofs_are_those_of_the_published_vectors(tree: MerkleTree, index: int, size: int) -> None:
    assert hexes(tree.inclusion_proof(index, size)) == INCLUSION[index, size]
    path = [bytes.fromhex(each) for each in INCLUSION[index, size]]
    check_inclusion(leaf_hash(LEAVES[index]), index, size, path, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("first", "second"), CONSISTENCY)
def test_consistency_proofs_are_those_of_the_published_vectors(tree: MerkleTree, first: int, second: int) -> None:
    assert hexes(tree.consistency_proof(first, second)) == CONSISTENCY[first, second]
    path = [bytes.fromhex(each) for each in CONSISTENCY[first, second]]
    check_consistency(first, bytes.fromhex(ROOTS[first]), second, bytes.fromhex(ROOTS[second]), path)


def recursive_root(leaves: list[bytes]) -> bytes:
    """The definition of RFC 9162, 2.1.1, as it stands there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(recursive_root(leaves[:k]), recursive_root(leaves[k:]))


def numbered(count: int) -> list[bytes]:
    return [index.to_bytes(4, "big") for index in range(count)]


def test_every_proof_of_every_size_holds_and_no_changed_one() -> None:
    leaves = numbered(33)
    tree = MerkleTree(map(leaf_hash, leaves))
    for size in range(1, 34):
        root = tree.root(size)
        assert root == recursive_root(leaves[:size])
        for index in range(size):
            path = tree.inclusion_proof(index, size)
            check_inclusion(leaf_hash(leaves[index]), index, size, path, root)
            for wrong in (*range(index), *range(index + 1, size)):
                with pytest.raises(RemoteProtocolError, match="not_in_log"):
                    check_inclusion(leaf_hash(leaves[index]), wrong, size, path, root)
        for first in range(size + 1):
            path = tree.consistency_proof(first, size) if first else []
            check_consistency(first, tree.root(first), size, root, path)
            for changed in mutations(path):
                with pytest.raises(RemoteProtocolError, match="log_rewritten"):
                    check_consistency(first, tree.root(first), size, root, changed)


def mutations(path: list[bytes]) -> list[list[bytes]]:
    flipped = [[*path[:i], bytes(32), *path[i + 1 :]] for i in range(len(path))]
    return [*flipped, [*path, bytes(32)], *([path[:-1], path[1:]] if path else [])]


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=80), st.data())
def test_a_log_that_was_rewritten_has_no_proof(leaves: list[bytes], data: st.DataObject) -> None:
    first = data.draw(st.integers(1, len(leaves)))
    changed = data.draw(st.integers(0, first - 1))
    old = MerkleTree(map(leaf_hash, leaves))
    new = MerkleTree(map(leaf_hash, [*leaves[:changed], b"rewritten", *leaves[changed + 1 :]]))
    with pytest.raises(RemoteProtocolError, match="log_rewritten"):
        check_consistency(first, old.root(first), len(leaves), new.root(), new.consistency_proof(first, len(leaves)))
    check_consistency(first, old.root(first), len(leaves), old.root(), old.consistency_proof(first, len(leaves)))


@pytest.mark.parametrize(
    ("index", "size", "length"), [(0, 0, 0), (1, 1, 0), (-1, 4, 2), (0, SIZE_MAX + 1, 1), (0, 2, PROOF_LENGTH_MAX + 1)]
)
def test_inclusion_in_a_tree_that_cannot_be_is_refused(index: int, size: int, length: int) -> None:
    with pytest.raises(RemoteProtocolError, match="not_in_log"):
        check_inclusion(bytes(32), index, size, [bytes(32)] * length, bytes(32))


@pytest.mark.parametrize(
    ("first", "second", "length"), [(3, 2, 0), (-1, 2, 0), (2, 3, 0), (3, 4, 0), (1, SIZE_MAX + 1, 1), (1, 2, 65)]
)
def test_consistency_of_what_cannot_be_is_refused(first: int, second: int, length: int) -> None:
    with pytest.raises(RemoteProtocolError, match="log_rewritten"):
        check_consistency(first, bytes(32), second, bytes(range(32)), [bytes(32)] * length)


def test_a_tree_is_asked_for_nothing_that_it_does_not_have(tree: MerkleTree) -> None:
    for ask in (
        lambda: tree.root(9), lambda: tree.inclusion_proof(8, 8), lambda: tree.inclusion_proof(0, 9),
        lambda: tree.consistency_proof(0, 8), lambda: tree.consistency_proof(9, 8),
    ):  # fmt: skip
        with pytest.raises(LocalProtocolError):
            ask()


def test_entries_that_differ_in_anything_have_different_leaves() -> None:
    entry = Entry(Kind.CERTIFICATE, "ESTK0000000001", bytes(32), 1)
    others = [
        Entry(Kind.REVOKED, "ESTK0000000001", bytes(32), 1), Entry(Kind.CERTIFICATE, "ESTK0000000002", bytes(32), 1),
        Entry(Kind.CERTIFICATE, "ESTK0000000001", bytes(31) + b"1", 1),
        Entry(Kind.CERTIFICATE, "ESTK0000000001", bytes(32), 2),
    ]  # fmt: skip
    assert len({entry.leaf, *(each.leaf for each in others)}) == 5
    for wrong in (Entry(Kind.REVOKED, "", bytes(32), 1), Entry(Kind.REVOKED, "x", b"", 1)):
        with pytest.raises(LocalProtocolError):
            _ = wrong.leaf


def test_a_tree_head_that_the_log_did_not_sign_is_refused() -> None:
    head = TreeHead(3, bytes(32), 5, b"s" * 64)
    head.check(lambda text, signature: text == head.text and signature == b"s" * 64)
    with pytest.raises(RemoteProtocolError, match="forged_tree_head"):
        TreeHead(4, bytes(32), 5, b"s" * 64).check(lambda text, _: text == head.text)
