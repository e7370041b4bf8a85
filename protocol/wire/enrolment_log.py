"""Messages about the enrolment log: a gateway deals to no ring whose members are not all in it."""

from __future__ import annotations

from typing import Annotated

from protocol.wire.fields import MAX_RING, Counter, Digest, Epoch, Ring, integer, many, octets, record
from protocol.wire.registry import Message, Sender, message

_SIZE_MAX = 2**40
_PATH_MAX = 64
_path = many(octets(32), _PATH_MAX)
Membership = tuple[int, int, tuple[bytes, ...]]
"""Number and time (Unix, ms) of the entry of a member's certificate, and its audit path."""


@message(60, Sender.GATEWAY)
class LogRequest(Message):
    """
    A member asks for its ring's proofs; `known_size` is the size of the newest tree head it has seen, 0 for none.

    It asks for the history of the ring that it was in in `past_epoch`, too; -1: of none.
    """

    epoch: Epoch
    known_size: Annotated[int, integer(0, _SIZE_MAX)]
    past_epoch: Annotated[int, integer(-1, 2**40)]
    past_ring: Ring


@message(61, Sender.COORDINATOR)
class LogProof(Message):
    """
    The newest tree head of the enrolment log, signed, and proofs under it (protocol.enrolment_log).

    `consistency` leads from the head that the member has seen; `members` are its ring's, in position order.  `history`
    has the entry of the history that was asked for (number, time, leaf of the history, audit path), where there is one.
    """

    epoch: Epoch
    size: Annotated[int, integer(0, _SIZE_MAX)]
    root: Digest
    time_ms: Counter
    signature: Annotated[bytes, octets(64)]
    consistency: Annotated[tuple[bytes, ...], _path]
    members: Annotated[
        tuple[Membership, ...], many(record(integer(0, _SIZE_MAX), integer(0, 2**63 - 1), _path), MAX_RING)
    ]
    history: Annotated[
        tuple[tuple[int, int, bytes, tuple[bytes, ...]], ...],
        many(record(integer(0, _SIZE_MAX), integer(0, 2**63 - 1), octets(32), _path), 1),
    ]
