"""`stromkreis decode`: JSON lines out, errors aside, the exit status, keys and hexadecimal input."""

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from loadtest.meters.p1 import P1Settings, telegram
from loadtest.meters.wmbus import WirelessMeter
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.link import LongFrame, encode_frame
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading
from protocol.metering.units import WATT_HOUR
from stromkreis.decode import decode
from stromkreis.reading_table import ReadingTable

DATA = telegram(
    P1Settings("1SKR0000000001"), [(Obis(1, 0, 1, 8, 0, 255), 1234567, 0, WATT_HOUR)], datetime.fromtimestamp(0, UTC)
)
app = typer.Typer()
app.command()(decode)
run = CliRunner()


def test_readings_as_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "p1.bin"
    file.write_bytes(DATA + DATA)
    result = run.invoke(app, ["p1", str(file)])
    assert result.exit_code == 0
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rows) == 8
    assert rows[-1] == {
        "device": "1SKR0000000001", "obis": "1-0:1.8.0*255", "value": "1234567", "scaler": 0, "unit": "Wh",
        "status": None, "time": "1970-01-01T01:00:00+01:00",
    }  # fmt: skip
    assert result.stderr == ""


def test_standard_input_and_hexadecimal() -> None:
    spaced = " ".join(DATA.hex()[i : i + 7] for i in range(0, 2 * len(DATA), 7)) + "\n"
    result = run.invoke(app, ["iec62056-21", "--hex", "-"], input=spaced)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 4


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2f4", "byte 3: not_hexadecimal: an odd number of digits"),
        ("2f zz", "byte 3: not_hexadecimal: expected hexadecimal digits"),
        (b"\x7e\xa0\xff", "byte 0: not_hexadecimal: expected hexadecimal digits"),
    ],
)
def test_what_is_not_hexadecimal_is_said_with_its_place(text: str | bytes, told: str) -> None:
    result = run.invoke(app, ["p1", "--hex", "-"], input=text)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == told


def test_what_came_before_the_foreign_character_is_read() -> None:
    result = run.invoke(app, ["p1", "--hex", "-"], input=DATA.hex() + " # the end")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 4)
    assert f"byte {2 * len(DATA) + 1}: not_hexadecimal" in result.stderr


def test_hexadecimal_without_the_option_and_an_empty_file_are_recognised() -> None:
    result = run.invoke(app, ["mbus", "-"], input=DATA.hex())
    assert (result.exit_code, "try --hex" in result.stderr) == (1, True)
    empty = run.invoke(app, ["mbus", "-"], input=b"")
    assert (empty.exit_code, empty.stderr) == (1, "the file is empty\n")


def test_errors_name_offset_and_reason_but_no_value() -> None:
    damaged = DATA.replace(b"1234.567", b"1234.568")
    result = run.invoke(app, ["p1", "-"], input=b"rubbish" + damaged)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "byte 0: noise: 7 bytes outside of a telegram",
        "byte 7: bad_checksum: the CRC-16 differs",
    ]
    assert "1234" not in result.stderr


def test_one_good_telegram_is_enough_for_success() -> None:
    result = run.invoke(app, ["p1", "-"], input=DATA[:-10] + b"\r\n" + DATA)
    assert result.exit_code == 0
    assert "truncated" in result.stderr


def test_keys_where_there_are_none() -> None:
    result = run.invoke(app, ["iec62056-21", "--key", "00112233", "-"], input=DATA)
    assert result.exit_code == 2
    assert "no keys" in result.stderr
    result = run.invoke(app, ["p1", "--key", "secret", "-"], input=DATA)
    assert result.exit_code == 2
    assert "secret" not in result.stderr


