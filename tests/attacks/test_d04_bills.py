"""
D4, D4b: bills whose amounts are readings, asked by an EMP that publishes and signs whatever it wants.

Each attack first computes the reading that it is after from the amount of an answered bill, so that the refusal of the
gateway, and no mistake of the attacker, is what stands in its way.
"""

import random
from collections.abc import Sequence

import pytest

from protocol.dcnet.billing.answers import BillAnswer, answer_amount, quantum_bits
from protocol.dcnet.billing.bill import Judged, Request, check_request, make_bill
from protocol.dcnet.billing.tariff import Tariff
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.group import Edwards25519
from protocol.errors import RemoteProtocolError

PEDERSEN = Pedersen(Edwards25519())
START_S = 1_772_319_600  # 2026-03-01 00:00 in Berlin
IMPORT, EXPORT = "1-0:1.8.0*255", "1-0:2.8.0*255"
LARGE = 10**6


def home(days: int) -> tuple[list[int], list[int]]:
    """The starts of the quarter hours and what the register moved by in them."""
    draw = random.Random(days)
    return [START_S + 900 * index for index in range(96 * days)], [draw.randint(10, 900) for _ in range(96 * days)]


def amount(prices: Sequence[int], values: Sequence[int]) -> int:
    return make_bill(PEDERSEN, prices, values, [1] * len(values)).amount


def refusal(request: Request, waiting: Sequence[int], span_days_min: int = 27) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        check_request(request, set(waiting), set(), span_min_s=span_days_min * 86_400)
    return caught.value.reason


