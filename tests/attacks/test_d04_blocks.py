"""D4, the other way round: a customer that averages its dear hours with cheap ones, in the name of a spike."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.emp.billing import Billing
from coordinator.storage.bills import BillStatus
from coordinator.storage.epochs import EpochRecord, RingLayout
from coordinator.storage.store import Store
from protocol import wire
from protocol.dcnet.billing.answers import Blocks, answer_amount, quantum_bits
from protocol.dcnet.billing.bill import Judged, Request, check_request, span_rule
from protocol.dcnet.billing.spikes import check_blocks
from protocol.dcnet.billing.tariff import Tariff, read_tariff
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.group import Edwards25519
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.schema import VERIFIED_SCHEMA
from protocol.errors import RemoteProtocolError

PEDERSEN = Pedersen(Edwards25519())
START_S = 1_772_319_600  # 2026-03-01 00:00 in Berlin
IMPORT, EXPORT = (str(VERIFIED_SCHEMA.slots[index].obis) for index in VERIFIED_SCHEMA.committed)
NAME = "ESTK0000000001"
COUNT = 4 * 96
VALUES = [20 + 400 * (68 <= index % 96 < 92) for index in range(COUNT)]  # most of it in the evening, when it is dear
PRICES = tuple(2000 + 40 * (index % 96 // 4) + 30_000 * (68 <= index % 96 < 92) for index in range(COUNT))


def dynamic_month(spikes: int = 0) -> list[int]:
    draw = random.Random(7)
    prices = [2500 + round(600 * draw.random()) + 10 * (index % 96 // 4) for index in range(96 * 28)]
    for number in range(spikes):
        at = 96 * (4 + 7 * number) + 72
        prices[at : at + 4] = [15_000] * 4
    return prices


def starts_of(prices: list[int]) -> list[int]:
    return [START_S + 900 * index for index in range(len(prices))]


@pytest.fixture
def billing(tmp_path: Path) -> Iterator[Billing]:
    """One gateway alone in its ring, four days of verified rounds."""
    store = Store(f"sqlite:///{tmp_path / 'coordinator.sqlite'}")
    store.epochs.add(EpochRecord(1, "north", VERIFIED_SCHEMA, COUNT, START_S, 900), [RingLayout(1, 0, (NAME,))])
    ended = [
        Ended(1, 0, round_, wire.Outcome.OPENED, 0, 0, 1, 1, (1, 0, 0, 0), True, "", 0.0, 1.0)
        for round_ in range(COUNT)
    ]  # fmt: skip
    zero = PEDERSEN.commit(0, 1)
    kept = {(1, 0, round_): PEDERSEN.commit(VALUES[round_], 7) + zero for round_ in range(COUNT)}
    assert all(store.rounds.record_many(ended, kept))
    try:
        yield Billing(store, PEDERSEN)
    finally:
        store.close()


def answered(billing: Billing, blocks: Blocks) -> tuple[BillStatus | None, int]:
    """What a gateway that averages these blocks is charged for."""
    tariff = Tariff("Dynamic", IMPORT, "Wh", "ct", -5, START_S, 900, PRICES)
    digest = billing.publish(tariff, bytes(70), b"certificate", 5).digest
    billing.ask("north", START_S, START_S + 900 * COUNT, digest, 7)
    ((name, request),) = billing.bills.outstanding()
    message = billing.message(name, request, [])
    assert message is not None
    sheet = read_tariff(message.tariff)
    scaler = VERIFIED_SCHEMA.slots[VERIFIED_SCHEMA.committed[0]].scaler
    judged = Judged(blocks.apply(sheet.prices), by_stages=False, block_length=blocks.length, block_starts=blocks.starts)
    made = answer_amount(
        PEDERSEN, judged, VALUES, [7] * COUNT,
        bits=quantum_bits(sheet.prices, "Wh", "ct", -5, scaler), request=request, entropy=random.Random(1).randbytes,
    )  # fmt: skip
    return billing.judge(name, made.to_wire(request), 9), made.quotient


@pytest.mark.parametrize(
    "blocks", [Blocks(96, (0,)), Blocks(32, (64,)), Blocks(64, (30,)), Blocks(32, (48, 64))], ids=str
)
def test_dear_hours_that_a_customer_averages_with_cheap_ones_are_refused(billing: Billing, blocks: Blocks) -> None:
    status, _ = answered(billing, blocks)
    assert status is BillStatus.REFUSED
    (bill,) = billing.bills.page(limit=9)
    assert bill.reason == "prices are averaged where the tariff does not single an interval out"


def test_the_sheets_own_prices_are_accepted(billing: Billing) -> None:
    status, quotient = answered(billing, Blocks())
    assert status is BillStatus.VERIFIED
    assert quotient > 0


@pytest.mark.parametrize("spikes", [1, 2, 3])
def test_what_an_honest_gateway_averages_holds_and_nothing_else(spikes: int) -> None:
    prices = dynamic_month(spikes)
    starts = starts_of(prices)
    judged = check_request(Request(IMPORT, 900, starts, prices), set(starts), set())
    rule = span_rule(IMPORT, starts)
    assert len(judged.block_starts) >= 1
    check_blocks(prices, judged.block_length, judged.block_starts, rule)
    check_blocks(prices, 0, (), rule)
    first, *rest = judged.block_starts
    for length, blocks in [
        (judged.block_length, (first + 5, *rest)),
        (judged.block_length, (*judged.block_starts, 96)),
        (judged.block_length, (96, *judged.block_starts)),
        (96 if judged.block_length == 32 else 32, judged.block_starts),
        *([(judged.block_length, judged.block_starts[:-1])] if rest else []),
    ]:
        with pytest.raises(RemoteProtocolError) as caught:
            check_blocks(prices, length, blocks, rule)
        assert caught.value.reason == "bad_blocks"


def test_a_sheet_that_hides_every_interval_allows_no_block() -> None:
    prices = dynamic_month()
    with pytest.raises(RemoteProtocolError, match="bad_blocks"):
        check_blocks(prices, 32, (100,), span_rule(IMPORT, starts_of(prices)))


def test_a_register_that_is_not_billed_is_judged_by_nothing() -> None:
    with pytest.raises(RemoteProtocolError, match="register_not_billed"):
        span_rule("1-0:3.8.0*255", [0])
