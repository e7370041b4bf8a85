"""What a gateway asks of the enrolment log before it deals: every member in it, grown from what it saw, of today."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.enrolment_log.entries import Entry, Kind, TreeHead
from protocol.enrolment_log.merkle import MerkleTree
from protocol.enrolment_log.proof import HEAD_AGE_MS_MAX, check_history, check_proof
from protocol.errors import RemoteProtocolError

SUITE = StandardSuite()
SEED = b"k" * 32
NOW_MS = 1_772_000_000_000
KEY = bytes(32)
ROWS = tuple((f"ESTK{i:010}", KEY, KEY, KEY, bytes(16), bytes(70), b"certificate %d" % i) for i in range(7))


def entry_of(row: wire.MemberRow, time_ms: int = NOW_MS - 1) -> Entry:
    return Entry(Kind.CERTIFICATE, row[0], hashlib.sha256(row[6]).digest(), time_ms)


class Log:
    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.tree = MerkleTree(each.leaf for each in entries)

    def head(self, size: int, time_ms: int = NOW_MS, seed: bytes = SEED) -> TreeHead:
        head = TreeHead(size, self.tree.root(size), time_ms)
        return replace(head, signature=SUITE.sign(SUITE.signing_key(seed), head.text))

    def proof(
        self, head: TreeHead, known_size: int = 0, rows: tuple[wire.MemberRow, ...] = ROWS, past: str = ""
    ) -> wire.LogProof:
        path = self.tree.consistency_proof(known_size, head.size) if 0 < known_size <= head.size else []
        places = [next((i for i, each in enumerate(self.entries) if each.subject == row[0]), 0) for row in rows]
        members = tuple(
            (at, self.entries[at].time_ms, tuple(self.tree.inclusion_proof(at, head.size))) for at in places
        )
        return wire.LogProof(
            1, head.size, head.root, head.time_ms, head.signature, tuple(path), members, self.history(head, past)
        )

    def history(self, head: TreeHead, past: str) -> tuple[tuple[int, int, bytes, tuple[bytes, ...]], ...]:
        return tuple(
            (at, each.time_ms, each.digest, tuple(self.tree.inclusion_proof(at, head.size)))
            for at, each in enumerate(self.entries[: head.size])
            if (each.kind, each.subject) == (Kind.HISTORY, past)
        )


def check(proof: wire.LogProof, seen: TreeHead | None = None) -> TreeHead:
    key = SUITE.verify_key(SEED)
    return check_proof(proof, ROWS, seen, lambda text, signature: SUITE.verify(key, text, signature), NOW_MS)


@pytest.fixture
def log() -> Log:
    others = [Entry(Kind.REVOKED, f"ESTK1{i:09}", bytes(32), i) for i in range(5)]
    return Log([*others, *map(entry_of, ROWS), *others[:3]])


def test_a_ring_whose_members_are_all_in_the_log_is_taken(log: Log) -> None:
    seen = log.head(6)
    head = check(log.proof(log.head(15), 6), seen)
    assert (head.size, head.root) == (15, log.tree.root())
    assert check(log.proof(head, 15), head) == head
    assert check(log.proof(head)) == head


def test_a_certified_member_that_is_not_in_the_log_is_refused(log: Log) -> None:
    """Attack D8: the CA certifies an invention; it stands in no log that everybody sees."""
    without = Log([each for each in log.entries if each.subject != ROWS[3][0]])
    with pytest.raises(RemoteProtocolError, match=f"not_in_log: the certificate of {ROWS[3][0]}"):
        check(without.proof(without.head(14)))


def test_another_certificate_of_a_member_than_the_logs_is_refused(log: Log) -> None:
    """A second certificate for an honest id, with a key of the coordinator's."""
    forged = tuple((*row[:6], b"another") if row is ROWS[2] else row for row in ROWS)
    head = log.head(15)
    with pytest.raises(RemoteProtocolError, match="not_in_log"):
        check_proof(log.proof(head), forged, None, lambda *_: True, NOW_MS)


def test_fewer_or_exchanged_proofs_than_members_are_refused(log: Log) -> None:
    proof = log.proof(log.head(15))
    for members in (proof.members[1:], (*proof.members, proof.members[0]), proof.members[::-1], ()):
        with pytest.raises(RemoteProtocolError, match="not_in_log"):
            check(replace(proof, members=members))


def test_a_log_that_was_rewritten_is_found_by_who_saw_the_older_head(log: Log) -> None:
    seen = log.head(12)
    rewritten = Log([Entry(Kind.REVOKED, "ESTK1000000009", bytes(32), 9), *log.entries[1:]])
    for known in (0, 12):
        with pytest.raises(RemoteProtocolError, match="log_rewritten"):
            check(rewritten.proof(rewritten.head(15), known), seen)


def test_a_fork_shown_to_one_ring_is_found_when_it_is_shown_the_log_again(log: Log) -> None:
    """The log's key has signed both: whoever saw the fork's head has the proof in hand."""
    fork = Log([*log.entries[:12], Entry(Kind.CERTIFICATE, "ESTK9000000000", bytes(32), 7)])
    seen = check(fork.proof(fork.head(13), 12), log.head(12))
    with pytest.raises(RemoteProtocolError, match="log_rewritten"):
        check(log.proof(log.head(15), 13), seen)


def test_a_log_that_has_shrunk_is_refused(log: Log) -> None:
    with pytest.raises(RemoteProtocolError, match="log_rewritten"):
        check(log.proof(log.head(12)), log.head(15))


def test_a_head_by_another_key_is_refused(log: Log) -> None:
    """The database alone does not make a log: its key may lie elsewhere."""
    with pytest.raises(RemoteProtocolError, match="forged_tree_head"):
        check(log.proof(log.head(15, seed=b"x" * 32)))


@pytest.mark.parametrize("age_ms", [HEAD_AGE_MS_MAX + 1, -900_001])
def test_a_head_that_is_not_of_today_is_refused(log: Log, age_ms: int) -> None:
    with pytest.raises(RemoteProtocolError, match="old_tree_head"):
        check(log.proof(log.head(15, NOW_MS - age_ms)))


def test_a_private_end_of_a_last_round_is_found_in_the_log(log: Log) -> None:
    told, others = b"a" * 32, b"b" * 32
    log = Log([*log.entries, Entry(Kind.HISTORY, "6/3", others, 9)])
    head = log.head(16)
    proof = log.proof(head, past="6/3")
    assert check_history(proof, head, 6, 3, others)
    with pytest.raises(RemoteProtocolError, match="history_differs"):
        check_history(proof, head, 6, 3, told)
    with pytest.raises(RemoteProtocolError, match="not_in_log"):
        check_history(proof, head, 6, 2, others)
    assert not check_history(log.proof(log.head(15), past="6/3"), log.head(15), 6, 3, told), "not entered yet"
