"""Which requests a gateway may answer: registers, coverage, span and leverage, each at its border."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.dcnet.billing.bill import (
    PRICE_MAX,
    SPAN_MIN_S,
    IntervalsLeftOutError,
    Request,
    check_request,
    request_digest,
)
from protocol.errors import RemoteProtocolError

IMPORT, EXPORT = "1-0:1.8.0*255", "1-0:2.8.0*255"
START_S = 1_772_319_600  # 2026-03-01 00:00 in Berlin
DAYS = 28
STARTS = [START_S + 900 * index for index in range(96 * DAYS)]
FLAT = [3000] * len(STARTS)


def asked(
    starts: list[int] = STARTS, prices: list[int] | None = None, obis: str = IMPORT, interval_s: int = 900
) -> Request:
    return Request(obis, interval_s, starts, [3000] * len(starts) if prices is None else prices)


def refuses(reason: str, request: Request, **others: object) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        check_request(request, set(STARTS), set(), **others)  # type: ignore[arg-type]
    assert caught.value.reason == reason
    return caught.value


@pytest.mark.parametrize("obis", [IMPORT, EXPORT])
def test_a_month_of_a_flat_tariff_is_answered(obis: str) -> None:
    check_request(asked(obis=obis), set(STARTS), {START_S - 900})


@pytest.mark.parametrize("obis", [IMPORT, EXPORT])
def test_a_month_of_a_two_rate_tariff_is_answered(obis: str) -> None:
    prices = [3100 if 24 <= index % 96 < 88 else 2500 for index in range(len(STARTS))]
    check_request(asked(prices=prices, obis=obis), set(STARTS), set())


@pytest.mark.parametrize("obis", ["1-0:16.7.0*255", "1-0:1.8.1*255", "1-0:1.8.0", ""])
def test_other_registers_are_not_billed(obis: str) -> None:
    refuses("register_not_billed", asked(obis=obis))


def test_requests_that_are_none_are_refused() -> None:
    refuses("price_count", asked([], []))
    refuses("price_count", asked(prices=FLAT[1:]))
    refuses("intervals_not_ascending", asked([*STARTS[:-1], STARTS[-2]]))
    refuses("intervals_not_ascending", asked(interval_s=901))
    refuses("price_range", asked(prices=[*FLAT[1:], -PRICE_MAX - 1]))


def test_a_request_is_named_by_its_tariff_and_its_intervals() -> None:
    names = {request_digest(*each) for each in ((b"a", b"b"), (b"ab", b""), (b"a", b"c"), (b"b", b"b"))}
    assert len(names) == 4


def test_an_interval_is_in_one_bill() -> None:
    with pytest.raises(RemoteProtocolError, match="interval_billed_before"):
        check_request(asked(), set(STARTS[1:]), {STARTS[0]})


@pytest.mark.parametrize("target", [0, 1, 1234, len(STARTS) - 2])
@pytest.mark.parametrize("obis", [IMPORT, EXPORT])
def test_a_request_that_leaves_an_interval_out_is_refused(target: int, obis: str) -> None:
    error = refuses("intervals_left_out", asked(STARTS[:target] + STARTS[target + 1 :], obis=obis))
    assert isinstance(error, IntervalsLeftOutError)
    assert error.intervals_s == (STARTS[target],)


def test_intervals_before_the_request_are_left_out_too() -> None:
    error = refuses("intervals_left_out", asked(STARTS[3:]))
    assert isinstance(error, IntervalsLeftOutError)
    assert error.intervals_s == tuple(STARTS[:3])


def test_intervals_after_the_request_wait_for_the_next() -> None:
    check_request(asked(STARTS[:-96]), set(STARTS), set())


@given(st.sets(st.integers(0, len(STARTS) - 1), min_size=1, max_size=20))
def test_whatever_is_left_out_before_the_end_is_named(targets: set[int]) -> None:
    kept = [start for index, start in enumerate(STARTS) if index not in targets]
    expected = tuple(STARTS[index] for index in sorted(targets) if STARTS[index] < kept[-1])
    if not expected:
        return
    error = refuses("intervals_left_out", asked(kept))
    assert isinstance(error, IntervalsLeftOutError)
    assert error.intervals_s == expected


def test_the_span_counts_from_the_first_start_to_the_last_end() -> None:
    shortest = STARTS[: SPAN_MIN_S // 900]
    check_request(asked(shortest), set(shortest), set())
    with pytest.raises(RemoteProtocolError, match="span_too_short"):
        check_request(asked(shortest[:-1]), set(shortest), set())
    check_request(asked(shortest[:672]), set(shortest), set(), span_min_s=7 * 86_400)


def test_more_prices_than_stages_are_not_answered_exactly() -> None:
    twenty = [index // 24 % 4 * 5 + index // 24 // 4 % 5 for index in range(len(STARTS))]
    assert check_request(asked(prices=twenty), set(STARTS), set()).by_stages
    judged = check_request(asked(prices=[index % 21 for index in range(len(STARTS))]), set(STARTS), set())
    assert (judged.by_stages, judged.block_starts) == (False, ())


@pytest.mark.parametrize(("height", "length"), [(9400, 32), (15_000, 32)])
def test_a_spike_of_an_hour_is_averaged_over_a_block_around_it(height: int, length: int) -> None:
    """94 ct and 150 ct for an hour of a dynamic month."""
    draw = random.Random(7)
    prices = [2500 + round(600 * draw.random()) + 10 * (index % 96 // 4) for index in range(len(STARTS))]
    spike = 96 * 11 + 72
    prices[spike : spike + 4] = [height] * 4
    judged = check_request(asked(prices=prices), set(STARTS), set())
    assert (judged.by_stages, judged.block_length) == (False, length)
    (start,) = judged.block_starts
    assert start <= spike
    assert start + length >= spike + 4
    assert judged.prices[:start] == tuple(prices[:start])
    assert len(set(judged.prices[start : start + length])) == 1
    assert judged.prices[start + length :] == tuple(prices[start + length :])
    assert abs(sum(judged.prices) - sum(prices)) <= length // 2


def test_prices_that_no_averaging_helps_are_refused() -> None:
    """Twenty-one spikes all over a flat month: eight blocks do not reach them."""
    prices = FLAT.copy()
    for number in range(21):
        prices[96 * number + 7 * number % 96] = 10**6 * (number + 1)
    refuses("tariff_singles_out", asked(prices=prices))


def test_registers_given_out_within_the_request_count() -> None:
    refuses("tariff_singles_out", asked(), registers_s=[STARTS[1234], STARTS[1235]])
    check_request(asked(), set(STARTS), set(), [STARTS[96 * day] for day in range(DAYS)])


def test_registers_given_out_elsewhere_do_not_count() -> None:
    check_request(asked(), set(STARTS), set(), [0, STARTS[0], STARTS[-1] + 900])


def test_feed_in_of_a_noon_does_not_hide_in_nights() -> None:
    """A roof feeds nothing in at night: a stage of all nights and one noon is that noon."""
    prices = [1 if index % 96 < 20 or index == 960 + 50 else 2 for index in range(len(STARTS))]
    refuses("tariff_singles_out", asked(prices=prices, obis=EXPORT))


def test_an_evening_behind_a_roof_does_not_hide_in_noons() -> None:
    prices = [1 if 48 <= index % 96 < 64 or index == 960 + 76 else 2 for index in range(len(STARTS))]
    refuses("tariff_singles_out", asked(prices=prices))
