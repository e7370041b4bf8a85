"""Ranges of committed slots: k follows from the fuse in the call, and no call makes it too small for a household."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.dcnet.setup.ranges import (
    BITS_MAX,
    COMMITTED_MAX,
    check_ranges,
    committed_bits,
    connection_w,
    contribution_limit,
    slot_limit,
    value_bits,
)
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA, VERIFIED_SCHEMA, Kind, Schema, Slot
from protocol.errors import LocalProtocolError, RemoteProtocolError

COUNT, IMPORT, EXPORT, POWER = VERIFIED_SCHEMA.slots
GAS = Slot("gas", "7-0:3.0.0*255", "m³", -3, Kind.ENERGY)


def test_a_house_of_63_ampere_has_16_bits_in_watt_hours() -> None:
    """3 x 253 V x 1.45 x 63 A = 69,335 W; three quarter hours of it are 52,002 Wh."""
    assert connection_w(63) == 69_335
    assert slot_limit(replace(IMPORT, scaler=0), 63, 900) == 17_334
    assert value_bits(replace(IMPORT, scaler=0), 63, 900) == 16
    assert committed_bits(VERIFIED_SCHEMA, 63, 900) == (19, 19)
    assert committed_bits(DEFAULT_SCHEMA, 63, 900) == ()
    assert contribution_limit(16) == 65_535


@given(st.integers(16, 10_000), st.integers(-6, 3), st.integers(900, 3600))
def test_three_intervals_of_the_fuse_are_in_the_range(fuse_a: int, scaler: int, interval_s: int) -> None:
    slot = replace(IMPORT, scaler=scaler)
    limit = slot_limit(slot, fuse_a, interval_s)
    assert limit is not None
    at_unit = limit * 10**scaler if scaler >= 0 else limit / 10**-scaler
    assert at_unit >= 3 * 230 * fuse_a * interval_s / 3600
    assert 3 * limit <= contribution_limit(value_bits(slot, fuse_a, interval_s)) < 6 * limit


def test_a_fuse_bounds_energy_and_power_of_electricity_and_nothing_else() -> None:
    assert slot_limit(POWER, 35, 900) == connection_w(35)
    assert slot_limit(replace(POWER, scaler=3), 35, 900) == 39
    voltage = Slot("voltage", "1-0:32.7.0*255", "V", 0, Kind.POWER)
    for slot in (COUNT, GAS, voltage, replace(IMPORT, unit="m³")):
        assert slot_limit(slot, 63, 900) is None
        with pytest.raises(LocalProtocolError):
            value_bits(slot, 63, 900)
    with pytest.raises(LocalProtocolError, match="only energy"):
        value_bits(POWER, 63, 900)
    with pytest.raises(LocalProtocolError, match=str(BITS_MAX)):
        value_bits(replace(IMPORT, scaler=-18), 63, 900)


def test_a_call_whose_ranges_are_narrower_than_our_connection_is_refused() -> None:
    check_ranges(VERIFIED_SCHEMA, 63, 900, 63)
    check_ranges(VERIFIED_SCHEMA, 80, 900, 63)
    check_ranges(DEFAULT_SCHEMA, 16, 900, 63)  # nothing is committed to
    many = (replace(IMPORT, obis=f"1-0:{c}.8.0*255", name=str(c)) for c in range(1, COMMITTED_MAX + 2))
    refused = {
        "narrow_range": (VERIFIED_SCHEMA, 62),
        "too_many_committed": (Schema((COUNT, *many)), 63),
        "register_not_committed": (Schema((COUNT, replace(GAS, committed=True))), 63),
    }
    for reason, (schema, fuse_a) in refused.items():
        with pytest.raises(RemoteProtocolError) as caught:
            check_ranges(schema, fuse_a, 900, 63)
        assert caught.value.reason == reason
