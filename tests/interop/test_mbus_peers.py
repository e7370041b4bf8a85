"""
Software that nobody here wrote must agree: pyMeterBus on wired frames and as master, rtl_433 on wireless datagrams.

pyMeterBus lives in an environment of its own: STROMKREIS_PEERS_MBUS names its Python, or .venv-peers-mbus.  rtl_433 is
Debian's; its decoders take bits on the command line, so radio is not needed.
"""

import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from loadtest.meters.mbus import MBusMeter, answers, serve_stream
from loadtest.meters.serial_bus import serial_bus
from loadtest.meters.wmbus import WirelessMeter
from node.lmn.mbus.application import CI_LONG
from node.lmn.mbus.decode import decode_stream
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.link import RSP_UD, LongFrame, ShortFrame, encode_frame
from node.lmn.mbus.values import DATA_SIZES
from node.lmn.mbus.vif import EXTENSION_FB
from node.lmn.serial_link import open_serial
from node.lmn.wmbus.link import Format, seal
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading
from protocol.metering.units import unit_symbol

ROOT = Path(__file__).parents[2]
PEER = Path(os.environ.get("STROMKREIS_PEERS_MBUS") or ROOT / ".venv-peers-mbus/bin/python")
CORPUS = ROOT / "../shared/corpora/mbus/libmbus.jsonl"
needs_peer = pytest.mark.skipif(
    not PEER.exists() and "CI" not in os.environ, reason="no environment with pyMeterBus (make peers-mbus)"
)
needs_rtl_433 = pytest.mark.skipif(
    shutil.which("rtl_433") is None and "CI" not in os.environ, reason="rtl_433 is not installed"
)

DECODE = """
import json, sys, meterbus
for line in sys.stdin:
    try:
        print(json.dumps(json.loads(meterbus.load(bytes.fromhex(line)).to_JSON())))
    except Exception as error:
        print(json.dumps({"error": repr(error)}))
"""
MASTER = """
import json, sys, serial, meterbus
with serial.serial_for_url(sys.argv[1], 2400, 8, "E", 1, timeout=2) as port:
    meterbus.send_ping_frame(port, int(sys.argv[2]))
    meterbus.recv_frame(port, 1)
    meterbus.send_request_frame(port, int(sys.argv[2]))
    frame = meterbus.load(meterbus.recv_frame(port, meterbus.FRAME_DATA_LENGTH))
    print(json.dumps(json.loads(frame.to_JSON())))
"""
CLOCK = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
REGISTERS = {
    2: [
        (Obis(1, 0, 1, 8, 0, 255), 123456, -1, 30), (Obis(1, 0, 2, 8, 0, 255), 5, 0, 30),
        (Obis(1, 0, 1, 8, 1, 255), 7, 3, 30), (Obis(1, 0, 1, 7, 0, 255), -431, 0, 27),
        (Obis(1, 0, 32, 7, 0, 255), 2301, -1, 35),
    ],
    3: [(Obis(7, 0, 3, 0, 0, 255), 12345678, -3, 13)],
    4: [
        (Obis(6, 0, 1, 0, 0, 255), 1234, 3, 30), (Obis(6, 0, 1, 2, 0, 255), 1111, 3, 30),
        (Obis(6, 0, 2, 0, 0, 255), 123, -2, 13), (Obis(6, 0, 10, 0, 0, 255), 653, -1, 9),
        (Obis(6, 0, 11, 0, 0, 255), 412, -1, 9), (Obis(6, 0, 12, 0, 0, 255), 241, -1, 52),
    ],
    7: [(Obis(8, 0, 1, 0, 0, 255), 876543, -3, 13), (Obis(8, 0, 2, 0, 0, 255), 17, -3, 15)],
}  # fmt: skip
PEER_UNITS = {
    "MeasureUnit.WH": "Wh", "MeasureUnit.W": "W", "MeasureUnit.V": "V", "MeasureUnit.M3": "m³",
    "MeasureUnit.M3_H": "m³/h",
    "MeasureUnit.C": "°C", "MeasureUnit.K": "K", "MeasureUnit.J": "J", "MeasureUnit.J_H": "J/h", "MeasureUnit.HCA": "1",
    "MeasureUnit.A": "A",
}  # fmt: skip