def test_a_key_may_stand_in_a_file_and_belong_to_one_of_several_wired_meters(tmp_path: Path) -> None:
    key, file = bytes(range(16)), tmp_path / "key"
    file.write_text(key.hex() + "\n")
    device = DeviceAddress.from_text("8ISK0112345678", 7)
    meter = WirelessMeter(device, lambda _: [(Obis(8, 0, 1, 0, 0, 255), 5, -3, 13)], lambda: datetime.now(UTC), key=key,
                          mode=5, radio=DeviceAddress.from_text("FRAD0187654321", 0x37))  # fmt: skip
    layers = meter.datagram()[10:]
    frame = encode_frame(LongFrame(0x08, 1, layers[0], layers[1:]))
    for given in (f"@{file}", f"{device}=@{file}", f"{device}={key.hex()}"):
        result = run.invoke(app, ["mbus", "--key", given, "-"], input=frame)
        assert (result.exit_code, json.loads(result.stdout.splitlines()[0])["value"]) == (0, "5"), given
    assert "whose key is not here" in run.invoke(app, ["mbus", "--key", f"X=@{file}", "-"], input=frame).stderr
    missing = run.invoke(app, ["mbus", "--key", "@/none", "-"], input=frame)
    assert (missing.exit_code, "/none: cannot be read" in missing.stderr) == (2, True)


def test_unknown_protocol() -> None:
    assert run.invoke(app, ["x25", "-"]).exit_code == 2


def test_the_board_of_sniff() -> None:
    table = ReadingTable()
    table.add(Reading("m", Obis(1, 0, 1, 8, 0, 255), 12345, -1, WATT_HOUR))
    table.add(Reading("m", Obis(1, 0, 1, 8, 0, 255), 12346, -1, WATT_HOUR))
    table.add(Reading("m", None, b"\x01", record={"vif": "0x7f"}))
    table.add(RemoteProtocolError("noise"))
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table.table())
    text = console.export_text()
    assert "1234.6" in text
    assert "1234.5" not in text
    assert "noise 1" in text
    assert '{"vif": "0x7f"}' in text


def test_the_board_fits_a_terminal_and_names_a_record_by_what_stays() -> None:
    table = ReadingTable()
    record = {"function": "maximum", "storage": 3, "tariff": 0, "subunit": 0, "quantity": "volume flow"}
    for minute in range(3):
        table.add(Reading("1STK0000000001", None, minute, record={**record, "meter_time": f"2026-01-01T00:0{minute}"}))
    at = datetime.now(UTC)
    table.add(Reading("1STK0000000001", Obis(1, 0, 1, 8, 0, 255), 1234567890, -1, WATT_HOUR, measured_at=at))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table.table())
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["1STK0000000001", "1-0:1.8.0", "123456789.0", "Wh", f"{at:%H:%M:%S}", "valid", "1"] in lines
    assert sum("1STK0000000001" in line for line in lines) == 2
    wide = Console(width=120, record=True, file=io.StringIO())
    wide.print(table.table())
    assert "volume flow, maximum, storage 3" in wide.export_text()


def test_the_board_says_what_it_leaves_out() -> None:
    table = ReadingTable()
    for index in range(501):
        table.add(Reading(f"m{index}", Obis(1, 0, 1, 8, 0, 255), 1))
    assert "1 readings beyond 500 registers" in str(table.table().caption)


@pytest.mark.parametrize(
    ("protocol", "file"),
    [
        ("sml", "sml/dumps.jsonl"),
        ("mbus", "mbus/libmbus.jsonl"),
        ("dlms", "dlms/frames.jsonl"),
        ("wmbus", "wmbus/oms_vectors.jsonl"),
        ("p1", "dsmr/telegrams.jsonl"),
        ("iec62056-21", "iec62056_21/readouts.jsonl"),
    ],
)
@pytest.mark.beside_repository
def test_every_protocol_s_real_telegrams(protocol: str, file: str) -> None:
    path = Path(__file__).parents[2] / "../shared/corpora" / file
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    row = next(row for row in rows if protocol != "wmbus" or row.get("key"))
    key = ["--key", row["key"]] if protocol == "wmbus" else []
    result = run.invoke(app, [protocol, "--hex", *key, "-"], input=row["hex"])
    assert result.exit_code == 0, result.stderr
    assert all("value" in json.loads(line) for line in result.stdout.splitlines())


def test_a_ciphered_dlms_message_without_a_key_names_its_system_title() -> None:
    rows = (Path(__file__).parents[1] / "data/meters/dlms.jsonl").read_text(encoding="utf-8").splitlines()
    row = next(row for row in map(json.loads, rows) if "key" in row and row["readings"])
    result = run.invoke(app, ["dlms", "--hex", "-"], input=row["hex"])
    reason, _, title = result.stderr.strip().partition("no key for its system title ")
    assert "dlms_key_missing" in reason
    assert len(bytes.fromhex(title)) == 8
    assert title in row["hex"].lower()
