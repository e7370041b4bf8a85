"""
The wireless corpus: 251 telegrams with wmbusmeters' decodings (24 of them wired) and 4 vectors of OMS.

wmbusmeters' names are its own, so every expected number is looked for among our readings in its unit, every date among
our dates.  What is not found is explained by row, and a new difference fails.  Several rows need its knowledge of one
meter (formats of the manufacturer, sums, dates that it counts back): those are named, not guessed.
"""

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from node.lmn.mbus.decode import decode_stream as decode_wired
from node.lmn.mbus.keys import KEY_SIZE, KeyStore
from node.lmn.wmbus.decode import decode_stream
from node.lmn.wmbus.link import Format, guess_format, seal, strip
from node.lmn.wmbus.receiver import Receiver
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Quality, Reading
from protocol.metering.units import unit_symbol

FOLDER = Path(__file__).parents[2] / "../shared/corpora/wmbus"
pytestmark = pytest.mark.beside_repository

HOUR_OF_JOULE = Decimal(1) / 3_600_000
# Suffix of a field's name -> our unit symbols and the factor to the field's unit.
UNITS = {
    "kwh": {"Wh": Decimal("0.001"), "J": HOUR_OF_JOULE},
    "kw": {"W": Decimal("0.001"), "J/h": HOUR_OF_JOULE},
    "kvarh": {"varh": Decimal("0.001")},
    "kvar": {"var": Decimal("0.001")},
    "kva": {"VA": Decimal("0.001")},
    "m3": {"m³": Decimal(1)},
    "m3h": {"m³/h": Decimal(1), "m³/min": Decimal(60), "m³/s": Decimal(3600)},
    "c": {"°C": Decimal(1), "K": Decimal(1)},
    "v": {"V": Decimal(1)},
    "a": {"A": Decimal(1)},
    "hz": {"Hz": Decimal(1)},
    "hca": {"1": Decimal(1)},
    "s": {"s": Decimal(1), "min": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)},
    "h": {"h": Decimal(1), "d": Decimal(24), "min": 1 / Decimal(60), "s": 1 / Decimal(3600)},
    "y": {"a": Decimal(1), "mo": 1 / Decimal(12), "d": 1 / Decimal("365.2425")},
    "rh": {"%": Decimal(1)},
    "bar": {"bar": Decimal(1)},
    "dbm": {"dBm": Decimal(1)},
    "months": {"mo": Decimal(1)},
}

MANUFACTURER = "the maker's own format, for which no table is shipped; kept raw"
NO_VALUE_YET = "a month before the meter was there (8000), which wmbusmeters prints as a number"
TENS = "monthly volumes count ten litres, as their sums show (formats/qundis-walk-by.toml); wmbusmeters takes litres"
OWN_RECORDS = "some values stand in manufacturer data or under manufacturer VIFs; ours are there without a unit, or raw"
COUNTED_BACK = "the driver counts dates back from one date; no telegram says which way its storages go"
INVALID_VALUE = "the meter marks the value invalid (80..00); wmbusmeters prints the bit pattern as a number"
INVALID_DATE = "the date is marked invalid or is no day; wmbusmeters prints what its calendar makes of it"
MODIFIED = "a VIFE changes the meaning (duration of a limit exceed, per month), which wmbusmeters overlooks"
COMPUTED = "a sum of other fields"
DIFFERENCES = (
    {"rfmtx1-1": MANUFACTURER}
    | dict.fromkeys(("qheatv2-2", "qheatv2-4"), NO_VALUE_YET)
    | dict.fromkeys(("qwaterv2-2", "qwaterv2-8"), TENS)
    | {f"hydrodigit-{n}": OWN_RECORDS for n in (1, 2, 3, 4, 5, 6)}
    | {f"gwfwater-{n}": OWN_RECORDS for n in (1, 2)}
    | {f"iem3000-{n}": OWN_RECORDS for n in range(1, 14)}
    | {"t1-sim26": OWN_RECORDS}
    | {f"evo868-{n}": COUNTED_BACK for n in (1, 2)}
    | {f"waterstarm-{n}": COUNTED_BACK for n in (5, 6, 7, 8)}
    | {"microclima-2": COUNTED_BACK, "ebzwmbe-1": COMPUTED}
    | {"c5isf-1": INVALID_VALUE, "emerlin868-2": INVALID_VALUE, "emerlin868-1": INVALID_DATE}
    | dict.fromkeys(("gwfgas-1", "istaheat-1", "kamheat-18", "relhca-1", "sensostar-1"), INVALID_DATE)
    | {"werhlemodwm-1": INVALID_DATE, "t1-sim3": INVALID_DATE}
    | {f"c5isf-{n}": MODIFIED for n in (2, 3)}
    | {f"qwaterv2-{n}": MODIFIED for n in (1, 5, 6, 7)}
)  # fmt: skip

