"""What a bill may ask: tariffs of the market pass, questions that single an interval out do not (D4, D4b)."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.dcnet.billing.leverage import (
    HIDING_INTERVALS_MIN,
    LINE_COUNT_MAX,
    AmountLine,
    Line,
    StageLine,
    check_leverage,
    hiding_intervals,
)
from protocol.errors import LocalProtocolError, RemoteProtocolError

DAYS = 28
COUNT = 96 * DAYS
HOURS = [index // 4 % 24 for index in range(COUNT)]
ONE_SPAN = [0] * COUNT


def each(price: Callable[[int, int], int], days: int = DAYS) -> tuple[int, ...]:
    """A price by day and quarter hour."""
    return tuple(price(day, quarter) for day in range(days) for quarter in range(96))


def hidden(*lines: Line, spans: list[int] = ONE_SPAN) -> float:
    return hiding_intervals(spans, HOURS, lines)


def dynamic(seed: int, spike: int = 0, hours: int = 1) -> tuple[int, ...]:
    """Day-ahead prices: two peaks a day, a level that wanders, and a spike at an evening hour, 0.01 ct/kWh."""
    rng = np.random.default_rng(seed)
    hour = np.arange(24 * DAYS) % 24
    shape = (
        350 * np.exp(-((hour - 8) ** 2) / 8)
        + 550 * np.exp(-((hour - 19) ** 2) / 8)
        - 400 * np.exp(-((hour - 13) ** 2) / 8)
    )
    level = np.repeat(np.convolve(rng.normal(0, 500, DAYS + 4), np.ones(5) / 5, "valid"), 24)
    prices = 2900 + shape + level + rng.normal(0, 150, 24 * DAYS)
    if spike:
        prices[24 * 11 + 18 : 24 * 11 + 18 + hours] = spike
    return tuple(int(price) for price in np.repeat(prices, 4))


FLAT = StageLine(each(lambda *_: 0))
TWO_RATE = StageLine(each(lambda _, quarter: int(24 <= quarter < 88)))
SECTION_14A = StageLine(each(lambda _, quarter: 2 if 68 <= quarter < 84 else int(28 <= quarter < 92)))
SEASON = StageLine(each(lambda day, quarter: (day >= 14) * 2 + (24 <= quarter < 88)))
TWENTY = StageLine(each(lambda day, quarter: quarter // 24 * 5 + day * 5 // DAYS))
CRITICAL_PEAKS = StageLine(each(lambda day, quarter: int(day % 7 == 3 and 68 <= quarter < 84)))


@pytest.mark.parametrize(
    ("line", "least"),
    [
        (FLAT, 1000), (TWO_RATE, 290), (SECTION_14A, 180), (SEASON, 31), (TWENTY, 40), (CRITICAL_PEAKS, 60),
        (AmountLine(dynamic(1)), 60), (AmountLine(dynamic(2)), 60), (AmountLine((2900,) * COUNT), 1000),
    ],
    ids=["flat", "two-rate", "14a", "season", "twenty-stages", "critical-peaks", "dynamic-1", "dynamic-2", "constant"],
)  # fmt: skip
def test_tariffs_of_the_market_pass(line: Line, least: float) -> None:
    check_leverage(ONE_SPAN, HOURS, [line])
    assert hidden(line) >= least


def test_the_figures_of_the_model_come_out() -> None:
    """Four critical four-hour peaks 61, one of them 15, one interval 1: figures of the design."""
    assert hidden(CRITICAL_PEAKS) == pytest.approx(60.7, abs=0.1)
    assert hidden(StageLine(each(lambda day, quarter: int(day == 3 and 68 <= quarter < 84)))) == pytest.approx(
        15.2, abs=0.1
    )
    assert hidden(StageLine(each(lambda day, quarter: int((day, quarter) == (3, 40))))) == pytest.approx(1.0)


def single_out(line: Line, spans: list[int] = ONE_SPAN) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        check_leverage(spans, HOURS, [line])
    assert caught.value.reason == "tariff_singles_out"


@pytest.mark.parametrize("quarter", [0, 12, 40, 76, 95])
@pytest.mark.parametrize("height", [1, 30, 10**9])
@pytest.mark.parametrize("level", [0, 3000, 4 * 10**9])
def test_one_interval_of_another_price_is_refused(quarter: int, height: int, level: int) -> None:
    """A price of 4·10^9 everywhere and 1 more once is no flat tariff."""
    single_out(AmountLine(each(lambda day, each_quarter: level + height * ((day, each_quarter) == (9, quarter)))))


def test_digits_of_an_amount_cannot_hold_intervals() -> None:
    """D4: one large price for all but a few, whose small prices make the amount's last digits."""
    targets = {(2, 40): 1, (5, 70): 1000, (20, 3): 10**6}
    single_out(AmountLine(each(lambda day, quarter: targets.get((day, quarter), 10**9))))


