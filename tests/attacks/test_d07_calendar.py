"""D1, D4b, D7: a coordinator that bends the calendar, by short rounds, far epochs, numbers or metering time."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import wire
from protocol.dcnet.discipline.carried_energy import EnergyAccount, contribute
from protocol.dcnet.setup.calendar import CalendarPolicy, check_calendar
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA
from protocol.errors import RemoteProtocolError

NOW_S = 1_772_366_400  # a quarter hour of 2026
POLICY = CalendarPolicy()
LAPSE = CalendarPolicy(time_lapse=True)
CALL = wire.EpochCall(
    epoch=7, try_=0, area="north", split_bits=0, part=0, rejected=(), schema=DEFAULT_SCHEMA.to_bytes(), rounds=96,
    start_ms=(NOW_S + 900) * 1000, period_ms=900_000, interval_start_s=NOW_S + 900, interval_s=900, ring_size=64,
    corrupt_ppm=50_000, dropout_ppm=50_000, fuse_a=63, price_sheets=(),
)  # fmt: skip
SECONDS = replace(CALL, period_ms=1000, start_ms=NOW_S * 1000 + 20_000)


def reason(call: wire.EpochCall, policy: CalendarPolicy = POLICY, now_s: float = NOW_S) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        check_calendar(call, policy, now_s)
    return caught.value.reason


def test_a_day_of_quarter_hours_and_its_quarter_are_accepted() -> None:
    for rounds in (16, 24, 32, 96, 104):
        check_calendar(replace(CALL, rounds=rounds), POLICY, NOW_S)
    hours = replace(CALL, start_ms=(NOW_S + 3600) * 1000, interval_start_s=NOW_S + 3600)
    check_calendar(replace(hours, interval_s=3600, period_ms=3_600_000, rounds=24), POLICY, NOW_S)
    check_calendar(CALL, POLICY, NOW_S + 96 * 900)  # a gateway that was restarted in the epoch's last round


@pytest.mark.parametrize("period_ms", [1, 1000, 5000, 60_000, 899_999, 900_001, 3_600_000])
def test_rounds_that_are_no_quarter_hours_are_refused(period_ms: int) -> None:
    """D1: rounds of 1 s and 5 s gave every household's power within 20 W."""
    assert reason(replace(CALL, period_ms=period_ms)) == "time_lapse"


@pytest.mark.parametrize("interval_s", [1, 60, 300, 899])
@pytest.mark.parametrize("policy", [POLICY, LAPSE], ids=["field", "time lapse"])
def test_intervals_below_a_quarter_hour_are_refused_everywhere(interval_s: int, policy: CalendarPolicy) -> None:
    """D4b: with intervals of a second a flat tariff billed every 96 s is a load curve."""
    assert reason(replace(CALL, interval_s=interval_s, period_ms=interval_s * 1000), policy) == "short_interval"


