"""dsmr-parser, written by others, reads our simulated P1 meter, and agrees with our decoding of the real telegrams."""

import json
import os
import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import trio
import trio.testing

from loadtest.config import MetersConfig
from loadtest.households import households
from loadtest.meters.clock import SimulatedClock
from loadtest.meters.p1 import P1Settings, telegram
from loadtest.meters.servers import speaker
from node.lmn.p1.decode import decode_stream
from node.lmn.timestamps import localized
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading
from protocol.metering.units import CUBIC_METRE, WATT, WATT_HOUR, unit_symbol

CORPORA = Path(__file__).parents[2] / "../shared/corpora"
PEER = Path(os.environ.get("STROMKREIS_PEERS_P1", Path(__file__).parents[2] / ".venv-peers-p1/bin/python"))
pytestmark = pytest.mark.skipif(
    not PEER.exists() and "CI" not in os.environ, reason="no .venv-peers-p1 with dsmr-parser (STROMKREIS_PEERS_P1)"
)

# Reads {"spec": ..., "text": ...} per line; answers with [address, stamp, value, unit] for each line it understands.
PROGRAM = """
import json, logging, sys
logging.disable(logging.CRITICAL)
from dsmr_parser import telegram_specifications as specs
from dsmr_parser.objects import CosemObject, MBusObject
from dsmr_parser.parsers import TelegramParser
for line in sys.stdin:
    job = json.loads(line)
    spec = getattr(specs, job["spec"])
    parser = TelegramParser(spec)
    rows, error = [], None
    try:
        parser.parse(job["text"])
    except Exception as problem:
        error = type(problem).__name__
    for item in spec["objects"]:
        for match in parser.telegram_specification_regexes[item["obis_reference"]].findall(job["text"]):
            try:
                found = item["value_parser"].parse(match)
            except Exception:
                continue
            if type(found) in (CosemObject, MBusObject):
                when = found.datetime.isoformat() if isinstance(found, MBusObject) and found.datetime else None
                value = found.value.isoformat() if hasattr(found.value, "isoformat") else found.value
                rows.append([match.split("(")[0], when, None if value is None else str(value), found.unit])
    print(json.dumps({"error": error, "rows": rows}))
"""

SPECIFICATIONS = {
    "dsmr_parser/TELEGRAM_V5": "V5",
    "dsmr_parser/TELEGRAM_V5_TWO_MBUS": "V5",
    "dsmr_parser/TELEGRAM_ESY5Q3DB1024_V304": "Q3D",
    "dsmr_parser/TELEGRAM_SAGEMCOM_T210_D_R": "SAGEMCOM_T210_D_R",
    "DSMRParser.Net/formattest.txt": "V5",
    "DSMRParser.Net/v2_2_ok.txt": "V2_2",
    "DSMRParser.Net/v3_ok.txt": "V3",
    "DSMRParser.Net/v5_ok.txt": "V5",
    "amshan/EXAMPLE_DATA_B": "V4",
    "amshan/EXAMPLE_DATA_C": "SWEDEN",
    "amshan/EXAMPLE_DATA_D_LANDISGYR_360": "SWEDEN",
    "amshan/EXAMPLE_DATA_KAMSTRUP": "SWEDEN",
    "go-iec62056/enexis_t210d": "V5",
    "go-iec62056/hager_ehz161wa": "Q3D",
    "go-iec62056/iskra_am550t_1011": "V5",
    "go-iec62056/iskra_mt382_1000_dsmr3": "V3",
    "go-iec62056/iskra_mt382_1000_dsmr5": "V5",
    "go-iec62056/iskra_mt382_1004": "V3",
    "go-iec62056/kaifa_ma105": "V4",
    "go-iec62056/landis_gir_zcf100": "V4",
}
# The peer takes the stamp as Dutch legal time and does not look at its S or W; where the letter contradicts the
# calendar (made-up telegrams; Nordic meters, which stay on standard time) the meter's word counts here.
LETTER_AGAINST_CALENDAR = {
    "DSMRParser.Net/formattest.txt": ["0-1:24.2.1 time"],
    "DSMRParser.Net/v5_ok.txt": ["0-2:24.2.1 time", "0-4:24.2.1 time"],
    "amshan/EXAMPLE_DATA_C": ["0-0:1.0.0 clock"],
    "amshan/EXAMPLE_DATA_KAMSTRUP": ["0-0:1.0.0 clock"],
}
NETHERLANDS = ZoneInfo("Europe/Amsterdam")
WINTER = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
FACTORS = {"kWh": 1000, "kW": 1000, "kvarh": 1000, "kVArh": 1000, "kvar": 1000, "kVAr": 1000, "MJ": 1_000_000}


