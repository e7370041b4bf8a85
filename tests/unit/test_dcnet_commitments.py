"""Commitments, the blinding blinding_vector and verified totals; bills from the same commitments."""

import random

import pytest

from protocol.dcnet.billing.bill import (
    INTERVAL_COUNT_MAX,
    PRICE_MAX,
    Bill,
    make_bill,
    verify_bill,
)
from protocol.dcnet.crypto import commitments as blinding_vectors
from protocol.dcnet.crypto.commitments import Pedersen, blinding_of, total_of_word
from protocol.dcnet.crypto.group import Edwards25519
from protocol.errors import LocalProtocolError, RemoteProtocolError

GROUP = Edwards25519()
ORDER = GROUP.order
PEDERSEN = Pedersen(GROUP)
WORD = 2**64


def blindings(seed: int, count: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(1, ORDER) for _ in range(count)]


def test_second_generator_is_fixed_and_an_element() -> None:
    assert PEDERSEN.blinding_generator != GROUP.multiply_base(1)
    assert GROUP.is_element(PEDERSEN.blinding_generator)
    assert PEDERSEN.blinding_generator.hex() == "46e6a2d69841e0608f73b2541e4fb858f78ee1902483074ae4d2cf493834258f"


def test_commitments_hide_bind_and_add() -> None:
    rho, sigma = blindings(1, 2)
    first, second = PEDERSEN.commit(5, rho), PEDERSEN.commit(-7, sigma)
    assert first != PEDERSEN.commit(5, sigma)
    assert PEDERSEN.opens(first, 5, rho)
    assert not PEDERSEN.opens(first, 6, rho)
    assert not PEDERSEN.opens(first, 5 + WORD, rho)
    assert PEDERSEN.opens(PEDERSEN.total([first, second]), -2, rho + sigma)
    assert PEDERSEN.commit(0, rho) == GROUP.multiply(rho, PEDERSEN.blinding_generator)


@pytest.mark.parametrize(
    ("value", "blinding"), [(0, 0), (0, ORDER), (2**63, 1), (-(2**63) - 1, 1)], ids=["zero", "order", "over", "under"]
)
def test_what_is_not_committed(value: int, blinding: int) -> None:
    with pytest.raises(LocalProtocolError):
        PEDERSEN.commit(value, blinding)


def ring_of_four() -> tuple[list[list[int]], list[list[int]], list[list[bytes]]]:
    """Values, blindings and commitments of four members and two slots; one signed, with a negative total."""
    values = [[1200, -40], [0, 15], [87, -2], [2**40, 3]]
    rhos = [blindings(10 + i, 2) for i in range(4)]
    points = [
        [PEDERSEN.commit(x, rho) for x, rho in zip(row, rho_row, strict=True)]
        for row, rho_row in zip(values, rhos, strict=True)
    ]
    return values, rhos, points


def test_a_ring_total_is_verified_through_both_lanes() -> None:
    values, rhos, points = ring_of_four()
    rng = random.Random(3)
    shares, words = [], []
    pair_masks = {
        (i, j): blinding_vectors.blinding_masks(GROUP, rng.randbytes(128)) for i in range(4) for j in range(i)
    }
    for i in range(4):
        blinding_vector = tuple(rhos[i])
        for (high, low), mask in pair_masks.items():
            if i == low:
                blinding_vector = blinding_vectors.add_blinding_vectors(GROUP, blinding_vector, mask)
            if i == high:
                blinding_vector = blinding_vectors.subtract_blinding_vectors(GROUP, blinding_vector, mask)
        shares.append(
            blinding_vectors.decode_blinding_vector(
                GROUP, blinding_vectors.encode_blinding_vector(GROUP, blinding_vector), 2
            )
        )
        words.append([x % WORD for x in values[i]])
    opened = blinding_vectors.add_blinding_vectors(GROUP, *shares)
    totals = [total_of_word(sum(column) % WORD, signed=True) for column in zip(*words, strict=True)]
    assert totals == [1200 + 87 + 2**40, -24]
    assert PEDERSEN.verify_totals(points, totals, opened)
    assert not PEDERSEN.verify_totals(points, [totals[0], totals[1] + WORD], opened)


