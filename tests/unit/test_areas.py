"""Who is here: gateways that fall silent are counted no more, and no epoch is called for them."""

import pytest

from coordinator.config import EpochConfig
from coordinator.gwa.areas import HEARD_S, SETTLE_S, Areas
from coordinator.gwa.epochs import To
from protocol.dcnet.schema import DEFAULT_SCHEMA
from protocol.dcnet.suite import StandardSuite

NOW_S = 1_772_000_000.0


@pytest.fixture
def areas() -> Areas:
    made = Areas(StandardSuite(), EpochConfig(), DEFAULT_SCHEMA, [], ["north"], bytes, 0)
    for index in range(6):
        made.arrive(made.areas["north"], f"ESTK{index:010}", NOW_S)
    return made


def test_a_silent_gateway_is_not_here(areas: Areas) -> None:
    north = areas.areas["north"]
    later_s = NOW_S + HEARD_S
    areas.arrive(north, "ESTK0000000000", later_s)
    areas.forget_silent(later_s)
    assert areas.present_count == 6
    areas.forget_silent(later_s + 1)
    assert set(north.present) == {"ESTK0000000000"}
    assert north.last_arrival_s == NOW_S  # it was here all along
    areas.arrive(north, "ESTK0000000001", later_s + 2)
    assert (areas.present_count, north.last_arrival_s) == (2, later_s + 2)


def test_an_epoch_waits_for_none_that_has_gone(areas: Areas) -> None:
    north = areas.areas["north"]
    for index in range(5):
        areas.arrive(north, f"ESTK{index:010}", NOW_S + HEARD_S)
    areas.forget_silent(NOW_S + HEARD_S + 1)
    ((area, epoch),) = areas.call_due(NOW_S + HEARD_S + 1 + SETTLE_S)
    assert area is north
    assert "ESTK0000000005" not in area.present
    assert epoch.invite("ESTK0000000005") == [To("ESTK0000000005", epoch.call)]  # unless it comes back in time


def test_an_area_whose_last_gateway_has_gone_calls_nobody(areas: Areas) -> None:
    areas.forget_silent(NOW_S + HEARD_S + 1)
    assert areas.call_due(NOW_S + 1_000_000) == []
