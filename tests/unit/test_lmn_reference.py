"""docs/reference/lmn.md says of each recorded file how many telegrams it has and how many are decoded: counted anew."""

import json
import re
from pathlib import Path

import pytest

from protocol.metering.reading import Reading
from stromkreis.decode import MeterProtocol, decoder

ROOT = Path(__file__).parents[2]
CORPORA = ROOT / "../shared/corpora"
KEY_DIGITS = 32
PROTOCOLS = {
    "sml/frames.jsonl": MeterProtocol.SML,
    "mbus/libmbus.jsonl": MeterProtocol.MBUS,
    "wmbus/telegrams.jsonl": MeterProtocol.WMBUS,
    "wmbus/oms_vectors.jsonl": MeterProtocol.WMBUS,
    "dlms/frames.jsonl": MeterProtocol.DLMS,
    "dsmr/telegrams.jsonl": MeterProtocol.P1,
    "iec62056_21/readouts.jsonl": MeterProtocol.IEC62056_21,
}
pytestmark = pytest.mark.beside_repository


def listed() -> dict[str, tuple[int, int]]:
    """Telegrams and decoded ones, the first number of each cell."""
    table: dict[str, tuple[int, int]] = {}
    for line in (ROOT / "docs/reference/lmn.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        numbers = [re.match(r"\d+", cell) for cell in cells[2:4]]
        if len(cells) > 4 and cells[1] in PROTOCOLS and all(numbers) and cells[1] not in table:
            table[cells[1]] = (int(numbers[0][0]), int(numbers[1][0]))  # type: ignore[index]
    return table


@pytest.mark.parametrize("file", PROTOCOLS)
def test_the_reference_counts_what_is_in_a_file_and_what_is_decoded(file: str) -> None:
    rows = [json.loads(line) for line in (CORPORA / file).read_text(encoding="utf-8").splitlines()]
    decoded = 0
    for row in rows:
        protocol = MeterProtocol.MBUS if row.get("protocol") == "mbus-wired" else PROTOCOLS[file]
        key = [row["key"]] if len(str(row.get("key") or "")) == KEY_DIGITS else None
        texts = row.get("hex_sequence") or [row.get("hex_with_dll_crc") or row.get("hex")]
        if protocol is MeterProtocol.WMBUS:
            octets = "\n".join(texts).encode("ascii")
        else:
            octets = bytes.fromhex(texts[0]) if texts[0] else row["text"].encode("latin-1")
        items = list(decoder(protocol, key)([octets]))
        decoded += any(isinstance(item, Reading) for item in items)
    assert listed()[file] == (len(rows), decoded)
