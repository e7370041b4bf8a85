"""Captures of a network and logs with hexadecimal octets, as `decode` takes them."""

import contextlib
import io
import json
import struct
from pathlib import Path
from random import Random

import dpkt
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from protocol.errors import StromkreisError
from stromkreis.captures import captured
from stromkreis.decode import decode
from stromkreis.recordings import is_log, octets_of_log

ROWS = {
    row["id"]: bytes.fromhex(row["hex"])
    for file in sorted((Path(__file__).parents[1] / "data/meters").glob("*.jsonl"))
    for row in map(json.loads, file.read_text(encoding="utf-8").splitlines())
    if "hex" in row
}
OTHER_LINK = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 99, 147) + b"x" * 40
METER, GATEWAY = (b"\x7f\0\0\1", 4059), (b"\x7f\0\0\2", 50_000)
app = typer.Typer()
app.command()(decode)


def segment(here: tuple[bytes, int], there: tuple[bytes, int], number: int, data: bytes, flags: int = 0x18) -> bytes:
    tcp = dpkt.tcp.TCP(sport=here[1], dport=there[1], seq=number % 2**32, flags=flags, data=data)
    network = dpkt.ip.IP(src=here[0], dst=there[0], p=6, data=tcp)
    return bytes(dpkt.ethernet.Ethernet(data=network))


def capture(packets: list[bytes], form: str = "pcap") -> bytes:
    file = io.BytesIO()
    writer = dpkt.pcapng.Writer(file) if form == "pcapng" else dpkt.pcap.Writer(file)
    for at, packet in enumerate(packets):
        writer.writepkt(packet, float(at))
    return file.getvalue()


def decoded(protocol: str, data: bytes, *options: str) -> tuple[list[str], str]:
    done = CliRunner().invoke(app, [protocol, *options, "-"], input=data)
    return [json.loads(line)["value"] for line in done.stdout.splitlines()], done.stderr


@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_a_capture_gives_what_the_meter_said_once_and_in_order(form: str) -> None:
    """Segments out of order, sent twice, overlapping, over the end of the sequence numbers; questions beside them."""
    whole = ROWS["electricity"] + ROWS["heat"]
    first = 2**32 - 30
    pieces = [(first + at, whole[at : at + 20]) for at in range(0, len(whole), 20)]
    pieces += [(first + 10, whole[10:45]), pieces[2]]
    Random(3).shuffle(pieces)
    packets = [segment(METER, GATEWAY, first - 1, b"", 0x12)]
    packets += [segment(GATEWAY, METER, 7, bytes.fromhex("105b075e16"))]  # a question is no reading
    packets += [segment(METER, GATEWAY, number, data) for number, data in pieces]
    values, errors = decoded("mbus", capture(packets, form))
    assert values == decoded("mbus", whole)[0]
    assert errors == ""


def test_a_capture_with_a_lost_segment_gives_the_telegrams_behind_it() -> None:
    whole = ROWS["electricity"] * 3
    size = len(ROWS["electricity"])
    kept = [(at, whole[at : at + 10]) for at in range(0, len(whole), 10) if at != size - size % 10 + 10]
    values, errors = decoded("mbus", capture([segment(METER, GATEWAY, 1 + number, data) for number, data in kept]))
    assert len(values) >= 2 * len(decoded("mbus", ROWS["electricity"])[0])
    assert errors


@pytest.mark.parametrize(
    "data", [b"", b"\x55" * 100, struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 99, 147) + b"x" * 40]
)
def test_a_capture_that_is_none_is_an_error_and_no_traceback(data: bytes) -> None:
    head = b"\xd4\xc3\xb2\xa1" + data if not data.startswith(b"\xd4\xc3") else data
    with pytest.raises(StromkreisError, match="capture"):
        captured(io.BytesIO(b""), head)


@given(st.binary(max_size=400))
def test_any_bytes_behind_the_head_of_a_capture(data: bytes) -> None:
    good = capture([segment(METER, GATEWAY, 1, b"abc")])
    with contextlib.suppress(StromkreisError):
        captured(io.BytesIO(b""), good + data)


TASMOTA = "".join(
    f"19:12:{at:02d}.123 : {ROWS['emh-two-way'][at * 16 : at * 16 + 16].hex(' ')}\n"
    for at in range(len(ROWS["emh-two-way"]) // 16 + 1)
)
ESPHOME = "".join(
    f"\x1b[0;36m[08:00:{at:02d}][D][uart_debug:114]: <<< {ROWS['emh-two-way'][at * 9 :][:9].hex(':').upper()}\x1b[0m\n"
    f"[08:00:{at:02d}][D][uart_debug:114]: >>> 2F:3F:21:0D:0A\n"
    for at in range(len(ROWS["emh-two-way"]) // 9 + 1)
)
DUMP = "".join(
    f"22:05:{at:02d} : {ROWS['emh-two-way'][at * 16 : at * 16 + 16].hex(' ')} \n"
    '22:05:00 MQT: tele/meter/SENSOR = {"Time":"2026-10-30T22:05:01","SML":{"Id":"0a01454d480000000001"}}\n'
    for at in range(len(ROWS["emh-two-way"]) // 16 + 1)
)
ASKED = (
    "22:05:01 CMD: sensor53 d1\n"
    '22:05:01 RSL: stat/meter/RESULT = {"Time":"2026-10-30T22:05:01","SML":{"CMD":"dump: 1"}}\n'
)
PRETTY = f"[14:20:35][D][espdm:073]: {ROWS['rows'].hex('.').upper()} ({len(ROWS['rows'])})\n"


@pytest.mark.parametrize(("protocol", "text", "vector"), [
    ("sml", TASMOTA, "emh-two-way"), ("sml", ESPHOME, "emh-two-way"), ("dlms", PRETTY, "rows"),
    ("sml", ASKED + DUMP, "emh-two-way"), ("sml", ASKED + TASMOTA.replace(" : ", " :>"), "emh-two-way"),
    ("dlms", f"[D][uart_debug:158]: <<< {ROWS['rows'].hex(':')}\n", "rows"),
    ("dlms", f"2026-03-04 14:20:35,001 octets {ROWS['rows'].hex(' ')}\n", "rows"),
    ("dlms", f"14:20:35.001 RSL: {ROWS['rows'].hex()}\n", "rows"),
])  # fmt: skip
def test_a_log_with_octets_in_hexadecimal(protocol: str, text: str, vector: str) -> None:
    assert is_log(text.encode())
    assert decoded(protocol, text.encode()) == decoded(protocol, ROWS[vector])
    assert b"".join(octets_of_log([text.encode()])) == ROWS[vector]
    assert b"".join(octets_of_log(text[at : at + 5].encode() for at in range(0, len(text), 5))) == ROWS[vector]


def test_text_telegrams_are_not_taken_for_a_log() -> None:
    for row in ("dsmr-5", "mode-c", "heat-meter"):
        assert not is_log(ROWS[row])