# Makers' formats -> the telegrams of the corpus in it whose expected values all come out.
MAKERS_FORMATS = {
    "apator-162": {"apas-sim12"},
    "apator-172": {"apator172-1", "apator172-2"},
    "apator-eitn-30": {"apatoreitn-1"},
    "apator-eitn-30-long": {"apatoreitn-2", "apatoreitn-3"},
    "diehl-prios": {f"izarv2-{n}" for n in range(1, 7)},
    "diehl-real-data": {"hydrus-4", "hydrus-5", "sharky-1"},
    "qundis-walk-by": {"qcaloric-2", "qcaloric-5", "qheat-cc4", "qheatv2-5"},
    "techem-hca-69": {"fhkvdataiii-1", "fhkvdataiii-3"},
    "techem-hca-94": {"fhkvdataiii-2"},
    "techem-heat-compact-5": {f"compact5-{n}" for n in range(1, 5)},
    "techem-water-3": {f"mkradio3-{n}" for n in range(1, 5)},
    "techem-water-4": {"mkradio4-1"},
}

# Row -> reason why no reading comes out.
ERRORS = (
    {
        "actislink-1": "security_mode_unsupported",  # DES, withdrawn from the standard; the source doubts the telegram
        "hydrus-3": "no_key",  # wmbusmeters tries the manufacturer's published default key
        "bad_keys-sim1": "no_key",
        "t1-sim13": "no_key",
        "t1-sim53": "no_key",
        "real-air-20210116": "no_key",
        "qwaterv2-4": "not_hexadecimal",  # an odd number of digits in the recording
        "log_test-sim5": "length_field",  # three octets more than the length field says
        "engelmann_faw-2": "compact_format_unknown",  # decrypted; its full telegram is not in the corpus
        "kampress-2": "compact_format_unknown",
        "omnipower-2": "compact_format_unknown",
    }
    | {f"kamheat-{n}": "compact_format_unknown" for n in (20, 22, 24, 26, 28)}
    | {f"apas-sim{n}": "datagram_truncated" for n in (2, 4, 6, 7, 8, 10, 11)}  # cut at a mark in the source
    | {f"izars-sim{n}": "datagram_truncated" for n in (1, 5)}
    | {f"{name}-sim1": "datagram_truncated" for name in ("broken", "duplicates", "metershell")}
)  # fmt: skip


def rows(name: str = "telegrams") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text().splitlines()]


def key_of(row: dict[str, Any]) -> bytes | None:
    key = bytes.fromhex(row["key"]) if row.get("key") else None
    return key if key and len(key) == KEY_SIZE else None


def decoded(row: dict[str, Any]) -> list[Reading | RemoteProtocolError]:
    if row["protocol"] == "mbus-wired":
        return list(decode_wired([bytes.fromhex(row["hex"])]))
    lines = row.get("hex_sequence") or [row.get("hex_with_dll_crc") or row["hex"]]
    return list(decode_stream(["\n".join(lines).encode()], key_of(row)))


def has_number(readings: list[Reading], field: str, expected: float) -> bool:
    units = UNITS.get(field.rsplit("_", 1)[-1])
    wanted = Decimal(str(expected))
    for reading in readings:
        if not isinstance(reading.value, int):
            continue
        symbol = "" if reading.unit is None else unit_symbol(reading.unit)
        factor = Decimal(1) if units is None else units.get(symbol)
        if factor is not None:
            difference = abs(reading.decimal() * factor - wanted)
            if difference <= Decimal("1e-6") or (wanted and difference / abs(wanted) < Decimal("1e-6")):
                return True
    return False


def has_date(readings: list[Reading], expected: str) -> bool:
    wanted = expected.replace(" ", "T").removesuffix("Z")
    dates = [r.value for r in readings if isinstance(r.value, str)] + [r.record.get("meter_time", "") for r in readings]
    return any(text and (text.startswith(wanted) or wanted.startswith(text)) for text in dates if len(text) >= 10)


def missing(row: dict[str, Any], readings: list[Reading]) -> tuple[int, list[str]]:
    """How many expected numbers and dates were found, and the names of those that were not."""
    found, lost = 0, []
    for field, expected in (row.get("expected") or {}).items():
        if field in ("_", "media", "meter", "name", "id", "timestamp", "status"):
            continue
        if isinstance(expected, int | float) and not isinstance(expected, bool):
            ok = has_number(readings, field, expected)
        elif isinstance(expected, str) and re.match(r"\d{4}-\d\d-\d\d", expected):
            ok = has_date(readings, expected)
        else:
            continue
        found += ok
        if not ok:
            lost.append(field)
    return found, lost


def test_every_telegram_gives_readings_or_the_named_error() -> None:
    errors = {}
    for row in [*rows(), *rows("oms_vectors")]:
        out = decoded(row)
        failed = [item.reason for item in out if isinstance(item, RemoteProtocolError)]
        assert bool(failed) != any(isinstance(item, Reading) for item in out), row["id"]
        if failed:
            errors[row["id"]] = failed[0]
    assert (len(rows()), len(rows("oms_vectors"))) == (251, 4)
    assert errors == ERRORS