def ask_peer(jobs: list[dict[str, str]]) -> list[dict[str, Any]]:
    lines = "".join(json.dumps(job) + "\n" for job in jobs)
    command = [str(PEER), "-c", PROGRAM]
    run = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=120, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def ours(data: bytes) -> tuple[dict[str, Reading], list[RemoteProtocolError]]:
    items = list(decode_stream([data]))
    by_address = {}
    for r in items:
        if isinstance(r, Reading) and r.obis is not None and "log" not in r.record:
            address = r.record.get("profile") or f"{r.obis.a}-{r.obis.b}:{r.obis.c}.{r.obis.d}.{r.obis.e}"
            by_address[address] = localized(r, NETHERLANDS)  # as the peer takes stamps without S or W
    return by_address, [item for item in items if isinstance(item, RemoteProtocolError)]


def difference(row: list[Any], reading: Reading | None) -> str | None:
    """Why a line of the peer is not ours, or None where they agree."""
    address, stamp, value, unit = row
    if reading is None:
        return f"{address} missing"
    if stamp is not None and "stamp" not in reading.record and reading.measured_at != datetime.fromisoformat(stamp):
        return f"{address} time"
    if value is None:
        return None if reading.value is None else f"{address} not empty"
    if unit is not None:
        symbol = unit_symbol(reading.unit) if reading.unit is not None else None
        base = unit.replace("m3", "m³").replace("VAr", "var").removeprefix("k").replace("MJ", "J")
        same = reading.decimal() == Decimal(value) * FACTORS.get(unit, 1) and symbol == base
        return None if same else f"{address} value"
    if isinstance(reading.value, int):
        return None if reading.decimal() == Decimal(value) else f"{address} number"
    if reading.measured_at is not None and "T" in value:
        return None if reading.measured_at == datetime.fromisoformat(value) else f"{address} clock"
    text = str(reading.value)
    same = text == value or (text.isdecimal() and value.isdecimal() and int(text) == int(value))
    return None if same else f"{address} text"


@pytest.mark.beside_repository
def test_the_peer_agrees_on_every_real_telegram() -> None:
    files = [CORPORA / "dsmr/telegrams.jsonl", CORPORA / "iec62056_21/readouts.jsonl"]
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    answers = ask_peer([{"spec": SPECIFICATIONS[row["id"]], "text": row["text"]} for row in rows])
    compared = 0
    differences: dict[str, list[str]] = {}
    for row, answer in zip(rows, answers, strict=True):
        readings, _ = ours(bytes.fromhex(row["hex"]))
        for line in answer["rows"]:
            compared += 1
            address = line[0].removesuffix("*255")
            if (why := difference([address, *line[1:]], readings.get(address))) is not None:
                differences.setdefault(row["id"], []).append(why)
    assert compared > 400
    assert differences == LETTER_AGAINST_CALENDAR


@pytest.mark.parametrize("gas_id", ["", "G0039001936990619"])
def test_the_peer_reads_our_simulated_meter(gas_id: str) -> None:
    registers = [
        (Obis(1, 0, 1, 8, 1, 255), 1234567, 0, WATT_HOUR),
        (Obis(1, 0, 2, 8, 1, 255), 987654321, -3, WATT_HOUR),
        (Obis(1, 0, 1, 7, 0, 255), 4567, -1, WATT),
        (Obis(7, 0, 3, 0, 0, 255), 246138, -3, CUBIC_METRE),
    ]
    data = telegram(P1Settings("E0044007382246019", gas_id), registers if gas_id else registers[:3], WINTER)
    (answer,) = ask_peer([{"spec": "V5", "text": data.decode()}])
    assert answer["error"] is None
    found = {address: (stamp, value, unit) for address, stamp, value, unit in answer["rows"]}
    assert found["1-0:1.8.1"] == (None, "1234.567", "kWh")
    assert found["1-0:2.8.1"] == (None, "987.654", "kWh")
    assert found["1-0:1.7.0"] == (None, "0.456", "kW")
    assert found["0-0:96.1.1"][1] == b"E0044007382246019".hex().upper()
    readings, errors = ours(data)
    assert not errors
    assert [why for a in found if (why := difference([a, *found[a]], readings.get(a)))] == []
    assert {r.quality for r in readings.values()} == {Quality.VALID}
    if gas_id:
        assert found["0-1:24.2.1"][1:] == ("246.138", "m3")
        assert readings["0-1:24.2.1"].device == gas_id


