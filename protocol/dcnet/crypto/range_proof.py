"""
A proof that a Pedersen commitment holds a value in [0, 2^bits), and nothing else of it.

Commitments bind a member to a value mod the group's order, they do not bound it: a member could commit to a number
that no meter can count.  Here the value is committed to bit by bit and each bit shown to be 0 or 1:

- C = Σ 2^i·C_i with C_i = b_i·G + r_i·H.  C_0 is not sent but computed, so the sum holds by construction.
- For each C_i a proof that one of C_i and C_i - G is a multiple of H that the prover knows: two Schnorr proofs of which
  one is simulated, their challenges adding up to the common one (Cramer, Damgård, Schoenmakers, Crypto 1994).
- One challenge for all bits, a hash of the statement and of every announcement (Fiat and Shamir, Crypto 1986).  The
  statement (`context`) must name everything that the commitment is for, so that no proof serves elsewhere.

Binary digits and no logarithmic proof: at 16 to 22 bits the proof is small enough, and each step is one that the group
offers.  The prover's nonces come from injected entropy; a nonce used twice would disclose a bit.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Sequence

from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.group import (
    ELEMENT_SIZE,
    SCALAR_SIZE,
    decode_scalar,
    encode_scalar,
    require_element,
    wide_scalar,
)
from protocol.errors import LocalProtocolError, RemoteProtocolError

BITS_MAX = 64
_PURPOSE = b"stromkreis/v2/range-proof"
_BIT_SIZE = 3 * SCALAR_SIZE

Entropy = Callable[[int], bytes]
"""Gives as many uniform bytes as it is asked for."""


def proof_size(bits: int) -> int:
    """The length of a proof in bytes: the challenge, all but one bit commitment, three scalars for each bit."""
    return SCALAR_SIZE + (bits - 1) * ELEMENT_SIZE + bits * _BIT_SIZE


def prove_range(pedersen: Pedersen, value: int, blinding: int, bits: int, context: bytes, entropy: Entropy) -> bytes:
    """
    Prove that `pedersen.commit(value, blinding)` holds a value in [0, 2^bits); `proof_size(bits)` bytes.

    Raises LocalProtocolError where it does not, or for `bits` out of 1 to `BITS_MAX`.
    """
    if not 1 <= bits <= BITS_MAX or not 0 <= value < 1 << bits:
        raise LocalProtocolError("a value out of the range that is to be proved")
    group, h = pedersen.group, pedersen.blinding_generator
    order, g = group.order, group.multiply_base(1)

    def draw() -> int:
        return wide_scalar(group, uniform=entropy(64)) or 1

    blindings = [0, *(draw() for _ in range(bits - 1))]
    blindings[0] = (blinding - sum(each << index for index, each in enumerate(blindings))) % order
    commitments = [
        group.add(group.multiply_base(value >> index & 1), group.multiply(each, h))
        for index, each in enumerate(blindings)
    ]
    nonces, simulated, announced = [], [], []
    for index, commitment in enumerate(commitments):
        bit = value >> index & 1
        nonce, challenge, response = draw(), draw(), draw()
        statement = commitment if bit else group.subtract(commitment, g)  # of the other bit, which does not hold
        false = group.subtract(group.multiply(response, h), group.multiply(challenge, statement))
        true = group.multiply(nonce, h)
        announced += [false, true] if bit else [true, false]
        nonces.append(nonce)
        simulated.append((challenge, response))
    common = _challenge(pedersen, context, bits, commitments, announced)
    parts = [encode_scalar(group, common), *commitments[1:]]
    for index, (each, nonce, (challenge, response)) in enumerate(zip(blindings, nonces, simulated, strict=True)):
        own = (common - challenge) % order
        answer = (nonce + own * each) % order
        scalars = (challenge, response, answer) if value >> index & 1 else (own, answer, response)
        parts += [encode_scalar(group, scalar) for scalar in scalars]
    return b"".join(parts)


def check_range(pedersen: Pedersen, commitment: bytes, bits: int, context: bytes, proof: bytes) -> None:
    """
    Raise RemoteProtocolError `bad_range_proof` unless `proof` shows that `commitment` holds a value in [0, 2^bits).

    Bytes that are no elements or reduced scalars raise RemoteProtocolError too; `bits` is the verifier's own.
    """
    if not 1 <= bits <= BITS_MAX:
        raise LocalProtocolError("a range of 1 to 64 bits")
    if len(proof) != proof_size(bits):
        raise RemoteProtocolError("bad_range_proof", f"{len(proof)} bytes instead of {proof_size(bits)}")
    group, h = pedersen.group, pedersen.blinding_generator
    g = group.multiply_base(1)
    common = decode_scalar(group, proof[:SCALAR_SIZE])
    position = SCALAR_SIZE
    commitments = [b""]
    for _ in range(bits - 1):
        commitments.append(require_element(group, proof[position : position + ELEMENT_SIZE]))
        position += ELEMENT_SIZE
    rest = group.multiply_base(0)
    for each in reversed(commitments[1:]):
        rest = group.add(rest, each)
        rest = group.add(rest, rest)
    commitments[0] = group.subtract(require_element(group, commitment), rest)
    announced = []
    for each in commitments:
        zero, first, second = (
            decode_scalar(group, proof[start : start + SCALAR_SIZE])
            for start in range(position, position + _BIT_SIZE, SCALAR_SIZE)
        )
        position += _BIT_SIZE
        one = (common - zero) % group.order
        announced += [
            group.subtract(group.multiply(first, h), group.multiply(zero, each)),
            group.subtract(group.multiply(second, h), group.multiply(one, group.subtract(each, g))),
        ]
    expected = _challenge(pedersen, context, bits, commitments, announced)
    if not hmac.compare_digest(encode_scalar(group, expected), proof[:SCALAR_SIZE]):
        raise RemoteProtocolError("bad_range_proof", "the proof does not hold")


def _challenge(
    pedersen: Pedersen, context: bytes, bits: int, commitments: Sequence[bytes], announced: Sequence[bytes]
) -> int:
    """The bit commitments determine the commitment itself; every part but the context has a fixed length."""
    state = hashlib.sha512(_PURPOSE + struct.pack("<QQ", bits, len(context)) + context)
    for each in (*commitments, *announced):
        state.update(each)
    return wide_scalar(pedersen.group, uniform=state.digest())