def test_nights_that_hide_one_target_are_refused() -> None:
    """A stage of one loud quarter hour and many quiet ones: the quiet ones count for what households use then."""
    single_out(StageLine(each(lambda day, quarter: int((quarter == 12 and day < 24) or (day, quarter) == (9, 76)))))


@pytest.mark.parametrize("hours", [1, 2, 3, 4])
def test_a_single_short_peak_is_refused(hours: int) -> None:
    single_out(StageLine(each(lambda day, quarter: int(day == 9 and 72 <= quarter < 72 + 4 * hours))))


def test_a_real_price_spike_of_an_hour_is_refused() -> None:
    """94 ct for an hour of a dynamic month: it is billed by block means instead, which pass."""
    prices = dynamic(3, spike=9400)
    single_out(AmountLine(prices))
    start = (96 * 11 + 72) // 32 * 32
    block = prices[start : start + 32]
    check_leverage(ONE_SPAN, HOURS, [AmountLine(prices[:start] + (sum(block) // 32,) * 32 + prices[start + 32 :])])


def test_spans_between_registers_count_as_disclosed() -> None:
    """Two registers a day apart and a flat tariff: the day's sum; registers around one interval: that interval."""
    by_day = [index // 96 for index in range(COUNT)]
    assert hidden(FLAT, spans=by_day) == pytest.approx(1108.1 / DAYS, rel=0.01)
    single_out(FLAT, spans=[int(index == 1234) + 2 * (index > 1234) for index in range(COUNT)])


def test_lines_that_pass_alone_may_not_pass_together() -> None:
    """Two two-rate lines whose borders differ by one interval of one day: their difference is that interval."""
    shifted = StageLine(each(lambda day, quarter: int(24 <= quarter < 88) ^ int((day, quarter) == (9, 24))))
    check_leverage(ONE_SPAN, HOURS, [TWO_RATE])
    assert hidden(shifted) > HIDING_INTERVALS_MIN
    with pytest.raises(RemoteProtocolError, match="tariff_singles_out"):
        check_leverage(ONE_SPAN, HOURS, [TWO_RATE, shifted])


@settings(max_examples=25)
@given(st.integers(0, COUNT - 1), st.integers(1, 5), st.randoms(use_true_random=False))
def test_no_line_beside_a_difference_of_one_interval_passes(target: int, count: int, random: object) -> None:
    """Whatever other lines say, two whose difference is one interval are refused."""
    rng = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    base = [int(stage) for stage in rng.integers(0, 2, COUNT)]
    other = [stage ^ int(index == target) for index, stage in enumerate(base)]
    lines: list[Line] = [AmountLine(tuple(base)), AmountLine(tuple(other))]
    lines += [AmountLine(tuple(int(price) for price in rng.integers(0, 9999, COUNT))) for _ in range(count - 1)]
    with pytest.raises(RemoteProtocolError, match="tariff_singles_out"):
        check_leverage(ONE_SPAN, HOURS, lines)


def test_more_lines_never_hide_better() -> None:
    assert hidden(TWO_RATE, AmountLine(dynamic(1))) <= min(hidden(TWO_RATE), hidden(AmountLine(dynamic(1)))) + 1e-6


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([StageLine((0,) * (COUNT - 1))], "price_count"),
        ([AmountLine((0,) * (COUNT + 1))], "price_count"),
        ([StageLine(tuple(index % 21 for index in range(COUNT)))], "stage_count"),
        ([FLAT] * (LINE_COUNT_MAX + 1), "line_count"),
    ],
)
def test_lines_that_do_not_fit_are_refused(lines: list[Line], reason: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        check_leverage(ONE_SPAN, HOURS, lines)
    assert caught.value.reason == reason


def test_spans_and_hours_of_different_lengths_are_our_own_fault() -> None:
    for spans in ([0], []):
        with pytest.raises(LocalProtocolError):
            hiding_intervals(spans, [], [])
