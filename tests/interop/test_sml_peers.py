"""
SML against software that nobody here wrote: smllib and pysml, in a virtual environment of their own.

They read what our simulated meter writes, and we read recordings as they do.  Each recording on which a side differs
is named with its reason.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from loadtest.bench.sml import PEERS, Peer, decode_all, peers_python, run, simulated_frames
from loadtest.meters.sml import SmlMeter
from node.lmn.sml.bodies import CloseResponse, GetListResponse, Message, OpenResponse
from node.lmn.sml.codec import Number
from node.lmn.sml.decode import decode_stream
from node.lmn.sml.messages import encode_file
from node.lmn.sml.transport import ESCAPE, wrap
from node.lmn.sml.values import SEC_INDEX, TIMESTAMP, ListEntry, Time
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading
from protocol.metering.units import unit_symbol

PYTHON = peers_python()
CORPUS = Path(__file__).parents[2] / "../shared/corpora/sml"
NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
IMPORT, EXPORT, POWER = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 2, 8, 0, 255), Obis(1, 0, 16, 7, 0, 255)

pytestmark = pytest.mark.skipif(
    PYTHON is None and "CI" not in os.environ,
    reason="no environment with the SML peers (STROMKREIS_PEERS_SML or .venv-peers-sml)",
)


@dataclass
class Named:
    """A peer that runs, and which it is."""

    name: str
    process: Peer

    def order(self, **what: Any) -> Any:
        return self.process.order(**what)


@pytest.fixture(params=PEERS)
def peer(request: pytest.FixtureRequest) -> Iterator[Named]:
    assert PYTHON is not None
    with Peer(request.param, PYTHON) as process:
        yield Named(request.param, process)


def ours(frame: bytes) -> tuple[list[Reading], list[RemoteProtocolError]]:
    items = list(decode_stream([frame]))
    errors = [item for item in items if isinstance(item, RemoteProtocolError)]
    return [item for item in items if not isinstance(item, RemoteProtocolError)], errors


def agree(name: str, reading: Reading, register: list[Any]) -> bool:
    """Whether a peer's [obis, value, scaler, unit] says the same as our reading."""
    obis, value, scaler, unit = register
    assert reading.obis is not None
    if obis not in (str(reading.obis), reading.obis.to_bytes().hex()):
        return False
    if not isinstance(reading.value, int):
        # The peers dress some octets up as text of their own making, each in its own way.
        return reading.value is None or not isinstance(value, int | float)
    if not isinstance(value, int | float):
        return False
    if name == "smllib":
        return (value, scaler or 0, unit or None) == (reading.value, reading.scaler, reading.unit)
    symbol = None if reading.unit is None else unit_symbol(reading.unit)
    return unit in (symbol, None, 0) and Decimal(repr(value)) == pytest.approx(reading.decimal(), rel=Decimal("1e-15"))


def frame_of(entries: Iterable[ListEntry]) -> bytes:
    return wrap(
        encode_file([
            Message(b"a", OpenResponse(None, None, b"1", b"meter", Time(SEC_INDEX, 5), 1)),
            Message(b"b", GetListResponse(None, b"meter", None, Time(SEC_INDEX, 5), tuple(entries))),
            Message(b"c", CloseResponse()),
        ])
    )  # fmt: skip


def extremes() -> Iterator[Number]:
    """A number of every size, positive, negative and at the limits."""
    for size in range(1, 9):
        limit = 2 ** (8 * size - 1)
        for value, is_signed in ((0, True), (1, True), (-1, True), (limit - 1, True), (-limit, True),
                                 (2 * limit - 1, False)):  # fmt: skip
            yield Number(value, size, signed=is_signed)


