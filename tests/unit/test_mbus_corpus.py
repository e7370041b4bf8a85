"""
The wired corpus: 57 frames of libmbus with its own decodings, and 24 wired telegrams of wmbusmeters (with the radio's).

Every number is compared in the expected unit; every difference is named here with its reason, and a new one fails.
"""

import json
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import pytest

from node.lmn.mbus.decode import decode_stream
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading
from protocol.metering.units import unit_symbol

CORPUS = Path(__file__).parents[2] / "../shared/corpora/mbus/libmbus.jsonl"
pytestmark = pytest.mark.beside_repository

SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}

# Frame -> the reason why no reading comes out, as ours names it.
ERRORS = {
    "error-frames/buffer_too_long": "application_error",
    "error-frames/error": "application_error",
    "error-frames/too_many_difes": "application_error",
    "error-frames/too_many_readouts": "application_error",
    "error-frames/unimplemented_ci": "application_error",
    "error-frames/unspecified_error": "application_error",
    "error-frames/premature_end_of_data2": "record_truncated",
    "error-frames/premature_end_of_dif2": "record_truncated",
    "error-frames/too_long_var_vif": "unit_text_too_long",
    "error-frames/too_many_dife": "too_many_dife",
    "error-frames/too_short_header": "header_truncated",
    "unsupported-frames/invalid_length": "length_field",
    "unsupported-frames/invalid_length2": "fixed_data_size",
    "unsupported-frames/manual_frame4": "wrong_direction",
    "unsupported-frames/manual_frame6": "wrong_direction",
}

# (frame, record) -> why ours differs from libmbus.
DIFFERENCES = {
    ("test-frames/ACW_Itron-BM-plus-m", 2): "a date of zeros is no day: None, octets kept; libmbus prints 2000-00-00",
    ("test-frames/itron_bm_+m", 2): "a date of zeros is no day: None, octets kept; libmbus prints 2000-00-00",
    ("test-frames/ELS_Elster-F96-Plus", 4): "BCD with letters is invalid; libmbus computes 13131113 from DDDDEBBD",
    ("test-frames/ELS_Elster-F96-Plus", 5): "BCD with letters is invalid; libmbus computes a number from it",
    ("test-frames/abb_f95", 2): "BCD with letters is invalid; libmbus computes a number from it",
    ("test-frames/abb_f95", 3): "BCD with letters is invalid; libmbus computes a number from it",
    ("test-frames/example_binary16_lvar", 0): "octets in wire order; libmbus prints the most significant first",
    ("test-frames/manual_frame2", 0): "the same: litres as 10^-3 m³; libmbus says 1 l",
    (
        "test-frames/manual_frame2",
        1,
    ): "'same unit but historic' takes the unit of counter 1; libmbus leaves 135 without",
}
# The last record of libmbus' list where the telegram ends with a bare DIF 1F.
MORE_FOLLOW = "More records follow"  # link control, not a record: the driver asks for the next telegram


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in CORPUS.read_text().splitlines()]


def equal(reading: Reading, expected: str) -> bool:
    if isinstance(reading.value, bytes):
        return reading.value.hex() == expected.replace(" ", "").lower()
    if isinstance(reading.value, str):
        return reading.value == expected.removesuffix("Z")
    if reading.value is None:
        return expected == ""
    number = reading.decimal()
    unit = "" if reading.unit is None else unit_symbol(reading.unit)
    number *= SECONDS.get(unit, 1)
    try:
        wanted = Decimal(expected)
    except InvalidOperation:
        return False
    return abs(number - wanted) <= Decimal("1e-6") or bool(number and abs(wanted / number - 1) < Decimal("1e-6"))


def test_every_frame_gives_readings_or_the_named_error() -> None:
    errors = {}
    for row in rows():
        out = list(decode_stream([bytes.fromhex(row["hex"])]))
        failed = [item.reason for item in out if isinstance(item, RemoteProtocolError)]
        assert bool(failed) != any(isinstance(item, Reading) for item in out), row["id"]
        if failed:
            errors[row["id"]] = failed[0]
    assert len(rows()) == 57
    assert errors == ERRORS


def test_every_value_equals_libmbus_or_is_explained() -> None:
    equal_count = more_follow_count = 0
    different = set()
    for row in rows():
        expected = (row.get("expected_normalized") or row.get("expected") or {}).get("records", [])
        out = [item for item in decode_stream([bytes.fromhex(row["hex"])]) if isinstance(item, Reading)]
        for index, record in enumerate(expected):
            if record["Function"] == MORE_FOLLOW and not record["Value"]:
                more_follow_count += 1
            elif index < len(out) and equal(out[index], record["Value"]):
                equal_count += 1
            else:
                different.add((row["id"], index))
        assert len(out) in (len(expected), len(expected) - 1) or not expected, row["id"]
    assert different == set(DIFFERENCES)
    assert (equal_count, more_follow_count) == (451, 5)


def test_the_devices_are_those_of_libmbus() -> None:
    for row in rows():
        slave = (row.get("expected") or {}).get("slave", {})
        out = [item for item in decode_stream([bytes.fromhex(row["hex"])]) if isinstance(item, Reading)]
        if out and slave.get("Manufacturer"):
            assert out[0].device[1:4] == slave["Manufacturer"]
            assert out[0].device[4:6] == f"{int(slave['Version']):02X}"
            assert int(out[0].device[6:]) == int(slave["Id"])


def test_bytes_one_by_one_give_the_same() -> None:
    stream = b"".join(bytes.fromhex(row["hex"]) for row in rows())
    whole = [repr(item) for item in decode_stream([stream])]
    single = [repr(item) for item in decode_stream(bytes([octet]) for octet in stream)]
    assert whole == single
    assert len(whole) > 400
