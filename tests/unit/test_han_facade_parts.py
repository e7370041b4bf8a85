"""Parts of the interfaces of other gateways: times of forms, sessions, decimal numbers, signed texts."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from node.han.consumption import at_scaler
from node.han.digest import IDLE_S, SESSIONS_MAX
from node.han.facades.facade import counters, decimal_of, energy_first, number_of
from node.han.facades.ppc_sessions import PpcSessions
from node.han.facades.ppc_times import span_of
from node.han.models import RegisterValue
from node.han.signing import ValueSigner, text_of_value
from protocol.errors import RemoteProtocolError


def value(mantissa: str, scaler: int = -1, unit: str | None = "Wh", obis: str = "1-0:1.8.0*255") -> RegisterValue:
    at = datetime(2026, 11, 30, 12, tzinfo=UTC)
    return RegisterValue(
        obis=obis, value=mantissa, scaler=scaler, unit=unit, measured_at=at, registered_for=at, is_on_time=True,
        quality="valid", status=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("17", 17), (17, 17), ("", None), ("-1", None), (None, None), ("9" * 5000, None)]
)
def test_a_number_of_thousands_of_digits_is_none(text: object, number: int | None) -> None:
    assert number_of(text) == number


@pytest.mark.parametrize(
    ("begin", "end", "first", "last"),
    [
        ("2026-11-30 00:00:00", "2026-11-30 01:00:00", "2026-11-29T23:00:00Z", "2026-11-30T00:00:00Z"),
        ("2026-11-30", "2026-11-30", "2026-11-29T23:00:00Z", "2026-11-30T22:59:59Z"),
        ("2026-10-25 02:30:00", "2026-10-25 02:30:00", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"),  # comes twice
        ("2026-03-29", "2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T21:59:59Z"),  # 23 hours
    ],
)
def test_spans_are_of_legal_time_with_both_ends(begin: str, end: str, first: str, last: str) -> None:
    expected = tuple(int(datetime.fromisoformat(each).timestamp()) for each in (first, last))
    from_s, to_s = span_of({"from": begin, "to": end})
    assert (from_s, (to_s or 0) - 1) == expected


def test_a_span_without_ends_is_open_and_a_wrong_time_named() -> None:
    assert span_of({}) == span_of({"from": "", "to": ""}) == (None, None)
    for text in ("yesterday", "2026-11-30T00:00:00+01:00", "0001-01-01", "2026-13-01", "9999-12-31"):
        with pytest.raises(RemoteProtocolError, match="from, to"):
            span_of({"from": text})


def test_energy_is_exact_in_kwh_and_other_units_stay() -> None:
    assert decimal_of(value("1009600")) == ("100.9600", "kWh")
    assert decimal_of(value("7", 3)) == ("7", "kWh")
    assert decimal_of(value("-123456789012345678", -3)) == ("-123456789012.345678", "kWh")
    assert decimal_of(value("2301", -1, "V")) == ("230.1", "V")
    assert decimal_of(value("5", 0, None)) == ("5", "")


def test_digits_behind_a_scaler_are_cut_off_and_none_is_added() -> None:
    assert [at_scaler(value("1234567", scaler), -1).value for scaler in (-4, -1, 0, 2)] == [
        "1234", "1234567", "12345670", "1234567000",
    ]  # fmt: skip


def test_total_active_energy_comes_before_all_other_registers() -> None:
    codes = ["1-0:1.7.0*255", "1-0:1.8.0*255", "1-0:1.8.1*255", "1-0:2.8.0*255", "1-0:16.7.0*255"]
    order = [each.obis for each in energy_first(value("1", obis=code) for code in codes)]
    assert order == [codes[1], codes[3], codes[0], codes[2], codes[4]]
    assert [str(each) for each in counters(codes)] == [codes[1], codes[3], codes[2]]


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_session_is_its_users_and_ends_idle_or_crowded_out() -> None:
    clock = Clock()
    sessions = PpcSessions(random.Random(1).randbytes, clock)
    first = sessions.begin("anna")
    assert sessions.find("anna", f"a=b; session={first.cookie}; secure") is first
    assert sessions.find("anna", f"Cookie={first.cookie}") is first
    assert sessions.find("ben", f"session={first.cookie}") is None
    assert sessions.find("anna", "session=") is None
    clock.now_s += IDLE_S - 1
    assert sessions.find("anna", f"session={first.cookie}") is first
    clock.now_s += IDLE_S + 1
    assert sessions.find("anna", f"session={first.cookie}") is None
    later = [sessions.begin("anna") for _ in range(SESSIONS_MAX + 1)]
    found = [sessions.find("anna", f"session={each.cookie}") is each for each in later]
    assert found == [False] + [True] * SESSIONS_MAX
    sessions.end("anna", later[-1])
    assert sessions.find("anna", f"session={later[-1].cookie}") is None


class Module:
    """Counts what it signs."""

    certificate = b"certificate"

    def __init__(self) -> None:
        self.signed: list[bytes] = []

    def sign(self, text: bytes) -> bytes:
        self.signed.append(text)
        return len(self.signed).to_bytes(2, "big")


def test_a_value_is_signed_once_and_again_under_a_new_certificate() -> None:
    module = Module()
    signer = ValueSigner(module)
    assert signer.sign("m1", value("1")) == signer.sign("m1", value("1"))
    assert signer.sign("m2", value("1")) != signer.sign("m1", value("1"))
    assert len(module.signed) == 2
    module.certificate = b"renewed"
    signer.sign("m1", value("1"))
    assert len(module.signed) == 3


def test_each_part_of_a_value_changes_what_is_signed() -> None:
    plain = value("1")
    changes: list[dict[str, object]] = [
        {"obis": "1-0:2.8.0*255"}, {"value": "2"}, {"scaler": 0}, {"unit": None}, {"status": "08"},
        {"quality": "unverified"}, {"is_on_time": False}, {"registered_for": None},
        {"measured_at": datetime(2026, 11, 30, 12, 15, tzinfo=UTC)},
    ]  # fmt: skip
    texts = {text_of_value("m1", plain.model_copy(update=each)) for each in [{}, *changes]}
    assert len(texts | {text_of_value("m2", plain)}) == len(changes) + 2
    assert text_of_value("m1", plain) == (
        "stromkreis register value 1;0100010800ff.m1.sm;2026-11-30T12:00:00.000+00:00;2026-11-30T12:00:00.000+00:00;"
        "1;-1;Wh;valid;"
    )
