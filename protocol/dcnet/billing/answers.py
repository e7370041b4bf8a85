"""
The two kinds of answers to a bill request, and what the EMP checks of each.

- *Stages*, for at most `STAGE_COUNT_MAX` prices: the sum S_g of every stage, the intervals of one price, opened with
  its blinding.  The amount Σ p_g·S_g is exact, and tiers (TAF 4) follow from ΣS_g.
- An *amount*, for more prices: A = floor(B/Q) of B = Σ p·x and the sum Σx of all, opened; B itself is never told, since
  its digits separate prices of different magnitude.  Q = 2^k' is a cent or more and `QUANTUM_WH` at the whole spread of
  the prices or more, so that what a tenth of a kilowatt hour in any interval changes is not seen.  A range proof shows
  that Σ p·C - A·Q·G commits to a value of [0, Q), so A is the one.

Either way the EMP learns Σx and holds it against the registers at the ends of the span: the difference is the change of
what is carried, and commitments of 0 beside true shares show.

A public sheet with a real spike, an hour at three times the price, singles that hour out.  It is billed with the mean
price over a block of intervals around the spike, and the answer says which blocks: see `smoothed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from protocol import wire
from protocol.dcnet.billing.bill import Bill, Judged, make_bill, priced_commitments, verify_bill
from protocol.dcnet.billing.spikes import average
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.range_proof import Entropy, check_range, prove_range
from protocol.dcnet.crypto.suite import digest
from protocol.errors import LocalProtocolError, RemoteProtocolError

QUANTUM_WH = 100
QUANTUM_BITS_MAX = 52
_CENT_SCALERS = {"ct": 0, "EUR": -2, "CHF": -2, "GBP": -2, "USD": -2}


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of `length` intervals of the request whose prices are averaged, by their first index, in this order."""

    length: int = 0
    starts: tuple[int, ...] = ()

    def apply(self, prices: Sequence[int]) -> tuple[int, ...]:
        """
        The prices with the rounded mean (half up) in each block.

        Raises RemoteProtocolError `bad_blocks` for a block that is not within the prices.
        """
        changed = list(prices)
        for start in self.starts:
            if not 0 < self.length <= len(changed) - start:
                raise RemoteProtocolError("bad_blocks", "a block of averaged prices that is not in the request")
            changed = average(changed, start, self.length)
        return tuple(changed)


@dataclass(frozen=True, slots=True)
class BillAnswer:
    """
    What a gateway tells: `sums` with their `blindings`, and with a `proof` the `quotient` A.

    The sums are those of the stages by rising price; of an amount the one sum of all.
    """

    sums: tuple[int, ...] = field(repr=False)
    blindings: tuple[int, ...] = field(repr=False)
    quotient: int = field(default=0, repr=False)
    proof: bytes = b""
    blocks: Blocks = Blocks()

    @property
    def energy(self) -> int:
        """Σx over the request's intervals, at the register's scaler."""
        return sum(self.sums)

    def to_wire(self, request: bytes) -> wire.Bill:
        """The message that answers the request of this digest."""
        return wire.Bill(
            request, tuple(map(_signed, self.sums)), tuple(each.to_bytes(32, "little") for each in self.blindings),
            _signed(self.quotient), self.proof, self.blocks.length, self.blocks.starts,
        )  # fmt: skip

    @classmethod
    def from_wire(cls, message: wire.Bill) -> BillAnswer:
        """The answer in a message, as it is; see `check_answer`."""
        return cls(
            tuple(int.from_bytes(each, "little", signed=True) for each in message.sums),
            tuple(int.from_bytes(each, "little") for each in message.blindings),
            int.from_bytes(message.quotient, "little", signed=True), message.proof,
            Blocks(message.block_length, message.block_starts),
        )  # fmt: skip


def _signed(number: int) -> bytes:
    return number.to_bytes(16, "little", signed=True)


def quantum_bits(prices: Sequence[int], unit: str, currency: str, price_scaler: int, register_scaler: int) -> int:
    """
    Give k' of an amount: Q = 2^k' units of 10^(price_scaler + register_scaler) currency.

    A cent is a hundredth of EUR, CHF, GBP and USD, else one of the currency.  Raises RemoteProtocolError
    `tariff_register` for a unit that is not Wh or scalers whose Q would have over `QUANTUM_BITS_MAX` bits.
    """
    scaler = price_scaler + register_scaler
    cent = _at(1, _CENT_SCALERS.get(currency, 0) - scaler)
    spread = (max(prices) - min(prices)) * _at(QUANTUM_WH, -register_scaler)
    bits = max(1, (max(cent, spread) - 1).bit_length())
    if unit != "Wh" or bits > QUANTUM_BITS_MAX:
        raise RemoteProtocolError("tariff_register", "amounts over more than 20 prices are those of a register in Wh")
    return bits


