"""
A meter's telegram to readings, and a damaged one to an error that says where.

    python examples/decode_telegram.py [FILE]

Without a file it is a telegram of our own from tests/data; `FILE` holds the octets of any SML stream.
"""

import json
import sys
from pathlib import Path

from node.lmn.sml.decode import decode_stream
from protocol.errors import RemoteProtocolError
from protocol.metering.units import unit_symbol

VECTORS = Path(__file__).parents[1] / "tests" / "data" / "meters" / "sml.jsonl"


def show(stream: bytes) -> None:
    """Print each reading, or what is wrong and at which octet."""
    for item in decode_stream([stream]):
        if isinstance(item, RemoteProtocolError):
            print(f"octet {item.offset}: {item.reason}: {item.detail}")
        else:
            value = f"{item.value!r} x 10^{item.scaler} {unit_symbol(item.unit or 0)}"
            print(f"{item.device}  {item.obis}  {value}  {item.quality.name.lower()}")


def main() -> None:
    """Decode the file, or a telegram of ours as it is and with one octet changed."""
    if len(sys.argv) > 1:
        show(Path(sys.argv[1]).read_bytes())
        return
    with VECTORS.open(encoding="utf-8") as rows:
        telegram = bytes.fromhex(json.loads(next(rows))["hex"])
    show(telegram)
    middle = len(telegram) // 2
    show(telegram[:middle] + bytes([telegram[middle] ^ 1]) + telegram[middle + 1 :])


if __name__ == "__main__":
    main()
