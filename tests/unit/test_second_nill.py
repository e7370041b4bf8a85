"""The second implementation of NILL against steps worked out by hand from the paper's rules."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.lab.households import generate
from tests.unit.second_nill import Battery, Reading, Renewal, State, first_target_w, level

HOUR_S = 3600.0
ROOMY = Battery(capacity_wh=20_000, charge_w=20_000, discharge_w=20_000, start_wh=10_000)


def in_wh(charge_ws: npt.NDArray[np.float64]) -> list[float]:
    return [float(each) for each in charge_ws / 3600]


KWH = Battery(capacity_wh=1000, charge_w=1000, discharge_w=1000, start_wh=500)


def test_steady_state_meters_the_target_and_the_battery_takes_the_rest() -> None:
    metered_w, charge_ws, states = level([300, 500, 650], HOUR_S, KWH, 400, Reading())
    assert metered_w.tolist() == [400, 400, 400]
    assert in_wh(charge_ws) == [600, 500, 250]
    assert states == [State.STEADY] * 3


def test_discharge_limit_leaves_the_rest_of_a_peak_on_the_meter() -> None:
    metered_w, charge_ws, _ = level([3000], HOUR_S / 4, KWH, 400, Reading())
    assert (metered_w.tolist(), in_wh(charge_ws)) == ([2000], [250])


def test_charge_limit_keeps_the_metered_load_below_the_target() -> None:
    battery = Battery(capacity_wh=1000, charge_w=100, discharge_w=1000, start_wh=500)
    metered_w, charge_ws, _ = level([50], HOUR_S, battery, 400, Reading())
    assert (metered_w.tolist(), in_wh(charge_ws)) == ([150], [600])


def test_empty_battery_shows_the_demand_it_cannot_cover() -> None:
    metered_w, charge_ws, _ = level([1000, 1000], HOUR_S, KWH, 400, Reading(low=0))
    assert metered_w.tolist() == [500, 1000]
    assert in_wh(charge_ws) == [0, 0]


def test_full_battery_takes_no_more_than_its_room() -> None:
    metered_w, charge_ws, _ = level([0, 0], HOUR_S, KWH, 400, Reading(high=1))
    assert metered_w.tolist() == [400, 100]
    assert in_wh(charge_ws) == [900, 1000]


def test_low_recovery_holds_the_charge_rate_until_80_percent_then_averages() -> None:
    metered_w, charge_ws, states = level([800, 600, 200, 400, 400], HOUR_S, KWH, 400, Reading())
    # 500 - 400 = 100 Wh is below L = 200 Wh and 600 W above 400 W: K_L = 1000 W charges 400, then 500 of the 800 Wh.
    # At 1000 Wh it is over: K_SS = 0.8 * (600 + 200) / 2 + 0.2 * 400 = 400 W.
    assert states == [State.STEADY, State.LOW, State.LOW, State.STEADY, State.STEADY]
    assert metered_w.tolist() == [400, 1000, 700, 400, 400]
    assert in_wh(charge_ws) == [100, 500, 1000, 1000, 1000]


def test_low_charge_alone_does_not_start_a_recovery_while_demand_is_low() -> None:
    metered_w, charge_ws, states = level([800, 300], HOUR_S, KWH, 400, Reading())
    assert states == [State.STEADY] * 2
    assert metered_w.tolist() == [400, 400]
    assert in_wh(charge_ws) == [100, 200]
    assert level([800, 300], HOUR_S, KWH, 400, Reading(needs_demand=False))[2] == [State.STEADY, State.LOW]


def test_high_recovery_holds_80_percent_of_demand_until_it_rises_by_5_a() -> None:
    full = Battery(capacity_wh=1000, charge_w=1000, discharge_w=1000, start_wh=950)
    metered_w, charge_ws, states = level([200, 300, 760, 900, 900], HOUR_S, full, 400, Reading())
    # K_H = 0.8 * 200 = 160 W: 760 - 160 is 600 W, not above 5 A at 120 V; 900 W is.
    # K_SS = 0.8 * (200 + 300 + 760) / 3 + 0.2 * 400 = 416 W; it would need 484 Wh of 170 Wh: low recovery comes next.
    assert states == [State.HIGH, State.HIGH, State.HIGH, State.STEADY, State.LOW]
    assert metered_w.tolist() == [160, 160, 160, 730, 1000]
    assert in_wh(charge_ws) == pytest.approx([910, 770, 170, 0, 100])


def test_high_target_is_the_mean_of_the_window_before_the_entry() -> None:
    metered_w, _, states = level([0, 100], HOUR_S, KWH, 500, Reading(window=2))
    assert states == [State.STEADY, State.HIGH]
    assert metered_w.tolist() == [500, 40]


def test_high_recovery_renews_its_target_where_demand_falls_below_it() -> None:
    full = Battery(capacity_wh=1000, charge_w=1000, discharge_w=1000, start_wh=950)
    held, _, _ = level([200, 100], HOUR_S, full, 400, Reading())
    renewed, _, _ = level([200, 100], HOUR_S, full, 400, Reading(renewal=Renewal.BELOW))
    assert held.tolist() == [160, 160]
    assert renewed.tolist() == [160, 80]


def test_high_recovery_ends_at_a_state_of_charge_wsere_the_reading_says_so() -> None:
    full = Battery(capacity_wh=1000, charge_w=1000, discharge_w=1000, start_wh=950)
    *_, states = level([300, 500, 100], HOUR_S, full, 400, Reading(high_until=0.75))
    assert states == [State.HIGH, State.HIGH, State.STEADY]


def test_first_target_is_the_smallest_that_keeps_the_charge_within_limits() -> None:
    # L = 200, H = 900: after 1 h 600 - 300 = 300 W at least, after 2 h (200 - 500 + 1400) / 2 = 550 W.
    assert first_target_w([600, 800], HOUR_S, KWH, Reading()) == 550
    assert first_target_w([0, 0], HOUR_S, KWH, Reading()) == 0


def test_first_target_is_refused_where_none_fits_the_battery() -> None:
    with pytest.raises(ValueError, match="no constant load"):
        first_target_w([0, 5000], HOUR_S, KWH, Reading())


def test_no_constant_load_suits_a_battery_of_1_kwh_for_a_week() -> None:
    for demand_w in generate(6, 7, 60, seed=1).power_w:
        with pytest.raises(ValueError, match="no constant load"):
            first_target_w(demand_w.tolist(), 60, KWH, Reading(high=0.95))
        assert first_target_w(demand_w.tolist(), 60, ROOMY, Reading(high=0.95)) > 0


@given(
    st.lists(st.floats(0, 8000), min_size=1, max_size=60), st.floats(0, 2000), st.floats(0, 1), st.sampled_from(Renewal)
)
def test_no_load_takes_the_battery_beyond_its_limits(
    demand_w: list[float], steady_w: float, start: float, renewal: Renewal
) -> None:
    battery = Battery(capacity_wh=500, charge_w=700, discharge_w=900, start_wh=500 * start)
    metered_w, charge_ws, _ = level(demand_w, 60, battery, steady_w, Reading(renewal=renewal, window=5))
    power_w = metered_w - demand_w
    assert (power_w <= 700 + 1e-6).all()
    assert (power_w >= -900 - 1e-6).all()
    assert (charge_ws >= 0).all()
    assert (charge_ws <= 500 * 3600).all()
    assert charge_ws[-1] - battery.start_wh * 3600 == pytest.approx(power_w.sum() * 60, abs=1e-3)
    assert (metered_w >= -1e-6).all()
