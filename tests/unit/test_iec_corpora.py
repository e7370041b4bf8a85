"""
The real telegrams of DSMR and IEC 62056-21 meters: how many readings, and each number against the line it came from.

The expectation is formed here in the plainest way, line by line with Decimal, so that it shares nothing with the
decoder; where dsmr-parser's decoding is recorded it must agree as well.
"""

import json
import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from node.lmn.iec62056_21.decode import decode_stream
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Quality, Reading
from protocol.metering.units import unit_symbol

pytestmark = pytest.mark.beside_repository
CORPORA = Path(__file__).parents[2] / "../shared/corpora"
FACTORS = {"kWh": 1000, "kW": 1000, "kvarh": 1000, "kVArh": 1000, "kvar": 1000, "kVAr": 1000, "MJ": 1_000_000}
SYMBOLS = {
    "kWh": "Wh",
    "kW": "W",
    "kVArh": "varh",
    "kVAr": "var",
    "kvarh": "varh",
    "kvar": "var",
    "m3": "m³",
    "MJ": "J",
}

# id: readings, check sum, errors.  The noise is the line of filler that this meter sends after its telegram.
EXPECTED = {
    "dsmr_parser/TELEGRAM_V5": (37, True, []),
    "dsmr_parser/TELEGRAM_V5_TWO_MBUS": (39, True, []),
    "dsmr_parser/TELEGRAM_ESY5Q3DB1024_V304": (9, False, ["noise"]),
    "dsmr_parser/TELEGRAM_SAGEMCOM_T210_D_R": (18, True, []),
    "DSMRParser.Net/formattest.txt": (7, True, []),
    "DSMRParser.Net/v2_2_ok.txt": (15, False, []),
    "DSMRParser.Net/v3_ok.txt": (16, False, []),
    "DSMRParser.Net/v5_ok.txt": (48, True, []),
    "amshan/EXAMPLE_DATA_B": (35, False, []),
    "amshan/EXAMPLE_DATA_C": (27, True, []),
    "amshan/EXAMPLE_DATA_D_LANDISGYR_360": (27, True, []),
    "amshan/EXAMPLE_DATA_KAMSTRUP": (27, True, []),
    "go-iec62056/enexis_t210d": (35, True, []),
    "go-iec62056/hager_ehz161wa": (15, False, []),
    "go-iec62056/iskra_am550t_1011": (35, True, []),
    "go-iec62056/iskra_mt382_1000_dsmr3": (16, False, []),
    "go-iec62056/iskra_mt382_1000_dsmr5": (37, True, []),
    "go-iec62056/iskra_mt382_1004": (16, False, []),
    "go-iec62056/kaifa_ma105": (36, True, []),
    "go-iec62056/landis_gir_zcf100": (23, True, []),
}
DEVICES = {
    "dsmr_parser/TELEGRAM_V5_TWO_MBUS": {"E0044007382246019", "E0044007382246019/1", "G0039001936990619"},
    "dsmr_parser/TELEGRAM_ESY5Q3DB1024_V304": {"1ESY1313002565"},
    "amshan/EXAMPLE_DATA_KAMSTRUP": {"KAM5"},
    "go-iec62056/hager_ehz161wa": {"0000067865"},
}
# dsmr-parser's names, by the address they stand for.
NAMES = {
    "ELECTRICITY_USED_TARIFF_1": "1-0:1.8.1", "ELECTRICITY_USED_TARIFF_2": "1-0:1.8.2",
    "ELECTRICITY_DELIVERED_TARIFF_1": "1-0:2.8.1", "ELECTRICITY_DELIVERED_TARIFF_2": "1-0:2.8.2",
    "ELECTRICITY_IMPORTED_TOTAL": "1-0:1.8.0", "ELECTRICITY_EXPORTED_TOTAL": "1-0:2.8.0",
    "CURRENT_ELECTRICITY_USAGE": "1-0:1.7.0", "CURRENT_ELECTRICITY_DELIVERY": "1-0:2.7.0",
    "INSTANTANEOUS_VOLTAGE_L1": "1-0:32.7.0", "INSTANTANEOUS_VOLTAGE_L2": "1-0:52.7.0",
    "INSTANTANEOUS_VOLTAGE_L3": "1-0:72.7.0", "INSTANTANEOUS_CURRENT_L1": "1-0:31.7.0",
    "INSTANTANEOUS_CURRENT_L2": "1-0:51.7.0", "INSTANTANEOUS_CURRENT_L3": "1-0:71.7.0",
    "INSTANTANEOUS_ACTIVE_POWER_L1_POSITIVE": "1-0:21.7.0", "INSTANTANEOUS_ACTIVE_POWER_L2_POSITIVE": "1-0:41.7.0",
    "INSTANTANEOUS_ACTIVE_POWER_L3_POSITIVE": "1-0:61.7.0", "SHORT_POWER_FAILURE_COUNT": "0-0:96.7.21",
    "LONG_POWER_FAILURE_COUNT": "0-0:96.7.9", "VOLTAGE_SAG_L3_COUNT": "1-0:72.32.0",
    "VOLTAGE_SWELL_L1_COUNT": "1-0:32.36.0",
}  # fmt: skip


