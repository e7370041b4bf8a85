"""The group, Shamir's sharing and the threshold PRF: algebra, strict encodings, and what is refused."""

import random

import pytest

from protocol.dcnet.crypto import prf, shamir
from protocol.dcnet.crypto.group import Edwards25519, decode_scalar, encode_scalar, require_element, wide_scalar
from protocol.errors import LocalProtocolError, RemoteProtocolError

GROUP = Edwards25519()
ORDER = GROUP.order
ORDER_TWO = (2**255 - 20).to_bytes(32, "little")  # (0, -1)
NON_CANONICAL = (2**255 - 18).to_bytes(32, "little")  # y = p + 1, another name of the identity
OFF_CURVE = b"\x02" + bytes(31)


def element(seed: int) -> bytes:
    return GROUP.hash_to_group(b"test", seed.to_bytes(8, "big"))


def coefficients(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(1, ORDER) for _ in range(count)]


def test_order_is_the_one_of_rfc_8032() -> None:
    assert ORDER == 0x1000000000000000000000000000000014DEF9DEA2F79CD65812631A5CF5D3ED
    assert all(pow(base, ORDER - 1, ORDER) == 1 for base in (2, 3, 5, 7, 11))
    assert GROUP.multiply_base(1).hex() == "58" + "66" * 31


def test_group_laws() -> None:
    rng = random.Random(1)
    a, b = rng.randrange(ORDER), rng.randrange(ORDER)
    point = element(1)
    assert GROUP.add(GROUP.multiply(a, point), GROUP.multiply(b, point)) == GROUP.multiply(a + b, point)
    assert GROUP.subtract(GROUP.multiply(a, point), GROUP.multiply(b, point)) == GROUP.multiply(a - b, point)
    assert GROUP.multiply(a, GROUP.multiply_base(b)) == GROUP.multiply_base(a * b)
    assert GROUP.add(point, element(2)) == GROUP.add(element(2), point)


def test_identity_is_an_ordinary_value() -> None:
    point = element(1)
    zero = GROUP.multiply_base(0)
    assert zero == GROUP.identity == GROUP.multiply(0, point) == GROUP.multiply_base(ORDER) == GROUP.multiply(7, zero)
    assert GROUP.add(point, zero) == point == GROUP.subtract(point, zero)
    assert GROUP.subtract(point, point) == zero
    assert GROUP.add(point, GROUP.multiply(-1, point)) == zero
    assert not GROUP.is_element(zero)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(ORDER_TWO, id="small-order"),
        pytest.param(GROUP.add(element(3), ORDER_TWO), id="mixed-order"),
        pytest.param(NON_CANONICAL, id="non-canonical"),
        pytest.param(OFF_CURVE, id="off-curve"),
        pytest.param(b"", id="empty"),
        pytest.param(element(3) + b"\x00", id="too-long"),
    ],
)
def test_no_element(bad: bytes) -> None:
    assert not GROUP.is_element(bad)
    with pytest.raises(RemoteProtocolError, match="not_a_group_element"):
        require_element(GROUP, bad)
    for scalar in (0, 1, ORDER - 1):
        with pytest.raises(RemoteProtocolError, match="not_a_group_element"):
            GROUP.multiply(scalar, bad)


def test_sums_refuse_what_is_off_the_curve() -> None:
    for bad in (OFF_CURVE, b"", bytes(33)):
        for operation in (GROUP.add, GROUP.subtract):
            with pytest.raises(RemoteProtocolError, match="not_a_group_element"):
                operation(element(1), bad)
            with pytest.raises(RemoteProtocolError, match="not_a_group_element"):
                operation(bad, element(1))


def test_hash_to_group_separates_domains_and_stays() -> None:
    points = {GROUP.hash_to_group(b"a", b"bc"), GROUP.hash_to_group(b"ab", b"c"), GROUP.hash_to_group(b"", b"abc")}
    assert len(points) == 3
    assert all(GROUP.is_element(point) for point in points)
    # Frozen: every gateway and every stored epoch relies on this very function.
    assert GROUP.hash_to_group(b"a", b"bc").hex() == "35b4552728e7c20fc3fac35f33bc17dac9f8cd1ec24faa6880ccca28239e3d56"
    with pytest.raises(LocalProtocolError):
        GROUP.hash_to_group(bytes(256), b"")


