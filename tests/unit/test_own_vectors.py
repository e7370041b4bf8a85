"""Telegrams with invented numbers for every codec and every kind of meter's habit (tests/data/meters)."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from protocol.metering.reading import Quality, Reading
from stromkreis.decode import MeterProtocol, decode, decoder, options_of

app = typer.Typer()
app.command()(decode)
FOLDER = Path(__file__).parents[1] / "data/meters"
ROWS = [
    pytest.param(file.stem, row, id=f"{file.stem}-{row['id']}")
    for file in sorted(FOLDER.glob("*.jsonl"))
    for row in map(json.loads, file.read_text(encoding="utf-8").splitlines())
]


def octets_of(row: dict[str, Any]) -> bytes:
    return bytes.fromhex(row["hex"]) if "hex" in row else bytes(row["text"].encode("utf-8"))


def reason_of(line: str) -> str:
    return line.split(": ", 1)[1].partition(":")[0] if line.startswith("byte ") else line.partition(":")[0]


@pytest.mark.parametrize(("protocol", "row"), ROWS)
def test_decode_gives_the_readings_and_reasons_of_the_vector(protocol: str, row: dict[str, Any]) -> None:
    arguments = [protocol, *(["--hex"] if "hex" in row else []), *row.get("options", ())]
    if "key" in row:
        arguments += ["--key", row["key"]]
    given = row["hex"] if "hex" in row else row["text"]
    done = CliRunner().invoke(app, [*arguments, "-"], input=given)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    shown = [
        [
            each["device"],
            each["obis"],
            each["value"],
            each["scaler"],
            each["unit"],
            each.get("quality", "valid"),
            each["time"],
        ]
        for each in found
    ]
    assert shown == row["readings"]
    assert [reason_of(line) for line in done.stderr.splitlines()] == row["errors"]
    assert done.exit_code == (0 if row["readings"] else 1)


@pytest.mark.parametrize(("protocol", "row"), ROWS)
def test_a_vector_octet_by_octet_is_the_same_as_whole(protocol: str, row: dict[str, Any]) -> None:
    named = dict(zip(row.get("options", [])[::2], row.get("options", [])[1::2], strict=True))
    layout, medium = named.get("--layout"), named.get("--medium")
    options = options_of([layout] if layout else None, int(medium) if medium else None)
    decode_stream = decoder(MeterProtocol(protocol), [row["key"]] if "key" in row else None, options)
    data = octets_of(row)
    whole = [str(item) for item in decode_stream([data])]
    pieces = [str(item) for item in decode_stream(data[at : at + 1] for at in range(len(data)))]
    assert pieces == whole


# Two damages may cancel each other, and a receiver's line has no check sum left.
CHECKED = [
    row for row in ROWS if '"errors": []' in json.dumps(row.values[1]) and '"text"' not in json.dumps(row.values[1])
]


@pytest.mark.parametrize(("protocol", "row"), CHECKED)
def test_one_turned_bit_lets_no_wrong_value_through(protocol: str, row: dict[str, Any]) -> None:
    """Check sums of eight bits and more see every one; what stands without is marked as unverified."""
    named = dict(zip(row.get("options", [])[::2], row.get("options", [])[1::2], strict=True))
    options = options_of([named["--layout"]] if "--layout" in named else None, None)
    decode_stream = decoder(MeterProtocol(protocol), [row["key"]] if "key" in row else None, options)
    data = octets_of(row)
    right = {(each.obis, each.value) for each in decode_stream([data]) if isinstance(each, Reading)}
    for at in range(0, len(data), 7):
        turned = bytearray(data)
        turned[at] ^= 1 << at % 7
        valid = [
            item
            for item in decode_stream([bytes(turned)])
            if isinstance(item, Reading) and item.quality is Quality.VALID
        ]
        assert {(each.obis, each.value) for each in valid} <= right