def device(medium: int) -> DeviceAddress:
    return DeviceAddress(9835, "12345678", 1, medium)


def wired(medium: int) -> MBusMeter:
    return MBusMeter(device(medium), lambda _: REGISTERS[medium], lambda: CLOCK, primary=7)


def peer_decodes(frames: list[bytes]) -> list[dict[str, Any]]:
    lines = "\n".join(frame.hex() for frame in frames)
    done = subprocess.run([PEER, "-c", DECODE], input=lines, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def numbers_of_peer(telegram: dict[str, Any]) -> list[tuple[Decimal, str]]:
    out = []
    for record in telegram["body"]["records"]:
        unit = PEER_UNITS.get(record.get("unit", ""))
        if unit is not None and isinstance(record["value"], int | float):
            out.append((Decimal(str(record["value"])), unit))
    return out


def numbers_of_ours(frame: bytes) -> list[tuple[Decimal, str]]:
    readings = [item for item in decode_stream([frame]) if isinstance(item, Reading)]
    return [
        (r.decimal(), unit_symbol(r.unit)) for r in readings if isinstance(r.value, int) and r.unit is not None
    ]  # fmt: skip


def close(ours: tuple[Decimal, str], theirs: tuple[Decimal, str]) -> bool:
    scale = max(abs(ours[0]), Decimal(1))
    return ours[1] == theirs[1] and abs(ours[0] - theirs[0]) / scale < Decimal("1e-6")


@needs_peer
def test_pymeterbus_reads_our_frames_and_agrees_with_our_decoder() -> None:
    frames = [answers([wired(medium)], ShortFrame(0x7B, 7)) for medium in REGISTERS]
    for frame, telegram in zip(frames, peer_decodes(frames), strict=True):
        ours = numbers_of_ours(frame)
        theirs = numbers_of_peer(telegram)
        assert len(ours) == len(theirs) >= 1
        assert all(close(a, b) for a, b in zip(ours, theirs, strict=True))
        assert telegram["body"]["header"]["manufacturer"] == "ISK"
        assert telegram["body"]["records"][-1]["value"] == "2026-01-02T03:04"


@needs_peer
@pytest.mark.beside_repository
def test_pymeterbus_agrees_on_real_frames() -> None:
    """Where pyMeterBus knows a number's unit, our number in that unit is the same, but for what is named here."""
    rows = [json.loads(line) for line in CORPUS.read_text().splitlines()]
    frames = {row["id"]: bytes.fromhex(row["hex"]) for row in rows}
    compared, different = 0, set()
    for (name, frame), telegram in zip(frames.items(), peer_decodes(list(frames.values())), strict=True):
        if "records" not in telegram.get("body", {}):
            continue
        ours = numbers_of_ours(frame)
        for theirs in numbers_of_peer(telegram):
            compared += 1
            if not any(close(mine, theirs) for mine in ours):
                different.add((name.rpartition("/")[2], str(theirs[0]), theirs[1]))
    assert compared == 299
    assert different == set(PEER_DIFFERENCES)


def of_record(record: bytes) -> bytes:
    """A frame of an electricity meter with one record."""
    return encode_frame(LongFrame(RSP_UD, 1, CI_LONG, device(2).to_transport() + bytes(4) + record))


SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
# What pyMeterBus has as reserved or names with another unit (FB 30: joule for joule an hour); FB 79 it scales as FB 78.
NOT_OF_PEER = {
    0x02,
    0x03,
    0x04,
    0x05,
    0x08,
    0x09,
    *range(0x0C, 0x10),
    *range(0x14, 0x18),
    0x1B,
    0x20,
    *range(0x2A, 0x38),
    0x79,
}


@needs_peer
def test_pymeterbus_agrees_on_every_vif_that_it_knows() -> None:
    """The three on every value information of the tables, in the unit and at the power of ten that each has."""
    vibs = [bytes([vif]) for vif in range(0x6C)] + [bytes([vif]) for vif in range(0x70, 0x78)]
    vibs += [bytes([0xFD, vif]) for vif in [*range(0x08), *range(0x24, 0x28), *range(0x2C, 0x30), *range(0x31, 0x38)]]
    vibs += [bytes([0xFD, vif]) for vif in [*range(0x40, 0x60), *range(0x68, 0x6A), *range(0x6C, 0x6E)]]
    vibs += [bytes([0xFB, vif]) for vif in (EXTENSION_FB.keys() - NOT_OF_PEER - set(range(0x68, 0x6F)))]
    frames = [of_record(b"\x04" + vib + b"\x03\0\0\0") for vib in vibs]
    for vib, frame, telegram in zip(vibs, frames, peer_decodes(frames), strict=True):
        (ours,) = [item for item in decode_stream([frame]) if isinstance(item, Reading)]
        (theirs,) = telegram["body"]["records"]
        unit = ours.record["unit"] if ours.unit is None else unit_symbol(ours.unit)
        number = ours.decimal() * SECONDS.get(unit, 1)
        assert abs(number - Decimal(str(theirs["value"]))) <= abs(number) * Decimal("1e-9"), vib.hex()
        told = theirs["unit"].removeprefix("MeasureUnit.")
        assert told == UNITS_OF_PEER.get(unit, unit.upper()), vib.hex()


UNITS_OF_PEER = {
    "m³": "M3", "m³/h": "M3_H", "m³/min": "M3_MIN", "m³/s": "M3_S", "kg/h": "KG_H", "°C": "C", "J/h": "J_H",
    "°F": "degF", "s": "SECONDS", "min": "SECONDS", "h": "SECONDS", "d": "SECONDS", "%": "PERCENT", "ft³": "feet^3",
    "US gal": "American gallon", "US gal/min": "American gallon/min", "US gal/h": "American gallon/h",
}  # fmt: skip


@needs_peer
def test_pymeterbus_agrees_on_every_number_storage_tariff_and_subunit() -> None:
    """Integers and BCD of every width and sign, real numbers, DIBs of up to three octets, by lot."""
    rng, records = Random(1), []
    for field in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 14):
        for _ in range(40):
            octets = rng.randbytes(DATA_SIZES[field])
            if field > 8:
                octets = bytes.fromhex("".join(rng.choice("0123456789") for _ in range(2 * len(octets))))
                octets = octets[:-1] + bytes([octets[-1] | rng.choice([0, 0, 0xF0])])
            dib = [field | rng.choice([0, 0x10, 0x20]) | rng.choice([0, 0x40])]
            for _ in range(rng.randrange(3)):
                dib[-1] |= 0x80
                dib.append(rng.randrange(0x80))
            records.append(bytes(dib) + b"\x03" + octets)
    frames = [of_record(record) for record in records]
    for record, frame, telegram in zip(records, frames, peer_decodes(frames), strict=True):
        (ours,) = [item for item in decode_stream([frame]) if isinstance(item, Reading)]
        (theirs,) = telegram["body"]["records"]
        numbers = (ours.record["storage"], ours.record["tariff"], ours.record["subunit"])
        assert numbers == (theirs["storage_number"], theirs.get("tariff") or 0, theirs.get("device") or 0), record.hex()
        number = ours.decimal()
        assert abs(number - Decimal(str(theirs["value"]))) <= abs(number) * Decimal("1e-6"), record.hex()


