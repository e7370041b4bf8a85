"""Values of their own time at the market participant: checked, and in its export."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.emp.inbox import COLUMNS, _check, _rows
from protocol.cosem.delivery import Delivery, Detail, PeriodResult
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis

VOLTAGE = Obis(1, 0, 32, 7, 0, 255)
DETAIL = Detail("high", "event", VOLTAGE, -1, 35, 1_500, 1_500, 2_531)
RESULT = PeriodResult(
    "p", 10, "", VOLTAGE, 0, 35, 60, 0, 60, is_complete=True, is_billable=False, details=(DETAIL,)
)  # fmt: skip


def test_a_detail_is_exported_with_its_own_unit_and_time() -> None:
    (row,) = _rows(Delivery("ab" * 16, "estk0100000001.sm", RESULT))
    shown = dict(zip(COLUMNS, map(str, row), strict=True))
    assert (shown["kind"], shown["obis"], shown["value"], shown["unit"]) == ("high", str(VOLTAGE), "253.1", "V")
    assert (shown["time"], shown["until"], shown["subject"]) == (*["1970-01-01T00:00:01.500Z"] * 2, "event")
    _check(RESULT)


@pytest.mark.parametrize(
    "changed",
    [
        {"what": "=cmd()"}, {"what": ""}, {"subject": "a b"}, {"scaler": 2**40}, {"at_ms": -1}, {"until_ms": 2**62},
        {"until_ms": 1_499},
    ],
    ids=str,
)  # fmt: skip
def test_a_detail_that_no_gateway_sends_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError, match=r"detail|scaler"):
        _check(replace(RESULT, details=(replace(DETAIL, **changed),)))  # type: ignore[arg-type]


def test_a_scaler_that_would_print_without_end_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="scaler"):
        _check(replace(RESULT, scaler=999_999))