@pytest.mark.parametrize("days", [7, 28, 90])
@pytest.mark.parametrize("obis", [IMPORT, EXPORT])
@pytest.mark.parametrize("targets", [(40,), (40, 70), (0, 1), (95, 300), (12, 13, 76)])
def test_digits_of_an_amount_are_not_told(days: int, obis: str, targets: tuple[int, ...]) -> None:
    """D4 (d4_bill.py): a large price and a few small ones, so that the amount's last digits are readings."""
    starts, values = home(days)
    prices = [2000 * LARGE] * len(starts)
    for place, target in enumerate(targets):
        prices[target] = 1000**place
    rest = amount(prices, values) % (2000 * LARGE)
    assert [rest // 1000**place % 1000 for place in range(len(targets))] == [values[target] for target in targets]
    assert refusal(Request(obis, 900, starts, prices), starts, min(27, days)) == "tariff_singles_out"


@pytest.mark.parametrize("share", [2, 3, 10])
@pytest.mark.parametrize("obis", [IMPORT, EXPORT])
def test_digits_below_a_large_price_in_many_intervals_are_not_told(share: int, obis: str) -> None:
    """D4, varied: as a vector of prices this is a two-rate tariff to nine digits; as integers it is two equations."""
    starts, values = home(28)
    prices = [10**9 if index % share else 0 for index in range(len(starts))]
    prices[share * 200] = 1
    assert amount(prices, values) % 10**9 == values[share * 200]
    assert refusal(Request(obis, 900, starts, prices), starts) == "tariff_singles_out"


def rounded(judged: Judged, values: Sequence[int], tariff_prices: Sequence[int]) -> BillAnswer:
    bits = quantum_bits(tariff_prices, "Wh", "ct", -5, -1)
    return answer_amount(
        PEDERSEN, judged, values, [1] * len(values), bits=bits, request=bytes(32), entropy=random.Random(5).randbytes
    )


@pytest.mark.parametrize("target", [0, 300, 1500, 2687])
def test_digits_of_many_small_prices_are_not_told(target: int) -> None:
    """
    D4, varied: a target among small prices of their own, more prices than there are stages.

    The exact amount's digits below the large price are the target; of the answer, all that the target can change within
    a tenth of a kilowatt hour is rounded away, and the sum of all is the same.
    """
    starts, values = home(28)
    prices = [2**32 - index % 25 * 2**20 for index in range(len(starts))]
    prices[target] = 1
    judged = check_request(Request(IMPORT, 900, starts, prices), set(starts), set())
    assert amount(prices, values) % 2**20 == values[target]
    other = list(values)
    place = next(index for index in range(len(starts)) if prices[index] > 2**31)
    other[target], other[place] = other[target] + 9, other[place] - 9  # the same sum, another target
    assert amount(prices, other) != amount(prices, values)
    answers = [rounded(judged, each, prices) for each in (values, other)]
    assert answers[0].sums == answers[1].sums
    assert abs(answers[0].quotient - answers[1].quotient) <= 1
    assert 1 << quantum_bits(prices, "Wh", "ct", -5, -1) > 9 * (2**32 - 1)


@pytest.mark.parametrize("spread", [1, 1000, 2**32])
def test_an_amount_has_no_digit_that_a_tenth_of_a_kilowatt_hour_moves(spread: int) -> None:
    """What 100 Wh in one interval at the whole spread are worth is under one step of the answer, and so is a cent."""
    quantum = 1 << quantum_bits([5, 5 + spread], "Wh", "ct", -5, -1)
    assert quantum >= spread * 1000
    assert quantum >= 10**6
    assert 1 << quantum_bits([5, 5 + spread], "Wh", "EUR", -7, -1) == quantum


def test_an_amount_of_another_unit_has_no_step_and_is_not_answered() -> None:
    for unit, scaler in (("varh", -1), ("Wh", -12)):
        with pytest.raises(RemoteProtocolError, match="tariff_register"):
            quantum_bits([0, 2**32], unit, "ct", -5, scaler)


def test_large_prices_that_cancel_do_not_leave_a_reading() -> None:
    """D4, varied: +P and -P over alike intervals, and 1 at the target."""
    starts, values = home(28)
    prices = [LARGE * (1 if index % 2 else -1) for index in range(len(starts))]
    prices[500] = 1
    assert amount(prices, values) % LARGE == values[500]
    assert refusal(Request(IMPORT, 900, starts, prices), starts) == "tariff_singles_out"


@pytest.mark.parametrize("days", [28, 31])
@pytest.mark.parametrize("target", [0, 1234, -2])
@pytest.mark.parametrize("obis", [IMPORT, EXPORT])
def test_a_flat_tariff_over_all_intervals_but_one_is_not_answered(days: int, target: int, obis: str) -> None:
    """D4 (hole.py): the register tells the sum of all, the bill that of all but one."""
    starts, values = home(days)
    target %= len(starts)
    without = [value for index, value in enumerate(values) if index != target]
    assert sum(values) - amount([3000] * len(without), without) // 3000 == values[target]
    asked = [start for index, start in enumerate(starts) if index != target]
    assert refusal(Request(obis, 900, asked, [3000] * len(asked)), starts) == "intervals_left_out"


def test_a_hole_that_is_priced_as_nothing_is_not_answered() -> None:
    """D4 (hole.py), varied: the interval is in the request, at a price of 0."""
    starts, values = home(28)
    prices = [3000 * (index != 1234) for index in range(len(starts))]
    assert sum(values) - amount(prices, values) // 3000 == values[1234]
    assert refusal(Request(IMPORT, 900, starts, prices), starts) == "tariff_singles_out"


@pytest.mark.parametrize("interval_s", [1, 5, 60, 900])
@pytest.mark.parametrize("count", [1, 96, 97, 671])
def test_bills_of_short_times_are_no_load_curve(interval_s: int, count: int) -> None:
    """D4b (d4b_bill_seconds.py): 96 intervals of a second each at a flat price; the least span is one of time."""
    starts = [START_S + interval_s * index for index in range(count)]
    request = Request(IMPORT, interval_s, starts, [1] * count)
    assert refusal(request, starts) == "span_too_short"
    assert refusal(request, starts, 7) == "span_too_short"


def test_few_intervals_far_apart_are_no_month() -> None:
    """D4b, varied: a gateway that is let into two rounds, a month apart, is not billed for them."""
    starts = [START_S, START_S + 28 * 86_400]
    assert refusal(Request(IMPORT, 900, starts, [1, 1]), starts) == "tariff_singles_out"


def test_a_second_bill_does_not_make_a_difference() -> None:
    """D4, varied: the same month again with one interval at another price; their difference would be it."""
    starts, _ = home(28)
    check_request(Request(IMPORT, 900, starts, [3000] * len(starts)), set(starts), set())
    with pytest.raises(RemoteProtocolError, match="interval_billed_before"):
        check_request(Request(IMPORT, 900, starts, [3001] * len(starts)), set(), set(starts))


@pytest.mark.parametrize("year", [1, 1969, 9999])
def test_a_sheet_of_a_year_without_dates_is_refused_and_ends_no_process(year: int) -> None:
    """
    The local hour of such an interval is an error of the calendar and none of the protocol.

    It came out of the task that answers bills, and with it went the node and all its gateways.
    """
    document = Tariff("Far", EXPORT, "Wh", "ct", -5, 0, 900, (1,) * 2700).to_bytes()
    document = document.replace(b"1970-01-01T00:00:00Z", b"%04d-12-31T23:00:00Z" % year)
    with pytest.raises(RemoteProtocolError) as caught:
        Tariff.from_bytes(document)
    assert caught.value.reason == "bad_tariff"


@pytest.mark.parametrize("start", [b"1970-01-01T00:00:00Z", b"2026-03-01T00:00:00Z", b"9997-12-31T23:00:00Z"])
def test_every_sheet_that_is_read_has_a_local_hour_for_each_price(start: bytes) -> None:
    document = Tariff("Far", EXPORT, "Wh", "ct", -5, 0, 900, (1,) * 2700).to_bytes()
    tariff = Tariff.from_bytes(document.replace(b"1970-01-01T00:00:00Z", start))
    starts = [tariff.interval_s_of(index) for index in range(len(tariff.prices))]
    assert check_request(Request(EXPORT, 900, starts, tariff.prices), set(), set()).by_stages
