"""Answers to bill requests: what an honest gateway says holds, and nothing else does."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from protocol import wire
from protocol.dcnet.billing.answers import (
    BillAnswer,
    Blocks,
    answer_amount,
    answer_stages,
    check_answer,
    quantum_bits,
    tier_amount,
)
from protocol.dcnet.billing.bill import Judged
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.group import Edwards25519
from protocol.errors import LocalProtocolError, RemoteProtocolError

PEDERSEN = Pedersen(Edwards25519())
ORDER = PEDERSEN.group.order
REQUEST = b"r" * 32
BITS = 22
VALUES = [11, 0, 250, 31, 7, 1999]
BLINDINGS = [5, 6, 7, 8, 9, 10]
COMMITMENTS = [PEDERSEN.commit(value, blinding) for value, blinding in zip(VALUES, BLINDINGS, strict=True)]
STAGES = [3000, -12, 3000, 0, -12, 3000]
PRICES = [3000, 2985, -12, 40_000, 3111, 2999]


EXACT = Blocks()


def checked(prices: list[int], answer: BillAnswer, **changes: object) -> int:
    how: dict[str, object] = {"bits": BITS, "request": REQUEST, "reading_max": 10**6} | changes
    return check_answer(PEDERSEN, prices, COMMITMENTS, answer, **how)  # type: ignore[arg-type]


def refuses(reason: str, prices: list[int], answer: BillAnswer, **changes: object) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        checked(prices, answer, **changes)
    assert caught.value.reason == reason


def rounded(prices: list[int] = PRICES, blocks: Blocks = EXACT, seed: int = 1) -> BillAnswer:
    judged = Judged(blocks.apply(prices), by_stages=False, block_length=blocks.length, block_starts=blocks.starts)
    return answer_amount(
        PEDERSEN, judged, VALUES, BLINDINGS, bits=BITS, request=REQUEST, entropy=random.Random(seed).randbytes
    )


def test_stages_are_exact_and_add_up_to_the_energy() -> None:
    answer = answer_stages(PEDERSEN, STAGES, VALUES, BLINDINGS)
    assert answer.sums == (0 + 7, 31, 11 + 250 + 1999)  # by rising price
    assert answer.energy == sum(VALUES)
    assert checked(STAGES, answer) == sum(price * value for price, value in zip(STAGES, VALUES, strict=True))


def test_an_amount_is_rounded_down_and_its_rest_is_not_told() -> None:
    answer = rounded()
    exact = sum(price * value for price, value in zip(PRICES, VALUES, strict=True))
    assert answer.quotient == exact >> BITS
    assert answer.sums == (sum(VALUES),)
    assert checked(PRICES, answer) == exact >> BITS << BITS


def test_a_credit_is_rounded_towards_the_supplier() -> None:
    prices = [-each for each in PRICES]
    answer = rounded(prices)
    exact = sum(price * value for price, value in zip(prices, VALUES, strict=True))
    assert answer.quotient < 0
    assert checked(prices, answer) == exact >> BITS << BITS <= exact


@settings(max_examples=10)
@given(st.lists(st.integers(-(2**32), 2**32), min_size=6, max_size=6), st.integers(1, 2**30))
def test_every_honest_answer_holds(prices: list[int], seed: int) -> None:
    assume(any(prices))
    exact = sum(price * value for price, value in zip(prices, VALUES, strict=True))
    assert checked(prices, answer_stages(PEDERSEN, prices, VALUES, BLINDINGS)) == exact
    assert checked(prices, rounded(prices, seed=seed)) == exact >> BITS << BITS


def test_every_other_answer_by_stages_is_refused() -> None:
    good = answer_stages(PEDERSEN, STAGES, VALUES, BLINDINGS)
    for sums in ((8, 31, 2260), (7, 31, 2259), (31, 7, 2260), (7, 31, 2260 + ORDER)):
        refuses("bad_bill", STAGES, replace(good, sums=sums))
    refuses("bad_bill", STAGES, replace(good, blindings=good.blindings[::-1]))
    refuses("bad_bill", STAGES, replace(good, blindings=good.blindings[1:]))
    refuses("bad_bill", STAGES, replace(good, sums=good.sums[1:], blindings=good.blindings[1:]))
    refuses("bad_bill", STAGES, replace(good, blocks=Blocks(2, (0,))))
    refuses("bad_bill", STAGES, good, reading_max=5)


def test_every_other_answer_by_an_amount_is_refused() -> None:
    good = rounded()
    for quotient in (good.quotient + 1, good.quotient - 1, -good.quotient):
        refuses("bad_range_proof", PRICES, replace(good, quotient=quotient))
    refuses("bad_bill", PRICES, replace(good, quotient=good.quotient + 2**100))
    refuses("bad_bill", PRICES, replace(good, sums=(sum(VALUES) + 1,)))
    refuses("bad_bill", PRICES, replace(good, sums=good.sums * 2, blindings=good.blindings * 2))
    refuses("bad_range_proof", PRICES, replace(good, proof=good.proof[:-1] + b"\x00"))
    refuses("bad_range_proof", PRICES, good, request=b"s" * 32)  # another request's
    refuses("bad_range_proof", PRICES, good, bits=BITS + 1)
    refuses("bad_range_proof", [3001, *PRICES[1:]], good)


def test_averaged_blocks_are_those_that_the_answer_names() -> None:
    blocks = Blocks(3, (0, 3))
    answer = rounded(blocks=blocks)
    assert blocks.apply(PRICES) == (1991, 1991, 1991, 15_370, 15_370, 15_370)
    exact = 1991 * sum(VALUES[:3]) + 15_370 * sum(VALUES[3:])
    assert checked(PRICES, answer) == exact >> BITS << BITS
    refuses("bad_range_proof", PRICES, replace(answer, blocks=Blocks()))
    for bad in (Blocks(3, (4,)), Blocks(0, (1,)), Blocks(96, (0,))):
        refuses("bad_blocks", PRICES, replace(answer, blocks=bad))


def test_an_answer_goes_over_the_wire_and_back() -> None:
    largest = BillAnswer((-(2**83), 2**83), (1, ORDER - 1), -(2**114), b"proof", Blocks(96, (0, 35_000)))
    for answer in (largest, rounded(), answer_stages(PEDERSEN, STAGES, VALUES, BLINDINGS)):
        message = wire.decode(wire.encode(answer.to_wire(REQUEST)), frozenset({wire.Bill}))
        assert isinstance(message, wire.Bill)
        assert message.request == REQUEST
        assert BillAnswer.from_wire(message) == answer


@pytest.mark.parametrize(
    ("currency", "price_scaler", "spread", "least"),
    [
        ("ct", -5, 0, 10**6), ("EUR", -7, 0, 10**6), ("EUR", -5, 0, 10**4), ("ct", -5, 3000, 3_000_000),
        ("ct", 0, 0, 10), ("ct", 2, 0, 1),
    ],
)  # fmt: skip
def test_a_step_is_a_cent_or_a_tenth_of_a_kilowatt_hour_at_the_spread(
    currency: str, price_scaler: int, spread: int, least: int
) -> None:
    """At a register in tenths of a watt hour; the next power of two."""
    quantum = 1 << quantum_bits([5, 5 + spread], "Wh", currency, price_scaler, -1)
    assert least <= quantum < max(3, 2 * least)


def test_tiers_cost_what_each_holds() -> None:
    tiers = [(100, 50), (300, 30), (None, 20)]
    assert tier_amount(tiers, 0, -1) == 0
    assert tier_amount(tiers, 1000, -1) == 1000 * 50
    assert tier_amount(tiers, 2500, -1) == 1000 * 50 + 1500 * 30
    assert tier_amount(tiers, 9000, -1) == 1000 * 50 + 2000 * 30 + 6000 * 20
    assert tier_amount([(None, 7)], 9, 0) == 63
    with pytest.raises(LocalProtocolError):
        tier_amount(tiers, 1, 1)
