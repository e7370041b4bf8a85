"""What a gateway checks of the enrolment log before it deals to a ring."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from protocol import wire
from protocol.enrolment_log.entries import Entry, Kind, TreeHead
from protocol.enrolment_log.merkle import check_consistency, check_inclusion
from protocol.errors import RemoteProtocolError

HEAD_AGE_MS_MAX = 24 * 3_600_000
_AHEAD_MS_MAX = 900_000  # of clocks


def check_proof(
    proof: wire.LogProof, members: Sequence[wire.MemberRow], seen: TreeHead | None,
    verify: Callable[[bytes, bytes], bool], now_ms: int,
) -> TreeHead:  # fmt: skip
    """
    Return the tree head if all `members` (rows of the layout, in order) are in the log, which has grown from `seen`.

    `verify(text, signature)` knows the log's key that was pinned at enrolment.

    Raises RemoteProtocolError: `forged_tree_head`, `old_tree_head` for one that is a day old or of the future,
    `log_rewritten`, `not_in_log`.
    """
    head = TreeHead(proof.size, proof.root, proof.time_ms, proof.signature)
    head.check(verify)
    if not -_AHEAD_MS_MAX <= now_ms - head.time_ms <= HEAD_AGE_MS_MAX:
        raise RemoteProtocolError("old_tree_head", "a tree head of the enrolment log that is not of today")
    if seen is not None:
        check_consistency(seen.size, seen.root, head.size, head.root, proof.consistency)
    if len(proof.members) != len(members):
        raise RemoteProtocolError("not_in_log", f"{len(proof.members)} proofs for a ring of {len(members)}")
    for row, (number, time_ms, path) in zip(members, proof.members, strict=True):
        certificate = hashlib.sha256(row[6]).digest()
        entry = Entry(Kind.CERTIFICATE, row[0], certificate, time_ms)
        try:
            check_inclusion(entry.leaf, number, head.size, path, head.root)
        except RemoteProtocolError as error:
            raise RemoteProtocolError("not_in_log", f"the certificate of {row[0]} is not in the log") from error
    return head


def check_history(proof: wire.LogProof, head: TreeHead, epoch: int, ring: int, leaf: bytes) -> bool:
    """
    Whether the log has the history of a ring as we know it, `leaf`; False where it has none (yet).

    Raises RemoteProtocolError: `not_in_log` for a proof that does not hold, `history_differs` where others were told
    another end of a round than we.
    """
    for number, time_ms, logged, path in proof.history:
        entry = Entry(Kind.HISTORY, f"{epoch}/{ring}", logged, time_ms)
        check_inclusion(entry.leaf, number, head.size, path, head.root)
        if logged != leaf:
            raise RemoteProtocolError(
                "history_differs",
                f"the log has another history of epoch {epoch} ring {ring} than this gateway was told",
            )
        return True
    return False
