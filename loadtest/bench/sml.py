"""
SML from bytes to readings: ours against smllib and pysml, in one run on the same frames.

    python -m loadtest.bench.sml [frames.jsonl]

Machines differ, and so do minutes, and others use them too: so CPU time, and pairs.  Each pair is one round of ours
right after one of the peer's (which runs in a process and an environment of its own, `STROMKREIS_PEERS_SML` or
.venv-peers-sml/bin/python); the figure is their ratio, with the quartiles of all pairs as its spread.  Both sides run
the same loop over the same frames with one stream reader.  Ours checks the CRC of the frame and of every message and
makes a `Reading` of each register; smllib checks the frame's only.

The frames are recordings where the file is given or beside the repository, else those of our own simulated meter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from time import process_time
from typing import Any

from loadtest.meters.sml import SmlMeter
from node.lmn.sml.readings import frame_readings
from node.lmn.sml.transport import Frame, TransportReader
from protocol.metering.obis import Obis
from protocol.metering.units import WATT_HOUR

_RECORDINGS = Path(__file__).parents[2] / "../shared/corpora/sml/frames.jsonl"
PEERS = ("smllib", "pysml")


def peers_python() -> Path | None:
    """The interpreter that has the peers, None where there is none."""
    path = Path(os.environ.get("STROMKREIS_PEERS_SML", ".venv-peers-sml/bin/python"))
    return path if path.is_file() else None


class Peer:
    """
    One peer library in its own process.

    Started with -P: its script's folder, which has an `sml` of ours, must not hide the peer's.
    """

    def __init__(self, name: str, python: Path) -> None:
        script = Path(__file__).with_name("sml_peers.py")
        self._process = subprocess.Popen(  # noqa: S603 - an interpreter that the operator named
            [python, "-P", script, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=10)

    def order(self, **order: Any) -> Any:
        """Send one order and wait for its answer.  Raises ValueError where the process has died."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise ValueError("the peer has no pipes")
        stdin.write(json.dumps(order) + "\n")
        stdin.flush()
        return json.loads(stdout.readline())


def recorded_frames(path: Path) -> list[bytes]:
    """The complete frames of a file of recordings."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [bytes.fromhex(row["hex"]) for row in rows if row["end"] == "end"]


def simulated_frames(count: int = 100) -> list[bytes]:
    """Frames of our own meters, for where there are no recordings."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    codes = [Obis(1, 0, c, d, e, 255) for c, d, e in ((1, 8, 0), (1, 8, 1), (1, 8, 2), (2, 8, 0), (16, 7, 0))]
    registers = [(code, 12_345_678, -1, WATT_HOUR) for code in codes]
    return [SmlMeter(f"1STK00{number:08d}", lambda _: registers).push(now) for number in range(count)]


def decode_all(frames: Sequence[bytes]) -> int:
    """Our side of the loop: how many readings came out."""
    count = 0
    reader = TransportReader()
    for frame in frames:
        for item in reader.feed(frame):
            if isinstance(item, Frame):
                count += len(frame_readings(item.payload))
    return count


def run(frames: Sequence[bytes], *, pairs: int = 15, ours_rounds: int = 10) -> dict[str, Any]:
    """
    Frames per second of ours and of each peer, and the ratio's median and quartiles over `pairs` pairs of rounds.

    A peer that refuses a frame stops there: only frames that both sides decode are measured, and their number is
    reported.  Without a peers environment the result has our figure only.
    """
    python = peers_python()
    result: dict[str, Any] = {"frames": len(frames), "readings": decode_all(frames), "peers": {}}
    begin = process_time()
    for _ in range(ours_rounds):
        decode_all(frames)
    result["ours_frames_per_s"] = round(ours_rounds * len(frames) / (process_time() - begin))
    for name in PEERS if python is not None else ():
        with Peer(name, python) as peer:  # type: ignore[arg-type]
            result["peers"][name] = _compare(peer, frames, pairs, ours_rounds)
    return result


def _compare(peer: Peer, frames: Sequence[bytes], pairs: int, ours_rounds: int) -> dict[str, Any]:
    answers = peer.order(decode=[frame.hex() for frame in frames])
    common = [frame for frame, answer in zip(frames, answers, strict=True) if isinstance(answer, list)]
    peer.order(frames=[frame.hex() for frame in common])
    decode_all(common)
    peer_rounds = max(1, int(0.05 / max(peer.order(rounds=1), 1e-9)))
    ratios, peer_rates, our_rates = [], [], []
    for _ in range(pairs):
        peer_s = peer.order(rounds=peer_rounds) / peer_rounds
        begin = process_time()
        for _ in range(ours_rounds):
            decode_all(common)
        ours_s = (process_time() - begin) / ours_rounds
        ratios.append(peer_s / ours_s)
        peer_rates.append(len(common) / peer_s)
        our_rates.append(len(common) / ours_s)
    low, _, high = quantiles(ratios, n=4)
    return {
        "frames": len(common),
        "peer_frames_per_s": round(median(peer_rates)),
        "ours_frames_per_s": round(median(our_rates)),
        "ratio_median": round(median(ratios), 2),
        "ratio_quartiles": [round(low, 2), round(high, 2)],
    }


def main() -> None:
    """Print the comparison as JSON."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else _RECORDINGS
    frames = recorded_frames(path) if path.is_file() else simulated_frames()
    print(json.dumps(run(frames), indent=2))


if __name__ == "__main__":
    main()