def test_every_number_and_date_equals_wmbusmeters_or_is_explained() -> None:
    found_count, different = 0, {}
    for row in rows():
        if row["id"] in ERRORS:
            continue
        found, lost = missing(row, [item for item in decoded(row) if isinstance(item, Reading)])
        found_count += found
        if lost:
            different[row["id"]] = lost
    assert set(different) == set(DIFFERENCES)
    assert found_count == 1702
    assert sum(map(len, different.values())) == 260


def test_makers_formats_of_the_corpus_equal_the_expectations() -> None:
    equal: dict[str, set[str]] = {}
    for row in rows():
        readings = [item for item in decoded(row) if isinstance(item, Reading)]
        named = {reading.record["format"] for reading in readings if "format" in reading.record}
        assert not any("format" in each.record and each.quality is Quality.VALID for each in readings)
        if named and row["id"] not in DIFFERENCES:
            found, lost = missing(row, readings)
            assert found
            assert not lost
            equal.setdefault(named.pop(), set()).add(row["id"])
    assert equal == MAKERS_FORMATS
    assert len(equal) >= 10


def test_monthly_volumes_of_qundis_add_up_to_the_counter_in_tens() -> None:
    """Why they are not litres: 12 months from the start are the whole counter, and those of a year its difference."""
    by_id = {row["id"]: row for row in rows()}
    readings = [item for item in decoded(by_id["qwaterv2-2"]) if isinstance(item, Reading)]
    months = [each for each in readings if "month" in each.record]
    assert {each.record["month"] for each in months} == {"2021-03", *(f"2021-{n:02}" for n in range(4, 13)), "2022-01"}
    assert sum(each.decimal() for each in months) == Decimal("2.02")
    readings = [item for item in decoded(by_id["qwaterv2-8"]) if isinstance(item, Reading)]
    since = sum(each.decimal() for each in readings if each.record.get("month", "") >= "2023")
    assert abs(since - (Decimal("138.163") - Decimal("127.382"))) < Decimal("0.01")


def test_compact_frames_decode_once_their_full_telegrams_were_heard() -> None:
    receiver = Receiver(KeyStore(), accept_decrypted=True, check_counters=False)
    late = {}
    for row in rows():
        datagrams = row.get("hex_sequence") or [row["hex"]]
        for text in datagrams if row["protocol"] == "wmbus" and not row.get("key") else []:
            try:
                octets = bytes.fromhex(text)
                readings = receiver.decode(strip(octets, guess_format(octets)))
            except (RemoteProtocolError, ValueError):
                continue
            if ERRORS.get(row["id"]) == "compact_format_unknown":
                late[row["id"]] = missing(row, readings)[1]
    assert late == {f"kamheat-{n}": [] for n in (20, 22, 24, 26, 28)} | {"kampress-2": [], "omnipower-2": []}


# The expected number stands inside the proprietary walk-by data.
OTHER_NUMBER = {"qheat-cc4"}


def test_the_devices_are_those_of_wmbusmeters() -> None:
    different = set()
    for row in rows():
        readings = [item for item in decoded(row) if isinstance(item, Reading)]
        number = (row.get("expected") or {}).get("id", "")
        if readings and re.fullmatch(r"[0-9a-fA-F]{8}", number):
            link = str(readings[0].record.get("link_device", ""))
            if number.upper() not in (readings[0].device[6:], link[6:]):
                different.add(row["id"])
    assert different == OTHER_NUMBER


def test_the_vectors_of_oms() -> None:
    by_id = {row["id"]: row for row in rows("oms_vectors")}
    gas = [r for r in decoded(by_id["oms-mode5-profileA"]) if isinstance(r, Reading)]
    assert gas[0].device[:4] == "7ELS"
    assert gas[0].device[6:] == "12345678"
    assert (str(gas[0].obis), gas[0].decimal(), gas[0].unit) == ("7-0:3.0.0*255", Decimal("28504.27"), 13)
    partial = [r for r in decoded(by_id["oms-mode5-partial"]) if isinstance(r, Reading)]
    assert partial[0].device == "4QDS5555667788"
    assert partial[0].record["link_device"] == "FQDS5511223344"
    assert (partial[0].value, str(partial[0].obis)) == (1234, "4-0:1.0.0*255")
    assert partial[-1].value == 12345678  # stands in the clear after the encrypted block
    water = [r for r in decoded(by_id["oms-frame-format-B"]) if isinstance(r, Reading)]
    assert (water[0].decimal(), str(water[0].obis)) == (Decimal("876.543"), "8-0:1.0.0*255")
    air = by_id["real-air-20210116"]
    octets = bytes.fromhex(air["hex_with_dll_crc"])
    assert guess_format(octets) is Format.A
    assert strip(octets, Format.A).hex() == air["expected"]["dll_stripped"]
    assert seal(strip(octets, Format.A), Format.A) == octets[: len(seal(strip(octets, Format.A), Format.A))]