@pytest.mark.parametrize(
    "start_ms", [2**62 // 900_000 * 900_000, (NOW_S + 27 * 3600) * 1000, (NOW_S + 40 * 365 * 86_400) * 1000]
)
def test_an_epoch_that_begins_later_than_tomorrow_is_refused(start_ms: int) -> None:
    """D7: the calendar 2^62 barred a gateway for good."""
    assert reason(replace(CALL, start_ms=start_ms, interval_start_s=start_ms // 1000)) == "distant_epoch"


@pytest.mark.parametrize("epoch", [2**40, 2**31, NOW_S // 900 + 1])
def test_an_epoch_number_out_of_reach_is_refused(epoch: int) -> None:
    assert reason(replace(CALL, epoch=epoch)) == "epoch_number"


def test_the_largest_number_that_is_accepted_bars_nobody_from_the_next_hour() -> None:
    """Wherever a coordinator jumps to, an epoch later by its own least duration has a number left."""
    largest = NOW_S // 900
    check_calendar(replace(CALL, epoch=largest), POLICY, NOW_S)
    assert reason(replace(CALL, epoch=largest + 1)) == "epoch_number"
    later_s = NOW_S + 900
    check_calendar(replace(CALL, epoch=largest + 1), POLICY, later_s)


@pytest.mark.parametrize("off_s", [-86_400, -901, -1, 1, 900, 3600, 10**9])
def test_metering_time_of_the_coordinators_choice_is_refused(off_s: int) -> None:
    """D7: an old interval called after a restore of the keys gave a quarter hour of the coordinator's choice."""
    assert reason(replace(CALL, interval_start_s=CALL.interval_start_s + off_s)) == "wrong_metering_time"


@pytest.mark.parametrize("shift_s", [1, 60, 450, 899, -60])
def test_a_grid_beside_that_of_the_last_epoch_is_refused(shift_s: int) -> None:
    """D1: the interval between the last registration time of one epoch and the first of the next would be a minute."""
    start_s = CALL.interval_start_s + shift_s
    assert reason(replace(CALL, start_ms=start_s * 1000, interval_start_s=start_s)) == "shifted_grid"
    assert reason(replace(CALL, start_ms=start_s * 1000)) == "wrong_metering_time"
    assert reason(replace(CALL, start_ms=CALL.start_ms + 1)) == "wrong_metering_time"


@pytest.mark.parametrize("interval_s", [901, 960, 3599, 86_399])
def test_a_grid_of_odd_intervals_is_refused_where_it_begins_right(interval_s: int) -> None:
    """D1: counted from midnight like the last epoch's, it begins a minute after one of that one's intervals, too."""
    start_s = next(
        each for each in range(-(-NOW_S // interval_s) * interval_s, 2**40, interval_s) if 0 < each % 900 <= 60
    )
    call = replace(
        CALL, start_ms=start_s * 1000, period_ms=interval_s * 1000, interval_start_s=start_s, interval_s=interval_s,
        rounds=16,
    )  # fmt: skip
    assert reason(call, CalendarPolicy(duration_s_max=10**9), start_s - 900) == "shifted_grid"
    nearest_s = start_s // 900 * 900
    moved, _ = contribute(EnergyAccount(5_000, 5_000, nearest_s), 5_033, start_s, length_s=interval_s)
    assert moved == 33  # what it would have given away: the energy of a minute at most


def test_an_epoch_of_the_past_is_refused() -> None:
    for days in (1, 30, 3650):
        moved_s = CALL.interval_start_s - (days * 86_400) - 86_400
        assert reason(replace(CALL, start_ms=moved_s * 1000, interval_start_s=moved_s)) == "past_epoch"


def test_epochs_too_short_or_too_long_are_refused() -> None:
    assert reason(replace(CALL, rounds=15)) == "short_epoch"
    assert reason(replace(CALL, rounds=105)) == "long_epoch"
    hours = replace(CALL, start_ms=(NOW_S + 3600) * 1000, interval_start_s=NOW_S + 3600)
    assert reason(replace(hours, rounds=27, interval_s=3600, period_ms=3_600_000)) == "long_epoch"


def test_a_time_lapse_needs_the_nodes_own_word_and_counts_in_metering_time() -> None:
    assert reason(SECONDS) == "time_lapse"
    check_calendar(SECONDS, LAPSE, NOW_S)
    assert reason(replace(SECONDS, rounds=15), LAPSE) == "short_epoch"
    assert reason(replace(SECONDS, rounds=105), LAPSE) == "long_epoch"
    assert reason(replace(SECONDS, start_ms=(NOW_S + 105) * 1000), LAPSE) == "distant_epoch"  # 26 h are 104 s
    assert reason(replace(SECONDS, start_ms=(NOW_S - 97) * 1000), LAPSE) == "past_epoch"
    assert reason(replace(SECONDS, interval_start_s=2**40), LAPSE) == "wrong_metering_time"
    assert reason(replace(CALL, period_ms=1_800_000), LAPSE) == "time_lapse"
    assert reason(replace(SECONDS, epoch=2**40), LAPSE) == "epoch_number"


@given(
    st.builds(
        replace, st.just(CALL), epoch=st.integers(0, NOW_S // 450), rounds=st.integers(1, 200),
        start_ms=st.one_of(st.integers(0, 2**62), st.integers(*(1000 * (NOW_S + 3600 * hours) for hours in (-50, 50)))),
        period_ms=st.sampled_from([1, 1000, 899_999, 900_000, 1_800_000, 3_600_000, 2**40]),
        interval_start_s=st.one_of(st.integers(0, 2**62), st.integers(NOW_S - 180_000, NOW_S + 180_000)),
        interval_s=st.sampled_from([1, 450, 900, 1800, 3600, 86_400]),
    )
)  # fmt: skip
def test_whatever_is_accepted_lies_around_now(call: wire.EpochCall) -> None:
    """Over all calls: rounds of a quarter hour or more, within 52 hours around now, under their own time."""
    try:
        check_calendar(call, POLICY, NOW_S)
    except RemoteProtocolError:
        return
    start_s, end_s = call.start_ms / 1000, (call.start_ms + call.rounds * call.period_ms) / 1000
    assert call.period_ms >= 900_000
    assert NOW_S - 26 * 3600 <= start_s <= NOW_S + 26 * 3600
    assert NOW_S < end_s <= NOW_S + 52 * 3600
    assert call.interval_start_s == start_s
    assert start_s % 900 == 0