def test_a_polluter_is_noticed() -> None:
    """A member that shares one word and commits to another, by as little as 1 or by a multiple of 2^64."""
    values, rhos, points = ring_of_four()
    totals = [sum(column) for column in zip(*values, strict=True)]
    opened = [sum(column) % ORDER for column in zip(*rhos, strict=True)]
    assert PEDERSEN.verify_totals(points, totals, opened)
    for error in (1, -1, 2**63):
        assert not PEDERSEN.verify_totals(points, [totals[0] + error, totals[1]], opened)
    points[2][1] = GROUP.add(points[2][1], GROUP.multiply_base(WORD))
    assert not PEDERSEN.verify_totals(points, totals, opened)
    assert not PEDERSEN.verify_totals(points[:3], totals, opened)


def test_malformed_commitments_are_the_peers_fault() -> None:
    _, _, points = ring_of_four()
    with pytest.raises(RemoteProtocolError, match="commitment_count"):
        PEDERSEN.verify_totals([*points, points[0][:1]], [0, 0], [0, 0])
    small_order = (2**255 - 20).to_bytes(32, "little")
    for bad in (GROUP.identity, small_order, GROUP.add(points[0][0], small_order), b""):
        with pytest.raises(RemoteProtocolError, match="not_a_group_element"):
            PEDERSEN.total([points[0][0], bad])
    with pytest.raises(LocalProtocolError):
        PEDERSEN.verify_totals(points, [0, 0], [0])


def test_words_mean_integers_within_the_limit() -> None:
    for total in (2**63 - 1, -(2**63), 0, -1):
        assert total_of_word(total % WORD, signed=True) == total
    assert total_of_word(WORD - 1, signed=True) == -1
    assert total_of_word(WORD - 1, signed=False) == WORD - 1
    assert total_of_word(2**63, signed=True) == -(2**63)
    for word in (-1, WORD):
        with pytest.raises(LocalProtocolError):
            total_of_word(word, signed=False)


def test_lanes_are_strict() -> None:
    masks = blinding_vectors.blinding_masks(GROUP, bytes(range(128)))
    assert masks == tuple(int.from_bytes(bytes(range(start, start + 64)), "little") % ORDER for start in (0, 64))
    with pytest.raises(LocalProtocolError):
        blinding_vectors.blinding_masks(GROUP, bytes(32))
    assert blinding_vectors.add_blinding_vectors(GROUP, (ORDER - 1, 2), (1, 3), (5, 0)) == (5, 5)
    assert blinding_vectors.subtract_blinding_vectors(GROUP, (0, 9), (1, 3), (1, 3)) == (ORDER - 2, 3)
    with pytest.raises(ValueError, match="shorter"):
        blinding_vectors.add_blinding_vectors(GROUP, (1, 2), (1,))
    with pytest.raises(RemoteProtocolError, match="lane_size"):
        blinding_vectors.decode_blinding_vector(GROUP, bytes(32), 2)
    with pytest.raises(RemoteProtocolError, match="scalar_not_reduced"):
        blinding_vectors.decode_blinding_vector(GROUP, bytes(32) + b"\xff" * 32, 2)


