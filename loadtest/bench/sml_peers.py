"""
SML decoding by other people's libraries, as a process that reads its commands from its standard input.

Runs in a virtual environment of its own (`requirements-peers-sml.lock`), which has the peers and nothing of ours; hence
it imports nothing of ours.  One JSON object per line in, one out:

    {"decode": [hex frame, ...]} -> a list per frame: [[obis, value, scaler, unit], ...], or a text: why it was refused
    {"frames": [hex frame, ...]} -> keeps them for the rounds
    {"rounds": n}                -> CPU seconds of n runs over the kept frames, from bytes to every register's fields

`smllib` gives the mantissa and the scaler; `pysml` gives the scaled number as a float and the unit's symbol.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from time import process_time
from typing import Any

Registers = list[list[Any]]


def _smllib() -> Callable[[bytes], Registers]:
    reader = import_module("smllib").SmlStreamReader()

    def decode(frame: bytes) -> Registers:
        reader.clear()
        reader.add(frame)
        found = reader.get_frame()
        if found is None:
            raise ValueError("no frame")
        return [
            [entry.obis.obis_code, entry.value, entry.scaler, entry.unit]
            for message in found.parse_frame()
            for entry in getattr(message.message_body, "val_list", ())
        ]

    return decode


def _pysml() -> Callable[[bytes], Registers]:
    base = import_module("sml").SmlBase

    def decode(frame: bytes) -> Registers:
        _, messages = base.find_frame(frame)
        if messages is None:
            raise ValueError("no frame")
        return [
            [entry.get("objName"), entry.get("value"), None, entry.get("unit")]
            for message in messages
            for entry in _listed(message["messageBody"])
        ]

    def _listed(body: Any) -> list[Any]:
        return list(body.get("valList", ())) if isinstance(body, dict) else []

    return decode


def _refusable(decode: Callable[[bytes], Registers], frame: bytes) -> Registers | str:
    try:
        return decode(frame)
    except Exception as error:  # noqa: BLE001 - whatever a peer raises is its refusal
        return f"{type(error).__name__}: {error}"[:200]


def main() -> None:
    """Serve the peer named on the command line until its input ends."""
    decode = {"smllib": _smllib, "pysml": _pysml}[sys.argv[1]]()
    frames: list[bytes] = []
    for line in sys.stdin:
        order = json.loads(line)
        answer: Any = None
        if "decode" in order:
            answer = [_refusable(decode, bytes.fromhex(text)) for text in order["decode"]]
        if "frames" in order:
            frames = [bytes.fromhex(text) for text in order["frames"]]
        if "rounds" in order:
            begin = process_time()
            for _ in range(order["rounds"]):
                for frame in frames:
                    decode(frame)
            answer = process_time() - begin
        print(json.dumps(answer, default=_plain), flush=True)


def _plain(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    main()
