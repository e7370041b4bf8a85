"""Range proofs: every value in the range proves, none beyond it can, and a proof serves one statement."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.group import Edwards25519
from protocol.dcnet.crypto.range_proof import BITS_MAX, check_range, proof_size, prove_range
from protocol.errors import LocalProtocolError, RemoteProtocolError

PEDERSEN = Pedersen(Edwards25519())
ORDER = PEDERSEN.group.order
CONTEXT = b"epoch digest, ring, round, position, slot"


def made(value: int, bits: int, seed: int = 1) -> tuple[bytes, bytes]:
    rng = random.Random(seed)
    blinding = rng.randrange(1, ORDER)
    return PEDERSEN.commit(value, blinding), prove_range(PEDERSEN, value, blinding, bits, CONTEXT, rng.randbytes)


def refuses(reason: str, commitment: bytes, bits: int, context: bytes, proof: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        check_range(PEDERSEN, commitment, bits, context, proof)
    assert caught.value.reason == reason


@pytest.mark.parametrize("bits", [1, 2, 16, 22, BITS_MAX])
def test_the_borders_of_the_range_prove(bits: int) -> None:
    committable = (1 << 63) - 1
    for value in {0, 1, min((1 << bits) - 1, committable), min(1 << bits - 1, committable)}:
        commitment, proof = made(value, bits)
        check_range(PEDERSEN, commitment, bits, CONTEXT, proof)
        assert len(proof) == proof_size(bits)


def test_a_proof_of_16_bits_has_2048_bytes() -> None:
    assert proof_size(16) == 2048


@given(st.integers(0, 255), st.integers(0, 2**32))
@settings(max_examples=20)
def test_every_value_of_the_range_proves(value: int, seed: int) -> None:
    commitment, proof = made(value, 8, seed)
    check_range(PEDERSEN, commitment, 8, CONTEXT, proof)


@pytest.mark.parametrize(("value", "bits"), [(-1, 8), (256, 8), (0, 0), (0, BITS_MAX + 1)])
def test_a_value_out_of_the_range_is_not_proved(value: int, bits: int) -> None:
    with pytest.raises(LocalProtocolError):
        prove_range(PEDERSEN, value, 1, bits, CONTEXT, random.Random(1).randbytes)


@pytest.mark.parametrize("bits", [0, BITS_MAX + 1])
def test_a_verifier_asks_for_1_to_64_bits(bits: int) -> None:
    with pytest.raises(LocalProtocolError):
        check_range(PEDERSEN, bytes(32), bits, CONTEXT, b"")


def test_a_proof_serves_no_other_statement() -> None:
    commitment, proof = made(77, 8)
    refuses("bad_range_proof", commitment, 8, CONTEXT + b"!", proof)
    refuses("bad_range_proof", PEDERSEN.commit(77, 5), 8, CONTEXT, proof)
    refuses("bad_range_proof", commitment, 9, CONTEXT, proof)
    for shift in (256, -256, 1 << 64, ORDER // 2):  # what a member would gain by: the same low bits
        moved = PEDERSEN.group.add(commitment, PEDERSEN.group.multiply_base(shift))
        refuses("bad_range_proof", moved, 8, CONTEXT, proof)


def test_every_changed_byte_of_a_proof_is_refused() -> None:
    commitment, proof = made(5, 3)
    for index in range(len(proof)):
        changed = proof[:index] + bytes([proof[index] ^ 1]) + proof[index + 1 :]
        with pytest.raises(RemoteProtocolError):
            check_range(PEDERSEN, commitment, 3, CONTEXT, changed)
    refuses("bad_range_proof", commitment, 3, CONTEXT, proof[:-1])
    refuses("bad_range_proof", commitment, 3, CONTEXT, proof + b"\0")


def test_a_commitment_that_is_no_element_is_refused() -> None:
    _, proof = made(5, 3)
    refuses("not_a_group_element", bytes(32), 3, CONTEXT, proof)


def test_a_bit_of_two_cannot_be_proved() -> None:
    """A liar that puts 2 into the top bit's place, with the honest prover's code: the proof does not hold."""
    rng = random.Random(4)
    blinding, value, bits = rng.randrange(1, ORDER), 1 << 8, 8
    proof = prove_range(PEDERSEN, 0, blinding, bits, CONTEXT, rng.randbytes)
    refuses("bad_range_proof", PEDERSEN.commit(value, blinding), bits, CONTEXT, proof)


def test_the_same_entropy_gives_the_same_proof() -> None:
    assert made(9, 4, seed=3) == made(9, 4, seed=3)
    assert made(9, 4, seed=3)[1] != made(9, 4, seed=4)[1]