def test_lane_masks_are_not_biased() -> None:
    """The upper half of the range is hit half of the time; 256-bit reduction would hit 0..order/16 too often."""
    keystream = random.Random(8).randbytes(64 * 4000)
    masks = blinding_vectors.blinding_masks(GROUP, keystream)
    sixteenths = [0] * 16
    for mask in masks:
        sixteenths[mask * 16 // ORDER] += 1
    assert sum((hits - 250) ** 2 / 250 for hits in sixteenths) < 37.7  # chi-square, 15 degrees, 0.1 %


def test_a_blinding_of_any_uniform_bytes_can_be_committed_with() -> None:
    for uniform in (bytes(64), b"\xff" * 64, (ORDER - 1).to_bytes(64, "little"), ORDER.to_bytes(64, "little")):
        assert 0 < blinding_of(GROUP, uniform=uniform) < ORDER
        PEDERSEN.commit(1, blinding_of(GROUP, uniform=uniform))
    with pytest.raises(LocalProtocolError):
        blinding_of(GROUP, uniform=bytes(32))


READINGS = [120, 0, 340, -15, 2**40, 77]
PRICES = [3012, 3012, -450, 0, 3012, 27]


def committed() -> tuple[list[int], list[bytes]]:
    rhos = blindings(20, len(READINGS))
    return rhos, [PEDERSEN.commit(x, rho) for x, rho in zip(READINGS, rhos, strict=True)]


def test_a_bill_is_verified_without_a_reading() -> None:
    rhos, points = committed()
    bill = make_bill(PEDERSEN, PRICES, READINGS, rhos)
    assert bill.amount == sum(p * x for p, x in zip(PRICES, READINGS, strict=True))
    assert verify_bill(PEDERSEN, PRICES, points, bill, reading_max=2**41)


def test_a_credit_is_a_negative_bill() -> None:
    rhos, points = committed()
    prices = [-5, -5, -5, 0, 0, 1]
    bill = make_bill(PEDERSEN, prices, READINGS, rhos)
    assert bill.amount == -5 * 460 + 77
    assert verify_bill(PEDERSEN, prices, points, bill, reading_max=400)


def test_a_wrong_bill_is_refused() -> None:
    rhos, points = committed()
    bill = make_bill(PEDERSEN, PRICES, READINGS, rhos)
    wrong = [
        Bill(bill.amount - 1, bill.blinding),
        Bill(bill.amount + ORDER, bill.blinding),
        Bill(bill.amount, (bill.blinding + 1) % ORDER),
        Bill(bill.amount, bill.blinding + ORDER),
        Bill(bill.amount, -1),
    ]
    assert not any(verify_bill(PEDERSEN, PRICES, points, each, reading_max=2**41) for each in wrong)
    assert not verify_bill(PEDERSEN, PRICES, points, bill, reading_max=2**20)
    assert not verify_bill(PEDERSEN, PRICES[::-1], points, bill, reading_max=2**41)
    assert not verify_bill(PEDERSEN, PRICES, points[::-1], bill, reading_max=2**41)


def test_nothing_wraps_at_the_extremes() -> None:
    assert INTERVAL_COUNT_MAX * PRICE_MAX * 2**63 < ORDER // 2**100
    rhos = blindings(21, 2)
    readings = [-(2**63), -(2**63)]
    points = [PEDERSEN.commit(x, rho) for x, rho in zip(readings, rhos, strict=True)]
    prices = [PRICE_MAX, -PRICE_MAX + 1]
    bill = make_bill(PEDERSEN, prices, readings, rhos)
    assert bill.amount == -(2**63)
    assert verify_bill(PEDERSEN, prices, points, bill, reading_max=2**63)


def test_billing_arguments() -> None:
    rhos, points = committed()
    bill = make_bill(PEDERSEN, PRICES, READINGS, rhos)
    with pytest.raises(LocalProtocolError):
        make_bill(PEDERSEN, PRICES[1:], READINGS, rhos)
    with pytest.raises(LocalProtocolError):
        make_bill(PEDERSEN, PRICES, [2**63, *READINGS[1:]], rhos)
    for prices, reading_max in ((PRICES[1:], 1), ([PRICE_MAX + 1, *PRICES[1:]], 1), (PRICES, 2**63 + 1)):
        with pytest.raises(LocalProtocolError):
            verify_bill(PEDERSEN, prices, points, bill, reading_max=reading_max)
    with pytest.raises(RemoteProtocolError, match="not_a_group_element"):
        verify_bill(PEDERSEN, PRICES, [b"\x02" + bytes(31), *points[1:]], bill, reading_max=2**41)
    of_order_4 = bytes(32)
    assert not verify_bill(PEDERSEN, PRICES, [of_order_4, *points[1:]], bill, reading_max=2**41)
    shifted = GROUP.add(points[5], of_order_4)
    assert not verify_bill(PEDERSEN, PRICES, [*points[:5], shifted], bill, reading_max=2**41)


@pytest.mark.parametrize("price_max", [0, 1, 2, 255, 256, PRICE_MAX])
def test_many_prices_are_weighed_exactly(price_max: int) -> None:
    draw = random.Random(price_max)
    count = 60
    prices = [draw.randint(-price_max, price_max) for _ in range(count)]
    readings, rhos = [draw.randrange(-(2**63), 2**63) for _ in range(count)], blindings(price_max, count)
    points = [PEDERSEN.commit(x, rho) for x, rho in zip(readings, rhos, strict=True)]
    bill = make_bill(PEDERSEN, prices, readings, rhos)
    assert verify_bill(PEDERSEN, prices, points, bill, reading_max=2**63)
    for index in range(count):
        other = [*prices[:index], prices[index] + (-1 if prices[index] > 0 else 1), *prices[index + 1 :]]
        assert not verify_bill(PEDERSEN, other, points, bill, reading_max=2**63)