# Value as pyMeterBus has it -> why ours is another: in all of these it overlooks what the telegram says.
LETTERS = "BCD with letters is invalid; it computes a number"
DURATION = "a VIFE makes it the duration of a limit exceed, in seconds"
BROKEN = "the records break off; it gives what came before"
PEER_DIFFERENCES = {
    ("EFE_Engelmann-Elster-SensoStar-2", "0.000011", "m³"): "a VIFE makes it cubic metres per pulse",
    ("ELS_Elster-F96-Plus", "13131113", "W"): LETTERS,
    ("ELS_Elster-F96-Plus", "131.113", "m³/h"): LETTERS,
    ("SEN_Pollustat", "11582321", "m³/h"): DURATION,
    ("SEN_Pollustat", "756", "m³/h"): DURATION,
    ("abb_f95", "1311041.3", "W"): LETTERS,
    ("abb_f95", "11.0413", "m³/h"): LETTERS,
    ("example_binary16_lvar", "67076981401386", "°C"): "the unit is a text in the telegram, PW",
    ("premature_end_of_data2", "12.565", "m³"): BROKEN,
    ("premature_end_of_data2", "0.113", "m³/h"): BROKEN,
    ("premature_end_of_dif2", "12.565", "m³"): BROKEN,
    ("premature_end_of_dif2", "0.113", "m³/h"): BROKEN,
}


