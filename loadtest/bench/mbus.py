"""
How fast M-Bus is decoded, beside pyMeterBus in the same run, and wireless telegrams under security mode 5.

    python -m loadtest.bench.mbus [--seconds 3] [--peer PYTHON]

Wired: the telegrams that our simulated meters of four media send, from bytes to JSON text, once here and once in
pyMeterBus (its `load` and `to_JSON`) in its own interpreter; both take turns in short slices so that whatever else
the machine does meets both alike, and both count processor time.  Wireless: stripped datagrams of mode 5, each with
its own access number, to readings.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from loadtest.meters.mbus import MBusMeter, answers
from loadtest.meters.mbus_records import Register, Registers
from loadtest.meters.wmbus import WirelessMeter
from node.lmn.mbus.decode import decode_stream
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.keys import KeyStore
from node.lmn.mbus.link import ShortFrame
from node.lmn.wmbus.receiver import Receiver
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading

RATIO_MIN: Final = 3.0
WIRELESS_PER_S_MIN: Final = 5_000.0
SLICE_COUNT: Final = 6
_FRAMES_IN_A_ROW: Final = 25  # a bus is one stream: one decoder for many frames, one JSON line per reading
_CLOCK: Final = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
_PEER: Final = """
import json, sys, time, meterbus
frames = [bytes.fromhex(line) for line in json.loads(sys.stdin.readline())]
for line in sys.stdin:
    until, count, begun = float(line), 0, time.process_time()
    while time.process_time() - begun < until:
        for frame in frames:
            meterbus.load(frame).to_JSON()
        count += len(frames)
    print(json.dumps([count, time.process_time() - begun]), flush=True)
"""


def _registers(medium: int) -> list[Register]:
    electricity = [
        (Obis(1, 0, 1, 8, tariff, 255), 123456789 + tariff, -1, 30) for tariff in range(3)
    ] + [(Obis(1, 0, 2, 8, 0, 255), 23456789, -1, 30), (Obis(1, 0, 1, 7, 0, 255), -431, 0, 27)]  # fmt: skip
    heat = [
        (Obis(6, 0, 1, 0, 0, 255), 1234, 3, 30), (Obis(6, 0, 1, 2, 0, 255), 1111, 3, 30),
        (Obis(6, 0, 2, 0, 0, 255), 12345, -2, 13), (Obis(6, 0, 8, 0, 0, 255), 12, 2, 27),
        (Obis(6, 0, 10, 0, 0, 255), 653, -1, 9), (Obis(6, 0, 11, 0, 0, 255), 412, -1, 9),
    ]  # fmt: skip
    return {
        2: electricity,
        3: [(Obis(7, 0, 3, 0, 0, 255), 12345678, -3, 13)],
        4: heat,
        7: [(Obis(8, 0, 1, 0, 0, 255), 876543, -3, 13), (Obis(8, 0, 2, 0, 0, 255), 17, -3, 15)],
    }[medium]


def _source(medium: int) -> Registers:
    return lambda _: _registers(medium)


def wired_frames() -> list[bytes]:
    """One telegram of each medium."""
    frames = []
    for medium in (2, 3, 4, 7):
        device = DeviceAddress(9835, "12345678", 1, medium)
        meter = MBusMeter(device, _source(medium), lambda: _CLOCK, primary=1)
        frames.append(answers([meter], ShortFrame(0x7B, 1)))
    return frames


def _rate(work: Callable[[], int], seconds: float) -> tuple[int, float]:
    count, begun = 0, time.process_time()
    while (spent := time.process_time() - begun) < seconds:
        count += work()
    return count, spent


def _decode_wired(frames: list[bytes]) -> int:
    for item in decode_stream(frames * _FRAMES_IN_A_ROW):
        if isinstance(item, Reading):
            json.dumps(item.to_json())
    return len(frames) * _FRAMES_IN_A_ROW


def wired(seconds: float, peer: Path | None) -> tuple[float, float | None]:
    """Frames per second of processor time, ours and pyMeterBus'."""
    frames = wired_frames()
    process = None
    if peer is not None:
        command = [str(peer), "-c", _PEER]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    ours = [0, 0.0]
    theirs = [0, 0.0]
    _decode_wired(frames)
    try:
        if process is not None and process.stdin is not None:
            process.stdin.write(json.dumps([frame.hex() for frame in frames]) + "\n")
        for _ in range(SLICE_COUNT):
            count, spent = _rate(lambda: _decode_wired(frames), seconds / SLICE_COUNT)
            ours = [ours[0] + count, ours[1] + spent]
            if process is not None and process.stdin is not None and process.stdout is not None:
                process.stdin.write(f"{seconds / SLICE_COUNT}\n")
                process.stdin.flush()
                count, spent = json.loads(process.stdout.readline())
                theirs = [theirs[0] + count, theirs[1] + spent]
    finally:
        if process is not None:
            process.communicate()
    return ours[0] / ours[1], theirs[0] / theirs[1] if theirs[1] else None


def wireless(seconds: float) -> float:
    """Telegrams of mode 5 per second of processor time."""
    key = bytes(range(16))
    meter = WirelessMeter(
        DeviceAddress(9835, "12345678", 1, 2), _source(2), lambda: _CLOCK, key=key, mode=5
    )  # fmt: skip
    datagrams = [meter.datagram() for _ in range(256)]
    receiver = Receiver(KeyStore({"1ISK0112345678": key}))

    def work() -> int:
        for datagram in datagrams:
            receiver.decode(datagram, _CLOCK)
        return len(datagrams)

    work()
    count, spent = _rate(work, seconds)
    return count / spent


def main() -> int:
    """Print the figures as JSON; exit status 1 where a target is missed."""
    parser = argparse.ArgumentParser(description="M-Bus decoding against pyMeterBus, wireless M-Bus mode 5")
    parser.add_argument("--seconds", type=float, default=3.0, help="processor time for each measurement")
    parser.add_argument("--peer", type=Path, default=None, help="Python of an environment with pyMeterBus")
    arguments = parser.parse_args()
    peer = arguments.peer or Path(os.environ.get("STROMKREIS_PEERS_MBUS") or ".venv-peers-mbus/bin/python")
    ours, theirs = wired(arguments.seconds, peer if peer.exists() else None)
    radio = wireless(arguments.seconds)
    ratio = None if theirs is None else ours / theirs
    figures = {
        "mbus_frames_per_s": round(ours),
        "pymeterbus_frames_per_s": None if theirs is None else round(theirs),
        "mbus_ratio": None if ratio is None else round(ratio, 1),
        "mbus_ratio_min": RATIO_MIN,
        "wmbus_mode5_telegrams_per_s": round(radio),
        "wmbus_mode5_telegrams_per_s_min": WIRELESS_PER_S_MIN,
    }
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    return 0 if (ratio is None or ratio >= RATIO_MIN) and radio >= WIRELESS_PER_S_MIN else 1


if __name__ == "__main__":
    sys.exit(main())
