"""
The threshold PRF that opens one self mask at a time: F(K, label) = K · HashToGroup(label).

A gateway's key K is shared once per epoch among its neighbours. To open the mask of one round and attempt, t of them
each publish one point, share · HashToGroup(label); Lagrange interpolation "in the exponent" gives K · HashToGroup
(label), and neither K, nor a share, nor any other label's value leaks, under the decisional Diffie-Hellman assumption
in the random-oracle model. Source: Naor, Pinkas, Reingold, "Distributed Pseudo-Random Functions and KDCs",
Eurocrypt 1999, section 3.

Two additions:

- One wrong point among t makes the combination garbage, and nobody would know whose. A partial may carry a proof that
  it was made with the very share that the dealer committed to: a Chaum-Pedersen proof that log_G(share key) equals
  log_H(partial), made non-interactive (Fiat-Shamir over every value in play). A head that gets a wrong total asks for
  proofs; it need not verify what combines well.
- The proof's nonce is derived from the share and the label (as in RFC 6979 and RFC 8032: a nonce that repeats across
  two challenges reveals the share, and a broken entropy source has done that often enough). It can be injected for
  tests and for hedging.

The element itself is not used as a key: `mask_seed` runs it through HKDF, bound to the label.
"""

from collections.abc import Mapping

from cryptography.hazmat.primitives.hashes import SHA256, SHA512, Hash
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocol.dcnet.crypto.group import (
    ELEMENT_SIZE,
    SCALAR_SIZE,
    Group,
    decode_scalar,
    encode_scalar,
    require_element,
    wide_scalar,
)
from protocol.dcnet.crypto.shamir import lagrange_at_zero
from protocol.errors import LocalProtocolError, RemoteProtocolError

PROOF_SIZE = 2 * SCALAR_SIZE
SEED_SIZE = 32

_INPUT_DOMAIN = b"stromkreis/1 threshold PRF input"
_NONCE_DOMAIN = b"stromkreis/1 DLEQ nonce"
_CHALLENGE_DOMAIN = b"stromkreis/1 DLEQ challenge"
_SEED_DOMAIN = b"stromkreis/1 self mask seed"


def evaluate(group: Group, key: int, label: bytes) -> bytes:
    """F(key, label), one element: what the owner of the key computes. The key is a scalar, not 0."""
    _check_secret(group, key)
    return group.multiply(key, group.hash_to_group(_INPUT_DOMAIN, label))


def partial(group: Group, share: int, label: bytes) -> bytes:
    """The part of F that the holder of one share contributes."""
    return evaluate(group, share, label)


def combine(group: Group, partials: Mapping[int, bytes]) -> bytes:
    """
    F(K, label) from the partials of at least t holders, by holder x.

    Too few, or a wrong one, give another element without a sign: that is for the caller's checks or for
    `verify_partial` to see. Raises `RemoteProtocolError` for bytes that are no element of prime order.
    """
    factors = lagrange_at_zero(group.order, list(partials))
    total = group.multiply_base(0)
    for x, part in partials.items():
        total = group.add(total, group.multiply(factors[x], require_element(group, part)))
    return total


def prove_partial(group: Group, share: int, label: bytes, nonce: int | None = None) -> bytes:
    """
    `PROOF_SIZE` bytes that show that `partial(group, share, label)` was made with the share behind share·G.

    `nonce` is a uniform scalar, never used for anything else; None derives it from share and label.
    Source: Chaum, Pedersen, "Wallet Databases with Observers", Crypto 1992, section 3.2.
    """
    _check_secret(group, share)
    if nonce is None:
        nonce = _nonce(group, share, label)
    _check_secret(group, nonce)
    base = group.hash_to_group(_INPUT_DOMAIN, label)
    challenge = _challenge(
        group,
        label,
        group.multiply_base(share),
        group.multiply(share, base),
        group.multiply_base(nonce),
        group.multiply(nonce, base),
    )
    response = (nonce - challenge * share) % group.order
    return encode_scalar(group, challenge) + encode_scalar(group, response)


def verify_partial(group: Group, share_key: bytes, label: bytes, partial: bytes, proof: bytes) -> bool:
    """
    Whether `partial` is share·HashToGroup(label) for the share with share·G = `share_key`.

    False for everything malformed as well: whatever it is, it came from the peer that sent the partial.
    """
    if len(proof) != PROOF_SIZE or not group.is_element(share_key) or not group.is_element(partial):
        return False
    try:
        challenge = decode_scalar(group, proof[:SCALAR_SIZE])
        response = decode_scalar(group, proof[SCALAR_SIZE:])
    except RemoteProtocolError:
        return False
    base = group.hash_to_group(_INPUT_DOMAIN, label)
    return challenge == _challenge(
        group,
        label,
        share_key,
        partial,
        group.add(group.multiply_base(response), group.multiply(challenge, share_key)),
        group.add(group.multiply(response, base), group.multiply(challenge, partial)),
    )


def mask_seed(element: bytes, label: bytes) -> bytes:
    """`SEED_SIZE` bytes, the AES-256 key of one self mask, from F's value and its label (HKDF-SHA-256, RFC 5869)."""
    if len(element) != ELEMENT_SIZE:
        raise LocalProtocolError("a mask seed is derived from one group element")
    return HKDF(algorithm=SHA256(), length=SEED_SIZE, salt=None, info=_SEED_DOMAIN + b"\x00" + label).derive(element)


def _nonce(group: Group, share: int, label: bytes) -> int:
    mac = HMAC(encode_scalar(group, share), SHA512())
    mac.update(_NONCE_DOMAIN + b"\x00" + label)
    return wide_scalar(group, uniform=mac.finalize())


def _challenge(group: Group, label: bytes, *elements: bytes) -> int:
    digest = Hash(SHA512())
    digest.update(_CHALLENGE_DOMAIN + b"\x00" + group.multiply_base(1))
    for element in elements:
        digest.update(element)
    digest.update(label)
    return wide_scalar(group, uniform=digest.finalize())


def _check_secret(group: Group, scalar: int) -> None:
    if not 0 < scalar < group.order:
        raise LocalProtocolError("a key, share or nonce is a scalar from 1 to order - 1")
