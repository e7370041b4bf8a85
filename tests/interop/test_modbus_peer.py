"""Our Modbus client against pymodbus' server, over TCP and over a pseudo-terminal: register maps and SunSpec."""

import json
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from loadtest.meters.serial_bus import serial_bus
from loadtest.ports import free_port
from node.lmn.links import open_link
from node.lmn.modbus.adapter import ModbusPoll
from node.lmn.modbus.register_map import find_map
from node.lmn.profiles import MeterProfile
from node.lmn.session import LmnStores
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.reading import Quality, Reading
from protocol.metering.units import unit_symbol

SERVER = Path(__file__).with_name("modbus_peer_server.py")
OURS = """
title = "A meter of ours"
source = "its manual"
word_order = "little"
registers = [
  { address = 100, type = "uint32", obis = "1-0:1.8.0", scaler = 1, unit = "Wh" },
  { address = 102, type = "int16", obis = "1-0:16.7.0", unit = "W" },
  { address = 300, type = "text", size = 4, role = "meter-number" },
  { address = 304, type = "float32", name = "power factor" },
]
"""


def floats(*numbers: float) -> list[int]:
    octets = b"".join(struct.pack(">f", number) for number in numbers)
    return [int.from_bytes(octets[at : at + 2], "big") for at in range(0, len(octets), 2)]


def text(content: str, size: int) -> list[int]:
    octets = content.encode("ascii").ljust(2 * size, b"\0")
    return [int.from_bytes(octets[at : at + 2], "big") for at in range(0, len(octets), 2)]


def sunspec(model: int) -> list[int]:
    """A device with a common model, one that is none of ours, and a meter."""
    words = [
        0x5375,
        0x6E53,
        1,
        66,
        *text("STK", 16),
        *text("M1", 16),
        *text("", 8),
        *text("1.0", 8),
        *text("70000061", 16),
    ]
    words += [1, 0, 120, 3, 7, 7, 7]
    if model < 210:
        meter = [0x8000] * 105
        meter[1:5], meter[6:9], meter[13] = [152, 8, 31, 0x10000 - 2], [2311, 2295, 2330], 0x10000 - 1
        meter[14:21] = [5001, 0x10000 - 2, 0x10000 - 417, 0x10000 - 400, 0x10000 - 10, 0x10000 - 7, 0]
        meter[36:38], meter[44:46], meter[52] = [0, 91], [22, 0x1234], 1
    else:
        meter = floats(*[float("nan")] * 62)
        meter[2:8], meter[10:16], meter[24:28] = floats(1.5, 0.25, 3), floats(231, 229.5, 233), floats(50, -417)
        meter[58:60], meter[66:68] = floats(910), floats(14_422_760)
    return [*words, model, len(meter), *meter, 0xFFFF, 0]


@asynccontextmanager
async def peer(kind: str, blocks: dict[int, list[int]]) -> AsyncIterator[str]:
    """The link to a meter with these registers, unit 7."""
    async with serial_bus() as (here, there):
        port = free_port()
        place = str(port) if kind == "tcp" else there
        process = await trio.to_thread.run_sync(start, kind, place, blocks)
        try:
            yield f"tcp://127.0.0.1:{port}" if kind == "tcp" else f"serial://{here}"
        finally:
            process.kill()
            process.wait()


def start(kind: str, place: str, blocks: dict[int, list[int]]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, str(SERVER), kind, place]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"unit": 7, "blocks": blocks}).encode() + b"\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"listening\n"
    process.stdin.close()
    process.stdout.close()
    return process


async def read(link: str, **more: Any) -> dict[str, tuple[Any, str]]:
    """What the meter says, by code or name; none of it may be billed."""
    profile = MeterProfile(device="meter", protocol="modbus", link=link, address="7", meter_id="*", **more)
    async with await open_link(profile.link) as stream:
        session = ModbusPoll([profile], LmnStores())
        for _ in range(2):  # the session outlives its questions
            found = [item for item in await session.ask(stream, profile, lambda: 0.0) if isinstance(item, Reading)]
    assert {item.quality for item in found} == {Quality.NOT_FOR_BILLING}
    return {
        str(item.obis).removesuffix("*255")
        if item.obis
        else str(item.record.get("name", item.record.get("address"))): (
            item.decimal() if isinstance(item.value, int) else item.value,
            "" if item.unit is None else unit_symbol(item.unit),
        )
        for item in found
    } | {"device": (found[-1].device, "")}