def test_scalars_have_one_encoding() -> None:
    for scalar in (0, 1, ORDER - 1):
        assert decode_scalar(GROUP, encode_scalar(GROUP, scalar)) == scalar
    assert encode_scalar(GROUP, 258) == b"\x02\x01" + bytes(30)
    for scalar in (-1, ORDER):
        with pytest.raises(LocalProtocolError):
            encode_scalar(GROUP, scalar)
    with pytest.raises(RemoteProtocolError, match="scalar_not_reduced"):
        decode_scalar(GROUP, ORDER.to_bytes(32, "little"))
    with pytest.raises(RemoteProtocolError, match="scalar_size"):
        decode_scalar(GROUP, bytes(31))
    assert wide_scalar(GROUP, uniform=b"\xff" * 64) == (2**512 - 1) % ORDER
    with pytest.raises(LocalProtocolError):
        wide_scalar(GROUP, uniform=bytes(32))


def test_every_t_of_k_recovers_and_fewer_do_not() -> None:
    rng = random.Random(2)
    secret = rng.randrange(1, ORDER)
    xs = [3, 1, 7, 9, 64]
    dealt = shamir.deal(GROUP, secret, 3, xs, coefficients(rng, 2))
    assert set(dealt.shares) == set(xs)
    assert str(dealt.shares[3]) not in repr(dealt)
    for chosen in ([3, 1, 7], [64, 9, 1], xs):
        factors = shamir.lagrange_at_zero(ORDER, chosen)
        assert sum(factors[x] * dealt.shares[x] for x in chosen) % ORDER == secret
    factors = shamir.lagrange_at_zero(ORDER, [3, 1])
    assert sum(factors[x] * dealt.shares[x] for x in (3, 1)) % ORDER != secret


def test_a_bad_share_or_dealer_is_seen() -> None:
    rng = random.Random(3)
    dealt = shamir.deal(GROUP, 42, 3, range(1, 5), coefficients(rng, 2))
    for x, share in dealt.shares.items():
        assert shamir.verify_share(GROUP, dealt.commitments, x, share)
        assert not shamir.verify_share(GROUP, dealt.commitments, x, share + 1)
        assert not shamir.verify_share(GROUP, dealt.commitments, x + 1, share)
        assert shamir.share_key(GROUP, dealt.commitments, x) == GROUP.multiply_base(share)
    assert dealt.commitments[0] == GROUP.multiply_base(42)
    for bad in (GROUP.identity, ORDER_TWO, GROUP.add(dealt.commitments[1], ORDER_TWO), b"short"):
        assert not shamir.verify_share(GROUP, (dealt.commitments[0], bad, dealt.commitments[2]), 1, dealt.shares[1])
        with pytest.raises(RemoteProtocolError, match="bad_share_commitment"):
            shamir.share_key(GROUP, (bad, *dealt.commitments[1:]), 1)
    with pytest.raises(RemoteProtocolError, match="no_share_commitments"):
        shamir.share_key(GROUP, (), 1)
    assert not shamir.verify_share(GROUP, (), 1, 0)


def test_threshold_one_gives_everybody_the_secret() -> None:
    assert shamir.deal(GROUP, 9, 1, [1, 2], []).shares == {1: 9, 2: 9}


@pytest.mark.parametrize(
    ("secret", "threshold", "xs", "random_coefficients"),
    [
        pytest.param(0, 1, [1], [], id="zero-secret"),
        pytest.param(ORDER, 1, [1], [], id="unreduced-secret"),
        pytest.param(5, 2, [1, 2], [0], id="zero-coefficient"),
        pytest.param(5, 2, [1, 2], [], id="too-few-coefficients"),
        pytest.param(5, 0, [1, 2], [], id="threshold-zero"),
        pytest.param(5, 3, [1, 2], [1, 1], id="threshold-over-holders"),
        pytest.param(5, 1, [0, 1], [], id="holder-zero"),
        pytest.param(5, 1, [1, 1 + ORDER], [], id="equal-holders"),
    ],
)
def test_a_deal_that_is_refused(secret: int, threshold: int, xs: list[int], random_coefficients: list[int]) -> None:
    with pytest.raises(LocalProtocolError):
        shamir.deal(GROUP, secret, threshold, xs, random_coefficients)