@needs_peer
async def test_pymeterbus_as_master_reads_our_meter_over_a_serial_line() -> None:
    async with serial_bus(2) as (theirs, ours), trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_stream, open_serial(ours, 2400, 8, "E", 1), [wired(2)]))
        command = [str(PEER), "-c", MASTER, theirs, "7"]
        with trio.fail_after(120):
            done = await trio.run_process(command, capture_stdout=True)
        nursery.cancel_scope.cancel()
    telegram = json.loads(done.stdout)
    assert numbers_of_peer(telegram)[0] == (Decimal("12345.6"), "Wh")
    assert len(telegram["body"]["records"]) == len(REGISTERS[2]) + 1


def rtl_433(datagram: bytes, frame_format: Format) -> dict[str, Any]:
    sync = bytes.fromhex("5555555555543d54cd" if frame_format is Format.A else "5555555555543d543d")
    bits = sync + seal(datagram, frame_format) + b"\0\0"
    command = ["rtl_433", "-R", "104", "-F", "json", "-y", f"{{{8 * len(bits)}}}{bits.hex()}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == 1
    telegram: dict[str, Any] = json.loads(lines[0])
    return telegram


@needs_rtl_433
@pytest.mark.parametrize("frame_format", [Format.A, Format.B])
def test_rtl_433_reads_our_link_layer(frame_format: Format) -> None:
    meter = WirelessMeter(device(7), lambda _: REGISTERS[7], lambda: CLOCK)
    telegram = rtl_433(meter.datagram(), frame_format)
    assert (telegram["M"], telegram["id"], telegram["version"], telegram["type"]) == ("ISK", 12345678, 1, 7)
    assert (telegram["mic"], telegram["C"]) == ("CRC", 0x44)
    assert telegram.get("CI") == (0x7A if frame_format is Format.A else None)  # see the next test


@needs_rtl_433
def test_rtl_433_reads_our_records() -> None:
    """Only in format A: release 22.11 reads the records of format B from a false offset."""
    meter = WirelessMeter(device(7), lambda _: REGISTERS[7], lambda: CLOCK)
    telegram = rtl_433(meter.datagram(), Format.A)
    assert telegram["inst_volume_0"] == "876.543 m3"
    assert telegram["inst_timedate_0"] == "26-01-02T03:04:00"


@needs_rtl_433
def test_rtl_433_sees_that_a_telegram_is_encrypted() -> None:
    meter = WirelessMeter(device(7), lambda _: REGISTERS[7], lambda: CLOCK, key=bytes(16), mode=5)
    telegram = rtl_433(meter.datagram(), Format.A)
    assert telegram["CW"] >> 8 == 5
    assert "inst_volume_0" not in telegram
