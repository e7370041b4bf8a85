"""What `stromkreis sniff` shows of the air: the table of who is heard, and the line for each telegram."""

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from loadtest.meters.wmbus import WirelessMeter
from node.lmn.mbus.device import DeviceAddress
from node.lmn.profiles import profile_of_url
from node.lmn.wmbus.decode import decode_stream
from node.lmn.wmbus.framing import rtl_wmbus_line
from stromkreis.listening import Radio
from stromkreis.reading_table import ReadingTable

CLOCK = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def line(number: int, **how: Any) -> bytes:
    device = DeviceAddress.from_text(f"8STK01{number:08d}", 7)
    return rtl_wmbus_line(WirelessMeter(device, lambda _: [], lambda: CLOCK, **how).datagram())


def radio(link: str = "wmbus+radio://h:1?address=rtl-wmbus") -> Radio:
    return Radio(profile_of_url(link, "meter", {}))


def test_the_table_names_each_sender_with_count_signal_and_outcome() -> None:
    listening = radio()
    stream = line(1) + line(2, key=bytes(16), mode=5) + line(1) + b"T1;0;1;damaged;1;1;1;0x00\n"
    items = list(listening.decode(decode_stream, [stream]))
    assert items
    out = Console(file=io.StringIO(), width=100)
    out.print(listening.table())
    rows = [row.split() for row in out.file.getvalue().splitlines() if "STK" in row]  # type: ignore[attr-defined]
    assert [row[0] for row in rows] == ["8STK0100000001", "8STK0100000002"]
    assert [row[1] for row in rows] == ["2", "1"]
    assert [row[-2:] for row in rows] == [["97", "readings"], ["97", "no_key"]]


def test_each_telegram_is_a_line_and_damage_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    listening = radio()
    damaged = b"T1;0;1;2026;97;97;1;0x00\n"
    count = listening.print_heard(listening.decode(decode_stream, [line(1) + damaged + line(1)]))
    said = capsys.readouterr()
    rows = [json.loads(row) for row in said.out.splitlines()]
    assert count == 2
    assert [row["count"] for row in rows] == [1, 2]
    assert "block_crc" in said.err


@pytest.mark.parametrize("address", ["stick", "cul:n"])
def test_an_address_that_is_no_receiver_is_told_with_those_there_are(address: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"imst|ct"):
        radio(f"wmbus+radio://h:1?address={address}")


def test_the_months_of_a_walk_by_telegram_are_rows_of_their_own() -> None:
    rows = (Path(__file__).parents[1] / "data/meters/wmbus.jsonl").read_text(encoding="utf-8").splitlines()
    row = next(row for row in map(json.loads, rows) if row["id"] == "qundis-walk-by-water")
    table = ReadingTable()
    for item in decode_stream([row["text"].encode()]):
        table.add(item)
    out = Console(file=io.StringIO(), width=160)
    out.print(table.table())
    shown = out.file.getvalue()  # type: ignore[attr-defined]
    assert all(f"volume, of a month, {month}" in shown for month in ("2025-12", "2026-01", "2026-02"))
