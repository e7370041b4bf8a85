"""Opening a pair: what comes out is the X25519 secret of two foreign implementations, and nothing else passes."""

import hashlib
import random
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from nacl import bindings

from protocol.dcnet.crypto.group import Edwards25519
from protocol.dcnet.crypto.pair_opening import OPENING_SIZE, PairContext, lift, open_pair, opened_secret
from protocol.errors import LocalProtocolError, RemoteProtocolError

FIELD = 2**255 - 19
CONTEXT = PairContext(hashlib.sha256(b"epoch").digest(), 3, 5, 9)
GROUP = Edwards25519()


def keys(seed: int) -> tuple[bytes, bytes]:
    private = random.Random(seed).randbytes(32)
    return private, bytes(bindings.crypto_scalarmult_base(private))


def refuses(reason: str, *arguments: object) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        opened_secret(*arguments)  # type: ignore[arg-type]
    assert caught.value.reason == reason


@pytest.mark.parametrize("seed", range(0, 60, 2))
def test_an_opening_gives_the_secret_of_pynacl_and_cryptography(seed: int) -> None:
    (a, public_a), (b, public_b) = keys(seed), keys(seed + 1)
    secret = bytes(bindings.crypto_scalarmult(a, public_b))
    assert X25519PrivateKey.from_private_bytes(b).exchange(X25519PublicKey.from_public_bytes(public_a)) == secret
    opening = open_pair(a, public_a, public_b, CONTEXT)
    assert len(opening) == OPENING_SIZE == 96
    assert opened_secret(public_a, public_b, CONTEXT, opening) == secret
    turned = replace(CONTEXT, position=9, other=5)
    assert opened_secret(public_b, public_a, turned, open_pair(b, public_b, public_a, turned)) == secret


def test_an_opening_is_the_same_each_time_and_differs_by_context() -> None:
    (a, public_a), (_, public_b) = keys(1), keys(2)
    opening = open_pair(a, public_a, public_b, CONTEXT)
    assert opening == open_pair(a, public_a, public_b, CONTEXT)
    for other in (
        replace(CONTEXT, epoch_digest=bytes(32)), replace(CONTEXT, ring=4), replace(CONTEXT, position=6),
        replace(CONTEXT, other=1),
    ):  # fmt: skip
        refuses("bad_pair_opening", public_a, public_b, other, opening)
        assert open_pair(a, public_a, public_b, other)[32:] != opening[32:]


def test_every_changed_bit_of_an_opening_is_refused() -> None:
    (a, public_a), (_, public_b) = keys(3), keys(4)
    opening = open_pair(a, public_a, public_b, CONTEXT)
    for bit in range(8 * OPENING_SIZE):
        changed = bytearray(opening)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RemoteProtocolError):
            opened_secret(public_a, public_b, CONTEXT, bytes(changed))
    refuses("bad_pair_opening", public_a, public_b, CONTEXT, opening[:-1])
    refuses("bad_pair_opening", public_b, public_a, CONTEXT, opening)


def test_a_response_beyond_the_order_is_refused() -> None:
    (a, public_a), (_, public_b) = keys(5), keys(6)
    opening = open_pair(a, public_a, public_b, CONTEXT)
    beyond = (int.from_bytes(opening[64:], "little") + GROUP.order).to_bytes(32, "little")
    refuses("scalar_not_reduced", public_a, public_b, CONTEXT, opening[:64] + beyond)


def test_an_opening_of_another_secret_is_refused() -> None:
    """A member that does not know its key's logarithm towards another point cannot open to that point."""
    (a, public_a), (c, public_c), (_, public_b) = keys(7), keys(8), keys(9)
    wrong = open_pair(c, public_c, public_b, CONTEXT)
    refuses("bad_pair_opening", public_a, public_b, CONTEXT, wrong)
    mixed = wrong[:32] + open_pair(a, public_a, public_b, CONTEXT)[32:]
    refuses("bad_pair_opening", public_a, public_b, CONTEXT, mixed)


def test_a_private_key_of_somebody_else_is_our_own_fault() -> None:
    (_, public_a), (c, _), (_, public_b) = keys(10), keys(11), keys(12)
    with pytest.raises(LocalProtocolError):
        open_pair(c, public_a, public_b, CONTEXT)


def _with_order_two(public: bytes) -> bytes:
    """The same point plus the point of order 2: X25519 computes the same secrets with it."""
    y = int.from_bytes(lift(public), "little")
    total = int.from_bytes(
        bindings.crypto_core_ed25519_add(y.to_bytes(32, "little"), (FIELD - 1).to_bytes(32, "little")), "little"
    )
    y = total & 2**255 - 1
    return ((1 + y) * pow(1 - y, -1, FIELD) % FIELD).to_bytes(32, "little")


def test_a_key_of_mixed_order_that_x25519_accepts_does_not_lift() -> None:
    (_, public), (other, _) = keys(13), keys(14)
    mixed = _with_order_two(public)
    assert bindings.crypto_scalarmult(other, mixed) == bindings.crypto_scalarmult(other, public)
    with pytest.raises(RemoteProtocolError, match="key_not_liftable"):
        lift(mixed)


def test_keys_of_the_twist_do_not_lift() -> None:
    refused = 0
    for seed in range(200):
        candidate = random.Random(seed).randbytes(31) + b"\x10"
        try:
            lift(candidate)
        except RemoteProtocolError:
            refused += 1
    assert refused > 150  # half are on the twist, of the rest seven of eight are not of prime order


@pytest.mark.parametrize("u", [0, 1, FIELD - 1, FIELD, FIELD + 9, 2**255 + 9, 2**256 - 1], ids=lambda u: hex(u)[:12])
def test_coordinates_that_are_no_canonical_key_do_not_lift(u: int) -> None:
    with pytest.raises(RemoteProtocolError, match="key_not_liftable"):
        lift(u.to_bytes(32, "little"))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_keys_of_another_length_do_not_lift(size: int) -> None:
    with pytest.raises(RemoteProtocolError, match="key_not_liftable"):
        lift(b"\x09" + bytes(size - 1) if size else b"")


def test_the_base_point_lifts_to_the_generator() -> None:
    assert lift((9).to_bytes(32, "little")) == GROUP.multiply_base(1)
