"""
What a member signs in an epoch, each text with its own purpose: what it says can be held against it, by everybody.

A member signs with the Ed25519 key of its JOIN.  The texts are digests over the epoch digest, the member's position and
all that the statement is about, so none can be played for another member, round, attempt, E or set of terms.

MASKED_INPUT is signed over two halves, so that either can be shown without the other:

- the blame half is what judges whose masks did not cancel (`machines.blame`): of the vector it holds the first word,
  which carries no data, and a salted digest.  The salt is the head's alone: whoever keeps evidence and learns keys of
  the epoch later could otherwise try readings against the digest;
- the commitment half is what makes a verified total: the round ledger sees it with the digest of the other.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

from protocol import wire
from protocol.dcnet.crypto.suite import digest
from protocol.dcnet.setup.rings import RingView
from protocol.records import record

SIGNATURE_SIZE = 64
ATTESTATION_SIZE = 32 + 32 + SIGNATURE_SIZE
_NO_BLINDING = digest("masked-blinding", b"")
_NONE_DROPPED = digest("dropped-words", b"", b"")


@record
class AttemptContext:
    """Which attempt a statement is about: E is a bitmap, `terms` the digest of what the OPEN fixed beside it (D)."""

    round: int
    attempt: int
    term: int
    expected: int
    terms: bytes

    def to_bytes(self, view: RingView) -> bytes:
        """A digest of it in its ring."""
        numbers = struct.pack("<QQQQ", view.ring, self.round, self.attempt, self.term)
        return _attempt_digest(view.digest, numbers, view.to_wire(self.expected), self.terms)


@lru_cache(maxsize=64)
def _attempt_digest(*parts: bytes) -> bytes:
    """It is public, and the same for all members of an attempt."""
    return digest("attempt", *parts)


def _position(position: int) -> bytes:
    return struct.pack("<Q", position)


def nonce_text(view: RingView, position: int, nonce: bytes) -> bytes:
    """What a member's process signs of its nonce, so that no head can give it another one."""
    return digest("nonce", view.digest, struct.pack("<Q", view.ring), _position(position), nonce)


def vector_digest(salt: bytes, vector: bytes) -> bytes:
    """Of the masked vector, 32 bytes, under a salt of 16 random bytes."""
    return digest("masked-vector", salt, vector)


def blame_half(
    view: RingView, position: int, context: AttemptContext, word: bytes, vector: bytes, seed_commitment: bytes
) -> bytes:
    """The first half of a signed MASKED_INPUT; `word` is the vector's first, 8 bytes, `vector` its `vector_digest`."""
    return digest("input-blame", context.to_bytes(view), _position(position), word, vector, seed_commitment)


def commitment_half(
    view: RingView, position: int, round_: int, attempt: int, commitments: bytes, blinding: bytes
) -> bytes:
    """The second half; `blinding` is the digest of the masked blindings (`blinding_digest`)."""
    numbers = struct.pack("<QQQQ", view.ring, round_, attempt, position)
    return digest("input-commitments", view.digest, numbers, commitments, blinding)


def blinding_digest(blinding: bytes) -> bytes:
    """Of the masked blinding vector."""
    return digest("masked-blinding", blinding) if blinding else _NO_BLINDING


def input_text(blame: bytes, commitments: bytes) -> bytes:
    """What a MASKED_INPUT's signature is over."""
    return digest("signed-input", blame, commitments)


def text_of_input(view: RingView, position: int, context: AttemptContext, message: wire.MaskedInput) -> bytes:
    """What the signature of this MASKED_INPUT must be over, if the member at `position` is to have made it."""
    half = commitment_half(
        view, position, context.round, context.attempt, message.commitments, blinding_digest(message.blinding)
    )
    return input_text(blame_half_of(view, position, context, message), half)


def blame_half_of(view: RingView, position: int, context: AttemptContext, message: wire.MaskedInput) -> bytes:
    """The blame half of a MASKED_INPUT."""
    vector = vector_digest(message.salt, message.vector)
    return blame_half(view, position, context, message.vector[:8], vector, message.seed_commitment)


def text_of_confirm(
    view: RingView, position: int, context: AttemptContext, roster: int, message: wire.Confirm
) -> bytes:
    """What the signature of this CONFIRM must be over, if the member at `position` is to have made it for U."""
    dropped = dropped_digest(message.dropped, message.dropped_blinding)
    return confirm_text(view, position, context, roster, message.dropped[:8], dropped)


def confirm_text(
    view: RingView, position: int, context: AttemptContext, roster: int, word: bytes, dropped: bytes
) -> bytes:
    """A CONFIRM: U, the first net word towards E without U (8 bytes or none), `dropped_digest` of all of them."""
    return digest("signed-confirm", context.to_bytes(view), _position(position), view.to_wire(roster), word, dropped)


def dropped_digest(words: bytes, blinding: bytes) -> bytes:
    """Of the net words towards the dropped, in both vectors."""
    return digest("dropped-words", words, blinding) if words or blinding else _NONE_DROPPED


def deal_text(view: RingView, dealer: int, commitments: Sequence[bytes], sealed: Sequence[tuple[int, bytes]]) -> bytes:
    """A DEAL: the Feldman commitments and every sealed share with its receiver's position."""
    shares = [part for other, blob in sealed for part in (_position(other), blob)]
    return digest("signed-deal", view.digest, _position(dealer), digest("feldman", *commitments), *shares)


def words_text(view: RingView, position: int, context: AttemptContext, words: bytes) -> bytes:
    """The first mask words of a member with its neighbours in E, by rising position, 8 bytes each."""
    return digest("signed-words", context.to_bytes(view), _position(position), words)


def inquiry_text(view: RingView, context: AttemptContext, roster: int) -> bytes:
    """The round ledger's word that an attempt is void because its masks did not cancel."""
    return digest("inquiry", context.to_bytes(view), view.to_wire(roster))
