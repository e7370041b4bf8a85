"""
Questions and answers of Modbus octet by octet, against examples that others published.

Sources: Modbus application protocol 1.1b3, clauses 6.3 and 6.4 (the exchanges), Modbus over serial line 1.02, 6.2.2
(the check sum, computed here bit by bit), IEEE 754 (the values of the Eastron table's single precision numbers).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from node.lmn.modbus.adapter import ModbusPoll
from node.lmn.modbus.client import Framing, ModbusClient
from node.lmn.profiles import MeterProfile
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Quality, Reading

FILE = Path(__file__).parents[1] / "data/meters/modbus.json"
EXCHANGES, EASTRON = (json.loads(FILE.read_text(encoding="utf-8"))[each] for each in ("exchanges", "eastron"))


def checked(octets: bytes) -> bytes:
    """With the check sum behind it, as the serial line's guide computes it."""
    register = 0xFFFF
    for octet in octets:
        register ^= octet
        for _ in range(8):
            register = register >> 1 ^ (0xA001 if register & 1 else 0)
    return octets + register.to_bytes(2, "little")


def framed(framing: Framing, unit: int, transaction: int, message: str) -> bytes:
    octets = bytes([unit]) + bytes.fromhex(message)
    if framing == "rtu":
        return checked(octets)
    return transaction.to_bytes(2, "big") + bytes(2) + len(octets).to_bytes(2, "big") + octets


async def answered(
    framing: Framing, unit: int, answers: list[tuple[str, str]], table: str, address: int, count: int
) -> list[int]:
    """What the client makes of a meter that expects these questions and gives these answers."""
    ours, meters = memory_stream_pair()
    words: list[int] = []

    async def meter() -> None:
        for transaction, (question, answer) in enumerate(answers, 1):
            expected = framed(framing, unit, transaction, question)
            assert await meters.receive_some(len(expected)) == expected
            await meters.send_all(framed(framing, unit, transaction, answer))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(meter)
        words += await ModbusClient(ours, unit, framing, 60).read(table, address, count)
    return words


def test_the_check_sum_is_the_published_one() -> None:
    assert checked(bytes.fromhex("0207")) == bytes.fromhex("02074112")  # the guide's example: 41 12 on the line


@pytest.mark.parametrize("framing", ["rtu", "tcp"])
@pytest.mark.parametrize("row", EXCHANGES, ids=lambda row: row["id"])
async def test_an_exchange_is_octet_by_octet_that_of_the_standard(row: dict[str, Any], framing: Framing) -> None:
    asked = answered(framing, 17, [(row["question"], row["answer"])], row["table"], row["address"], row["count"])
    if "error" not in row:
        assert await asked == row["words"]
        return
    with pytest.raises(ExceptionGroup) as caught:
        await asked
    (error,) = caught.value.exceptions
    assert isinstance(error, RemoteProtocolError)
    assert (error.reason, row["error"] in str(error)) == ("modbus_exception", True)


async def test_a_shipped_table_gives_the_numbers_that_were_sent() -> None:
    ours, meters = memory_stream_pair()
    link = "serial:///dev/ttyS0?baud=9600&frame=8N1"
    profile = MeterProfile(device="1EAS0000000001", protocol="modbus", link=link, address="1", map="eastron-sdm630")
    octets = bytes.fromhex(EASTRON["registers"])
    answers = 0

    async def meter() -> None:
        nonlocal answers
        while question := bytes(await meters.receive_some(8)):
            assert checked(question[:6]) == question
            first, count = (int.from_bytes(question[i : i + 2], "big") for i in (2, 4))
            at = first - EASTRON["first"]
            part = b"".join(
                octets[2 * each : 2 * each + 2] if 0 <= each < len(octets) // 2 else bytes(2)
                for each in range(at, at + count)
            )
            await meters.send_all(checked(bytes([1, 4, len(part)]) + part))
            answers += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(meter)
        readings = await ModbusPoll([profile], None).ask(ours, profile, lambda: 1_700_000_000.0)  # type: ignore[arg-type]
        await ours.aclose()
    assert answers >= 1
    found = {str(each.obis): each for each in readings if isinstance(each, Reading)}
    for obis, value in EASTRON["values"].items():
        reading = found[obis]
        assert isinstance(reading.value, int)
        assert Decimal(reading.value).scaleb(reading.scaler) == Decimal(value), obis
        assert reading.quality is Quality.NOT_FOR_BILLING
        assert reading.received_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