def test_interpolation_needs_points() -> None:
    with pytest.raises(LocalProtocolError):
        shamir.lagrange_at_zero(ORDER, [])


def test_threshold_prf_agrees_with_the_owner() -> None:
    rng = random.Random(4)
    key = rng.randrange(1, ORDER)
    dealt = shamir.deal(GROUP, key, 3, range(1, 6), coefficients(rng, 2))
    label = b"epoch|ring|round|attempt"
    value = prf.evaluate(GROUP, key, label)
    parts = {x: prf.partial(GROUP, share, label) for x, share in dealt.shares.items()}
    for chosen in ((1, 2, 3), (5, 3, 1), (1, 2, 3, 4, 5)):
        assert prf.combine(GROUP, {x: parts[x] for x in chosen}) == value
    assert prf.combine(GROUP, {x: parts[x] for x in (1, 2)}) != value
    assert prf.combine(GROUP, {1: parts[2], 2: parts[1], 3: parts[3]}) != value
    assert prf.evaluate(GROUP, key, label + b"'") != value
    with pytest.raises(RemoteProtocolError, match="not_a_group_element"):
        prf.combine(GROUP, {1: parts[1], 2: GROUP.identity})
    with pytest.raises(LocalProtocolError):
        prf.evaluate(GROUP, 0, label)


def test_a_wrong_partial_is_named() -> None:
    rng = random.Random(5)
    share, label = rng.randrange(1, ORDER), b"label"
    key, part = GROUP.multiply_base(share), prf.partial(GROUP, share, label)
    proof = prf.prove_partial(GROUP, share, label)
    assert proof == prf.prove_partial(GROUP, share, label)
    assert len(proof) == prf.PROOF_SIZE
    hedged = prf.prove_partial(GROUP, share, label, nonce=rng.randrange(1, ORDER))
    assert hedged != proof
    assert prf.verify_partial(GROUP, key, label, part, proof)
    assert prf.verify_partial(GROUP, key, label, part, hedged)
    for position in range(0, prf.PROOF_SIZE, 7):
        altered = bytearray(proof)
        altered[position] ^= 1
        assert not prf.verify_partial(GROUP, key, label, part, bytes(altered))
    assert not prf.verify_partial(GROUP, key, b"other", part, proof)
    assert not prf.verify_partial(GROUP, GROUP.multiply_base(share + 1), label, part, proof)
    assert not prf.verify_partial(GROUP, key, label, prf.partial(GROUP, share + 1, label), proof)


def test_malformed_proofs_are_false() -> None:
    key, part, proof = GROUP.multiply_base(7), prf.partial(GROUP, 7, b"l"), prf.prove_partial(GROUP, 7, b"l")
    assert not prf.verify_partial(GROUP, key, b"l", part, proof[:-1])
    assert not prf.verify_partial(GROUP, key, b"l", part, b"\xff" * 32 + proof[32:])
    assert not prf.verify_partial(GROUP, key, b"l", part, proof[:32] + b"\xff" * 32)
    assert not prf.verify_partial(GROUP, GROUP.identity, b"l", part, proof)
    assert not prf.verify_partial(GROUP, key, b"l", OFF_CURVE, proof)
    for nonce in (0, ORDER):
        with pytest.raises(LocalProtocolError):
            prf.prove_partial(GROUP, 7, b"l", nonce=nonce)


def test_two_labels_never_share_a_nonce() -> None:
    """Two proofs with one nonce and two challenges would give the share away."""
    share = 123456789
    nonces = set()
    for label in (b"a", b"b"):
        proof = prf.prove_partial(GROUP, share, label)
        challenge, response = decode_scalar(GROUP, proof[:32]), decode_scalar(GROUP, proof[32:])
        nonces.add((response + challenge * share) % ORDER)
    assert len(nonces) == 2


def test_mask_seed_is_bound_to_element_and_label() -> None:
    seeds = {prf.mask_seed(element(i), label) for i in (1, 2) for label in (b"a", b"b")}
    assert len(seeds) == 4
    assert {len(seed) for seed in seeds} == {prf.SEED_SIZE}
    with pytest.raises(LocalProtocolError):
        prf.mask_seed(b"", b"a")