def test_the_peer_refuses_the_damaged_telegram_that_we_refuse() -> None:
    data = telegram(P1Settings("E0044007382246019"), [(Obis(1, 0, 1, 8, 1, 255), 1234567, 0, WATT_HOUR)], WINTER)
    damaged = data.replace(b"1234.567", b"1234.568")
    assert damaged != data
    (answer,) = ask_peer([{"spec": "V5", "text": damaged.decode()}])
    assert answer["error"] == "InvalidChecksumError"
    readings, errors = ours(damaged)
    assert readings == {}
    assert [error.reason for error in errors] == ["bad_checksum"]


ENCRYPTED = """
import json, sys
from dlms_cosem.security import SecurityControlField, encrypt
from dsmr_parser import telegram_specifications as specs
from dsmr_parser.parsers import TelegramParser
job = json.loads(sys.stdin.read())
key, authentication = bytes.fromhex(job["key"]), bytes.fromhex(specs.MSN["authentication_key"])
telegram = TelegramParser(specs.MSN).parse(job["sealed"], job["key"], authentication.hex())
control = SecurityControlField(security_suite=0, authenticated=True, encrypted=True)
title = b"SAG\\x00\\x00\\x00\\x00\\x07"
text = encrypt(control, title, 7, key, job["plain"].encode("latin-1"), authentication)
text = control.to_bytes() + (7).to_bytes(4, "big") + text
# GeneralGlobalCipher.to_bytes writes lengths of one byte only; meters write 82 and two.
whole = b"\\xdb\\x08" + title + b"\\x82" + len(text).to_bytes(2, "big") + text
names = ("ELECTRICITY_IMPORTED_TOTAL", "ELECTRICITY_EXPORTED_TOTAL", "CURRENT_ELECTRICITY_USAGE")
rows = [[str(getattr(telegram, name).value), getattr(telegram, name).unit] for name in names]
print(json.dumps({"rows": rows, "sealed": whole.hex()}))
"""


async def test_the_peer_opens_our_encrypted_meter_and_we_what_it_ciphers() -> None:
    """The meter that `stromkreis meters --protocol p1-encrypted` is, off its line."""
    (home,) = households(MetersConfig(count=1, protocols=("p1-encrypted",)))
    meter = speaker("p1-encrypted", home, SimulatedClock(0.0, 0.1), seed=1, serial=False)
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(meter.serve, theirs)
        sealed = bytes(await ours.receive_some())
        nursery.cancel_scope.cancel()
    key = meter.keys["encryption"]
    plain = telegram(P1Settings("E0044007382246019"), [(Obis(1, 0, 1, 8, 0, 255), 1234567, 0, WATT_HOUR)], WINTER)
    told = json.dumps({"key": key, "sealed": sealed.hex(), "plain": plain.decode()})
    run = await trio.run_process(
        [str(PEER), "-c", ENCRYPTED], stdin=told.encode(), capture_stdout=True, capture_stderr=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    answer = json.loads(run.stdout)
    read = {str(r.obis): r for r in decode_stream([sealed], bytes.fromhex(key)) if isinstance(r, Reading)}
    kilo = [read[f"1-0:{code}*255"].decimal() / 1000 for code in ("1.8.0", "2.8.0", "1.7.0")]
    assert [[Decimal(value), unit] for value, unit in answer["rows"]] == [
        [value, unit] for value, unit in zip(kilo, ("kWh", "kWh", "kW"), strict=True)
    ]
    assert kilo[0] > 0
    back = decode_stream([bytes.fromhex(answer["sealed"])], bytes.fromhex(key))
    (energy,) = (r for r in back if isinstance(r, Reading) and r.obis == Obis(1, 0, 1, 8, 0, 255))
    assert (energy.decimal(), energy.unit, energy.quality) == (Decimal(1234567), WATT_HOUR, Quality.VALID)