def answer_stages(
    pedersen: Pedersen, prices: Sequence[int], values: Sequence[int], blindings: Sequence[int]
) -> BillAnswer:
    """The sum of each stage.  Raises LocalProtocolError as `make_bill`."""
    stages = [
        make_bill(pedersen, [int(price == stage) for price in prices], values, blindings)
        for stage in sorted(set(prices))
    ]
    return BillAnswer(tuple(each.amount for each in stages), tuple(each.blinding for each in stages))


def answer_amount(
    pedersen: Pedersen, judged: Judged, values: Sequence[int], blindings: Sequence[int], *,
    bits: int, request: bytes, entropy: Entropy,
) -> BillAnswer:  # fmt: skip
    """A = floor(B/2^bits), the sum of all, and the proof for the request of this digest."""
    total = make_bill(pedersen, [1] * len(values), values, blindings)
    exact = make_bill(pedersen, judged.prices, values, blindings)
    quotient, rest = divmod(exact.amount, 1 << bits)
    commitment = pedersen.commit(rest, exact.blinding)
    proof = prove_range(pedersen, rest, exact.blinding, bits, _text(request, quotient, commitment), entropy)
    blocks = Blocks(judged.block_length, judged.block_starts)
    return BillAnswer((total.amount,), (total.blinding,), quotient, proof, blocks)


def check_answer(
    pedersen: Pedersen, prices: Sequence[int], commitments: Sequence[bytes], answer: BillAnswer, *,
    bits: int, request: bytes, reading_max: int,
) -> int:  # fmt: skip
    """
    The amount that the answer proves, exact for stages, else rounded down to a multiple of 2^bits.

    `prices` are the EMP's own, one for each commitment; `reading_max` bounds a reading's absolute value.  Raises
    RemoteProtocolError: `bad_bill` where a sum or the amount is not that of the commitments, `bad_range_proof`,
    `bad_blocks`.
    """
    if len(answer.sums) != len(answer.blindings):
        raise RemoteProtocolError("bad_bill", "expected a blinding for each sum")
    if not answer.proof:
        stages = sorted(set(prices))
        if len(answer.sums) != len(stages) or answer.blocks.starts:
            raise RemoteProtocolError("bad_bill", f"expected the sums of {len(stages)} stages")
        for stage, amount, blinding in zip(stages, answer.sums, answer.blindings, strict=True):
            mine = [each for price, each in zip(prices, commitments, strict=True) if price == stage]
            _check_sum(pedersen, mine, amount, blinding, reading_max)
        return sum(stage * amount for stage, amount in zip(stages, answer.sums, strict=True))
    if len(answer.sums) != 1:
        raise RemoteProtocolError("bad_bill", "expected one sum beside an amount")
    _check_sum(pedersen, commitments, answer.sums[0], answer.blindings[0], reading_max)
    priced = answer.blocks.apply(prices)
    amount = answer.quotient << bits
    if abs(amount) > reading_max * sum(map(abs, priced)) + (1 << bits):
        raise RemoteProtocolError("bad_bill", "an amount that no readings have")
    group = pedersen.group
    rest = group.subtract(priced_commitments(pedersen, priced, commitments), group.multiply_base(amount % group.order))
    check_range(pedersen, rest, bits, _text(request, answer.quotient, rest), answer.proof)
    return amount


def _check_sum(
    pedersen: Pedersen, commitments: Sequence[bytes], amount: int, blinding: int, reading_max: int
) -> None:  # fmt: skip
    if not verify_bill(pedersen, [1] * len(commitments), commitments, Bill(amount, blinding), reading_max=reading_max):
        raise RemoteProtocolError("bad_bill", "a sum is not the one that the gateway committed to")


def _text(request: bytes, quotient: int, commitment: bytes) -> bytes:
    return digest("bill-amount", request, quotient.to_bytes(24, "little", signed=True), commitment)


def _at(value: int, scaler: int) -> int:
    """value·10^scaler, rounded up."""
    if scaler >= 0:
        return int(value * 10**scaler)
    return -(-value // int(10**-scaler))


def tier_amount(tiers: Sequence[tuple[int | None, int]], energy: int, scaler: int) -> int:
    """
    What tiers of (limit in units, price), the last without a limit, cost for `energy`·10^scaler units (TAF 4).

    In units of 10^scaler times the prices' unit.  Raises LocalProtocolError for a scaler over 0.
    """
    if scaler > 0:
        raise LocalProtocolError("tiers are of registers that count units or parts of units")
    total, below = 0, 0
    for limit, price in tiers:
        top = energy if limit is None else min(energy, _at(limit, -scaler))
        total += price * max(0, top - below)
        below = max(below, top)
    return total