def rows() -> list[dict[str, Any]]:
    files = [CORPORA / "dsmr/telegrams.jsonl", CORPORA / "iec62056_21/readouts.jsonl"]
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def decode(row: dict[str, Any]) -> tuple[list[Reading], list[RemoteProtocolError]]:
    items = list(decode_stream([bytes.fromhex(row["hex"])]))
    return (
        [item for item in items if isinstance(item, Reading)],
        [item for item in items if isinstance(item, RemoteProtocolError)],
    )


def address(reading: Reading) -> str:
    assert reading.obis is not None
    obis = reading.obis
    return f"{obis.a}-{obis.b}:{obis.c}.{obis.d}.{obis.e}" + ("" if obis.f == 255 else f"*{obis.f}")


def test_counts_check_sums_and_errors() -> None:
    found = {}
    for row in rows():
        readings, errors = decode(row)
        (quality,) = {reading.quality for reading in readings}
        found[row["id"]] = (len(readings), quality is Quality.VALID, [error.reason for error in errors])
    assert found == EXPECTED


def test_every_number_is_its_line_s() -> None:
    compared = 0
    for row in rows():
        numbers = {
            (address(r), r.decimal(), unit_symbol(r.unit)) for r in decode(row)[0] if r.unit is not None
        }  # fmt: skip
        for line in row["text"].splitlines():
            match = re.match(r"([0-9-]+:[0-9.]+)(?:\*255)?\(.*?\(?([+-]?[0-9.]+)\*(\w+)\)$", line)
            if match is None or "99.97" in line:
                continue
            value = Decimal(match[2]) * FACTORS.get(match[3], 1)
            assert (match[1], value, SYMBOLS.get(match[3], match[3])) in numbers, (row["id"], match[1])
            compared += 1
    assert compared == 290


def test_recorded_decodings_of_dsmr_parser() -> None:
    compared = 0
    for row in rows():
        readings = {address(r): r for r in decode(row)[0] if "log" not in r.record}
        for name, expected in (row["expected"] or {}).items():
            if name in NAMES:
                reading = readings[NAMES[name]]
                factor = FACTORS.get(expected["unit"], 1)
                assert reading.decimal() == Decimal(str(expected["value"])) * factor, (row["id"], name)
                compared += 1
            if name == "P1_MESSAGE_TIMESTAMP":
                stamp = datetime.fromisoformat(expected["value"])
                assert {r.measured_at for a, r in readings.items() if a.startswith("1-0")} == {stamp}
        for device in (row["expected"] or {}).get("MBUS_DEVICES", []):
            if "MBUS_METER_READING" in device:
                reading = readings[f"0-{device['CHANNEL_ID']}:24.2.1"]
                assert reading.decimal() == Decimal(str(device["MBUS_METER_READING"]["value"]))
                assert reading.measured_at == datetime.fromisoformat(device["MBUS_METER_READING"]["datetime"])
    assert compared == 44


def test_power_failure_log() -> None:
    (row,) = (row for row in rows() if row["id"].endswith("TWO_MBUS"))
    (event,) = (r for r in decode(row)[0] if "log" in r.record)
    assert (event.value, event.unit, event.measured_at) == (2014, 7, datetime.fromisoformat("2019-03-26T08:50:15Z"))


def test_devices() -> None:
    found = {row["id"]: {reading.device for reading in decode(row)[0]} for row in rows()}
    assert {name: found[name] for name in DEVICES} == DEVICES


def test_byte_by_byte_and_all_in_one_stream_are_the_same() -> None:
    data = b"".join(bytes.fromhex(row["hex"]) for row in rows())
    whole = list(decode_stream([data]))
    pieces = list(decode_stream(data[i : i + 1] for i in range(len(data))))
    assert [str(item) for item in whole] == [str(item) for item in pieces]
    assert sum(isinstance(item, Reading) for item in whole) == sum(count for count, _, _ in EXPECTED.values())


def test_a_flipped_bit_under_a_check_sum_gives_no_wrong_number() -> None:
    (row,) = (row for row in rows() if row["id"].endswith("TELEGRAM_SAGEMCOM_T210_D_R"))
    data = bytes.fromhex(row["hex"])
    right = {str(reading) for reading in decode(row)[0]}
    for index in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[index] ^= 0x01
        out = [item for item in decode_stream([bytes(damaged)]) if isinstance(item, Reading)]
        assert {str(reading) for reading in out} <= right