@pytest.mark.parametrize("kind", ["tcp", "serial"])
async def test_a_meter_by_a_table_of_the_users_own(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "ours.toml"
    file.write_text(OURS, encoding="utf-8")
    number = [*reversed(text("70000060", 4))]
    blocks = {100: [0x5678, 0x1234, 0x10000 - 42], 300: [*number, *reversed(floats(0.5))]}
    async with peer(kind, blocks) as link:
        found = await read(link, map=str(file))
    assert found == {
        "1-0:1.8.0": (Decimal(0x12345678) * 10, "Wh"), "1-0:16.7.0": (Decimal(-42), "W"), "300": ("70000060", ""),
        "power factor": (Decimal("0.5"), ""), "device": ("70000060", ""),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["tcp", "serial"])
async def test_a_shipped_table(kind: str) -> None:
    blocks = {0: [*floats(231.5, 229, 233.25, 1.5, 0, 0.25), *[0] * 68]}
    blocks[0][0x34:0x36], blocks[0][0x46:0x4C] = floats(417), floats(50, 4410.5, 12)
    async with peer(kind, blocks) as link:
        found = await read(link, map="eastron-sdm630")
    assert found["1-0:1.8.0"] == (Decimal(4410500), "Wh")
    assert found["1-0:2.8.0"] == (Decimal(12000), "Wh")
    assert found["1-0:16.7.0"] == (Decimal(417), "W")
    assert found["1-0:72.7.0"] == (Decimal("233.25"), "V")


@pytest.mark.parametrize(("model", "base"), [(203, 40_000), (213, 50_000), (201, 0)])
async def test_a_meter_that_describes_itself(model: int, base: int) -> None:
    async with peer("tcp", {base: sunspec(model)}) as link:
        found = await read(link)
    is_float = model > 210
    assert found["device"] == ("70000061", "")
    assert found["1-0:31.7.0"] == (Decimal("1.5") if is_float else Decimal("1.52"), "A")
    assert found["1-0:52.7.0"] == (Decimal("229.5"), "V")
    assert found["1-0:1.8.0"] == (Decimal(14_422_760) if is_float else Decimal((22 << 16 | 0x1234) * 10), "Wh")
    assert found["1-0:2.8.0"] == (Decimal(910), "Wh")
    assert found["power"] == (Decimal(-417), "W")
    assert ("power L1" in found) == (not is_float)


async def test_a_device_without_a_map_or_an_address_is_named() -> None:
    async with peer("tcp", {40_000: [1, 2, 3, 4]}) as link:
        with pytest.raises(RemoteProtocolError, match="sunspec_missing"):
            await read(link)
        with pytest.raises(RemoteProtocolError, match=r"modbus_exception.*illegal data address"):
            await read(link, map="eastron-sdm630")


async def test_silence_noise_and_a_late_answer_are_not_taken_for_an_answer(autojump_clock: MockClock) -> None:
    profile = MeterProfile(device="meter", protocol="modbus", link="tcp://h:1", address="rtu:7", map="eastron-sdm630")
    for answer, reason in (
        (b"", "no_answer"),
        (b"\x55" * 600, "modbus_frame|no_answer"),
        (b"\x07\x04\x02\x00\x01\xff\xff", "no_answer"),
    ):
        ours, theirs = memory_stream_pair()

        async def play(theirs: trio.abc.Stream = theirs, answer: bytes = answer) -> None:
            while await theirs.receive_some():
                if answer:
                    await theirs.send_all(answer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(play)
            with pytest.raises(RemoteProtocolError, match=reason):
                await ModbusPoll([profile], LmnStores()).ask(ours, profile, lambda: 0.0)
            await ours.aclose()


@pytest.mark.parametrize(
    ("text_", "said"),
    [
        (OURS.replace("uint32", "uint24"), r"registers.0.type: Input should be 'uint16'"),
        (OURS.replace("size = 4, ", ""), "registers.2: size= is the number of registers of a text"),
        (OURS.replace("address = 304", "address = 65535"), "registers.3: it ends behind the last address"),
        (OURS.replace("Wh", "kWh"), "registers.0.unit: no unit 'kWh'"),
    ],
)
def test_a_table_that_is_none_is_refused_with_its_place(tmp_path: Path, text_: str, said: str) -> None:
    file = tmp_path / "ours.toml"
    file.write_text(text_, encoding="utf-8")
    with pytest.raises(LocalProtocolError, match=said):
        find_map(str(file))


@pytest.mark.parametrize("more", [{"address": "0"}, {"address": "ascii:1"}, {"map": "no-such-meter"}])
def test_a_profile_that_names_no_unit_or_map_is_refused(more: dict[str, Any]) -> None:
    profile = MeterProfile(device="meter", protocol="modbus", link="tcp://h:1", **more)
    with pytest.raises(LocalProtocolError, match=r"\[rtu:\|tcp:\]UNIT|eastron-sdm630"):
        ModbusPoll([profile], LmnStores())