def test_the_peers_read_our_simulated_meters(peer: Named) -> None:
    frames = []
    for n in range(50):
        registers = [(IMPORT, 10**n % 10**15, -1, 30), (EXPORT, n, 0, 30), (POWER, 37 * n - 900, -1, 27)]
        meter = SmlMeter(f"1STK00{n:08d}", partial(lambda registers, _: registers, registers))
        frames.append(meter.push(NOW))
    for frame, registers in zip(frames, peer.order(decode=[frame.hex() for frame in frames]), strict=True):
        readings, errors = ours(frame)
        assert errors == []
        assert len(registers) == len(readings) == 4
        assert all(agree(peer.name, *pair) for pair in zip(readings, registers, strict=True))


def test_the_peers_read_every_size_of_number_and_long_lists(peer: Named) -> None:
    entries = [ListEntry(IMPORT.to_bytes(), 1, None, 30, 0, number) for number in extremes()]
    assert len(entries) == 48
    frame = frame_of(entries)
    (registers,) = peer.order(decode=[frame.hex()])
    readings, _ = ours(frame)
    assert [reading.value for reading in readings] == [number.value for number in extremes()]
    assert [register[1] for register in registers] == [reading.value for reading in readings]


@pytest.mark.parametrize("run_length", range(4, 13))
def test_the_peers_read_escaped_runs(peer: Named, run_length: int) -> None:
    octets = b"\x01" + b"\x1b" * run_length + b"\x02"
    frame = frame_of([ListEntry(Obis(1, 0, 96, 1, 1, 255).to_bytes(), None, None, None, None, octets)])
    assert ESCAPE * 2 in frame
    (registers,) = peer.order(decode=[frame.hex()])
    assert [reading.value for reading in ours(frame)[0]] == [octets]
    assert registers[0][1] == octets.hex()


def test_the_peers_read_times(peer: Named) -> None:
    entries = [ListEntry(IMPORT.to_bytes(), None, Time(TIMESTAMP, 1729848098), 30, -1, Number(5, 4, signed=False))]
    (registers,) = peer.order(decode=[frame_of(entries).hex()])
    assert len(registers) == 1


# Recordings on which we and a peer differ: on what, and why.
DIFFERENCES = {
    "smllib": {
        "DZG_DVS-7412.2_jmberg#0": ["1-0:16.7.0*255"],  # does not know that this meter's power is unsigned
        "smllib/test_frames.py#4": "message_crc",  # does not check the CRCs of messages; this one is wrong
        "smllib/test_frames.py#8": "CrcError",  # takes Kermit sums only where told to
    },
    "pysml": {
        "smllib/test_frames.py#4": "SmlParserError",  # refuses the wrong message CRC, as we do
        "smllib/test_frames.py#5": ["129-0:96.8.0*1"],  # leaves a time as value undecoded
        "smllib/test_frames.py#8": "ValueError",  # does not know Kermit sums
    },
}


@pytest.mark.beside_repository
def test_recordings_read_alike(peer: Named) -> None:
    rows = [json.loads(line) for line in (CORPUS / "frames.jsonl").read_text().splitlines()]
    rows += [json.loads(line) for line in (CORPUS / "smllib_frames.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row.get("framed", row.get("end") == "end")]
    differing: dict[str, Any] = {}
    same = 0
    for row, registers in zip(rows, peer.order(decode=[row["hex"] for row in rows]), strict=True):
        readings, errors = ours(bytes.fromhex(row["hex"]))
        if isinstance(registers, str):
            differing[row["id"]] = registers.partition(":")[0]
        elif errors:
            differing[row["id"]] = errors[0].reason
        else:
            odd = [str(a.obis) for a, b in zip(readings, registers, strict=True) if not agree(peer.name, a, b)]
            if odd:
                differing[row["id"]] = odd
            same += len(readings) - len(odd)
    assert differing == DIFFERENCES[peer.name]
    assert same == {"smllib": 702, "pysml": 702}[peer.name]


def test_the_benchmark_runs_and_we_are_faster() -> None:
    result = run(simulated_frames(20), pairs=3, ours_rounds=2)
    assert result["readings"] == decode_all(simulated_frames(20)) == 120
    assert set(result["peers"]) == set(PEERS)
    assert all(figures["frames"] == 20 and figures["ratio_median"] > 1 for figures in result["peers"].values())
