"""Profile sets: what fits together is taken whole, what does not is refused by name."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from protocol.errors import RemoteProtocolError
from protocol.profiles.base import read_json
from protocol.profiles.calendar import LEGAL_TIME, TariffCalendar
from protocol.profiles.processing import BillingPeriod
from protocol.profiles.profile_set import PROFILE_SET_SIZE_MAX, ProfileSet, json_schema
from protocol.profiles.use_cases import Prepaid

POINT = "DE0001234567890123456789012345678"
FINGERPRINT = "ab" * 32


def document() -> dict[str, Any]:
    """A set with one of each kind of profile."""
    timed = {"valid_from": "2026-01-01T00:00:00Z"}
    return {
        "gateway": "ESTR0000000001", "version": 3, "issued_at": "2026-11-30T12:00:00Z",
        "meters": [timed | {"id": "m1", "device": "1EMH0012345678", "protocol": "sml", "registers": ["1-0:1.8.0*255"]}],
        "processing": [timed | {
            "id": "p1", "metering_point": POINT, "obis": "1-0:1.8.0*255", "meters": [{"meter": "m1"}],
            "use_case": {"taf": 7}, "billing_period": {"begins": "2026-01-01T00:00:00+01:00", "months": 1},
            "recipients": [{"participant": "emp", "communication": "w1", "delivery": "pseudonymous"}],
        }],
        "wan": [timed | {
            "id": "w1", "role": "participant", "uri": "https://emp.example/sml", "tls_certificate": FINGERPRINT,
            "encryption_certificate": FINGERPRINT, "signature_certificate": FINGERPRINT,
        }],
        "han": [
            timed | {"id": "h1", "role": "consumer", "user": "smith", "metering_points": [POINT]},
            timed | {"id": "h2", "role": "cls", "user": "wallbox", "certificate": FINGERPRINT},
        ],
        "proxy": [timed | {
            "id": "x1", "cls": "wallbox", "participant": "emp", "address": "emp.example:8443",
            "server_name": "emp.example", "participant_certificate": FINGERPRINT, "initiators": ["cls"],
        }],
    }  # fmt: skip


def read(changed: dict[str, Any]) -> ProfileSet:
    return ProfileSet.from_bytes(json.dumps(changed).encode())


def test_set_comes_back_from_its_canonical_json() -> None:
    profiles = read(document())
    assert ProfileSet.from_bytes(profiles.to_bytes()) == profiles
    assert profiles.to_bytes() == ProfileSet.from_bytes(profiles.to_bytes()).to_bytes()
    assert profiles.processing[0].is_billable


def at(path: str, value: Any) -> dict[str, Any]:
    """The document with one value exchanged; `None` removes it."""
    changed = document()
    *parents, last = path.split(".")
    target: Any = changed
    for name in parents:
        target = target[int(name)] if name.isdigit() else target[name]
    if value is None:
        del target[int(last) if last.isdigit() else last]
    else:
        target[last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("processing.0.meters", [{"meter": "m9"}], "no meter profile m9"),
        ("processing.0.obis", "1-0:2.8.0*255", "no register"),
        ("processing.0.registration_period_s", 300, "no multiple"),
        ("processing.0.metering_point", "DE1", "metering_point"),
        ("processing.0.use_case", {"taf": 15}, "use_case"),
        ("processing.0.use_case", {"taf": 3, "thresholds_w": [5, 5]}, "ascending"),
        ("processing.0.recipients.0.communication", "w9", "no WAN profile w9"),
        ("processing.0.billing_period.days", 30, "months or days"),
        ("processing.0.billing_period.begins", "2026-01-01T00:00:00Z", "00:00 of German legal time"),
        ("processing.0.valid_to", "2025-01-01T00:00:00Z", "after valid_from"),
        ("meters.0.registers", ["1-0:1.8.0*255"] * 2, "twice"),
        ("meters.0.surprise", 1, "surprise"),
        ("meters.0.valid_from", "2026-01-01T00:00:00", "timezone"),
        ("meters", [document()["meters"][0]] * 2, "an id appears twice"),
        ("proxy.0.cls", "heatpump", "no HAN profile"),
        ("han.1.certificate", None, "certificate"),
        ("han.1.facades", ["ppc"], "consumers only"),
        ("han.0.metering_points", ["DE" + "9" * 31], "no processing profile"),
        ("wan.0.uri", "https://user@emp.example/", "uri"),
        ("version", 0, "version"),
        ("version", "3", "version"),
    ],
)  # fmt: skip
def test_set_in_which_one_thing_is_wrong_is_refused_by_name(path: str, value: Any, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason) as refused:
        read(at(path, value))
    assert refused.value.reason == "bad_profile"


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"x" * (PROFILE_SET_SIZE_MAX + 1)], ids=range(5))
def test_what_is_no_set_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        ProfileSet.from_bytes(data)


@pytest.mark.parametrize(("taf", "period_s"), [({"taf": 14, "period_s": 1}, 900), ({"taf": 7}, 300)])
def test_aggregated_delivery_of_fine_values_is_refused(taf: dict[str, int], period_s: int) -> None:
    changed = at("processing.0.recipients.0.delivery", "aggregated")
    changed["meters"][0]["registration_period_s"] = period_s
    changed["processing"][0] |= {"registration_period_s": period_s, "use_case": taf}
    with pytest.raises(RemoteProtocolError, match="aggregated"):
        read(changed)


@pytest.mark.parametrize(
    ("meters", "reason"),
    [
        ([{"meter": "m1"}, {"meter": "m1"}], "an exchange for every meter but the last"),
        ([{"meter": "m1", "exchange": {"at": "2026-03-01T08:00:00Z", "final": 1, "initial": 0}}], "but the last"),
        ([{"meter": "m1", "exchange": {"at": f"2026-0{month}-01T08:00:00Z", "final": 1, "initial": 0}}
          for month in (3, 2)] + [{"meter": "m1"}], "order of time"),
    ],
)  # fmt: skip
def test_meter_exchanges_that_leave_a_question_are_refused(meters: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        read(at("processing.0.meters", meters))


def calendar(**changed: Any) -> dict[str, Any]:
    return {
        "day_profiles": [{"id": "d", "switches": [{"at": "00:00", "stage": 1}, {"at": "06:05", "stage": 2}]}],
        "seasons": [{"begins": "01-01", "weekdays": ["d"] * 7}], **changed,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"seasons": [{"begins": "01-01", "weekdays": ["e"] * 7}]}, "not defined: e"),
        ({"seasons": [{"begins": each, "weekdays": ["d"] * 7} for each in ("05-01", "01-01")]}, "ascending begins"),
        ({"special_days": [{"day": "12-24", "day_profile": "d"}] * 2}, "a day appears twice"),
        ({"day_profiles": [{"id": "d", "switches": [{"at": "01:00", "stage": 1}]}]}, "from 00:00"),
        ({"day_profiles": [{"id": "d", "switches": [{"at": "00:00", "stage": 21}]}]}, "stage"),
        ({"day_profiles": [{"id": "d", "switches": [{"at": "00:00", "stage": 1}]}] * 2}, "an id appears twice"),
    ],
)
def test_calendar_that_leaves_a_question_is_refused(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        read_json(TariffCalendar, json.dumps(calendar(**changed)).encode(), 10_000)


def test_stage_that_changes_between_registration_times_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="06:05 is no registration time"):
        read(at("processing.0.use_case", {"taf": 2, "calendar": calendar()}))


def test_prepaid_prices_are_read_by_stage() -> None:
    prepaid = {"taf": 12, "calendar": calendar(), "price_scaler": -5, "prices": {"1": 7, "2": 9}, "warning_credit": 1}
    read_prepaid = read_json(Prepaid, json.dumps(prepaid).encode(), 10_000)
    assert read_prepaid.prices == {1: 7, 2: 9}
    with pytest.raises(RemoteProtocolError, match="one for each stage"):
        read_json(Prepaid, json.dumps(prepaid | {"prices": {"1": 7}}).encode(), 10_000)


def test_billing_months_begin_at_local_midnight_and_never_overlap() -> None:
    months = BillingPeriod(begins=datetime(2026, 1, 15, tzinfo=LEGAL_TIME), months=1)
    starts = [datetime.fromtimestamp(months.start_s(index), LEGAL_TIME) for index in range(-2, 26)]
    assert [(each.month, each.day, each.hour) for each in starts] == [
        ((10 + index) % 12 + 1, 15, 0) for index in range(28)
    ]
    for index in range(-2, 26):
        assert months.index_at(months.start_s(index)) == index
        assert months.index_at(months.start_s(index) - 1) == index - 1


def test_billing_days_follow_the_wall_clock() -> None:
    days = BillingPeriod(begins=datetime(2026, 10, 24, tzinfo=LEGAL_TIME), days=1)
    lengths = [(days.start_s(index + 1) - days.start_s(index)) // 3_600 for index in range(3)]
    assert lengths == [24, 25, 24]
    assert days.index_at(days.start_s(1) + 25 * 3_600 - 1) == 1


def test_profile_is_valid_from_its_start_up_to_its_end() -> None:
    profile = read(at("meters.0.valid_to", "2026-02-01T00:00:00Z")).meters[0]
    moments = [datetime(2025, 12, 31, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)]
    assert [profile.is_valid_at(each) for each in moments] == [False, True, False]


def test_schema_names_every_use_case() -> None:
    names = json_schema()["$defs"]
    assert {"DataSparing", "TimeVariable", "HighFrequency", "MeterProfile", "ProxyProfile"} <= set(names)
