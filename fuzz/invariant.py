"""
The invariant of every LMN codec: any bytes, whole or in pieces, give readings or RemoteProtocolError and nothing else.

`hold` states it for one input: the decoder never raises, gives the same items however its input is cut, and every
item is a reading that can be shown or an error that can be reported.  Bounds are the fuzzer's to watch (time for one
input, memory of the process) and the tests' (`reader.buffered` and the like).

Check sums would end nearly every input at once: one in 65,536 gets past 16 bits.  So each is tried twice, as it
is and dressed: put into a frame whose sums are right, or ciphered under the key that the decoder is given.
"""

from __future__ import annotations

import importlib
import json
import string
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loadtest.meters.dlms import push_mbus_frames
from node.lmn.dlms.apdu import GeneralGlobalCiphering
from node.lmn.dlms.security import Keys, protect
from node.lmn.hdlc.frame import Address, Frame, FrameReader, Kind, crc_x25
from node.lmn.iec62056_21.checks import block_check, crc16_arc
from node.lmn.mbus import security
from node.lmn.mbus.device import DeviceAddress, manufacturer_code
from node.lmn.mbus.link import LongFrame, encode_frame
from node.lmn.mbus.makers.table import shipped_formats
from node.lmn.sml import crc
from node.lmn.sml.transport import wrap
from node.lmn.wmbus.framing import imst_frame
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading

Item = Reading | Frame | RemoteProtocolError
Decode = Callable[[Iterable[bytes]], Iterator[Item]]
Dress = Callable[[bytes], bytes]

OWN_VECTORS = Path(__file__).parents[1] / "tests/data/meters"
_VECTORS_OF = {"hdlc": "dlms", "p1-encrypted": "p1"}
_KEY = bytes(range(16))
_TITLE = b"STK\x00\x00\x00\x00\x01"
_METER = DeviceAddress.from_text("1STK0100000001", 2)


@dataclass(frozen=True, slots=True)
class Codec:
    """A decoder, how an input is dressed for it, and the corpus files (below ../shared/corpora) it starts from."""

    decode: Decode
    dress: tuple[Dress, ...]
    seeds: tuple[str, ...]


def hold(codec: Codec, data: bytes) -> None:
    """Raises AssertionError, or whatever the codec should not have raised, where the invariant does not hold."""
    _hold(codec.decode, data)
    if data:
        _hold(codec.decode, codec.dress[data[0] % len(codec.dress)](data[1:]))


def _hold(decode: Decode, data: bytes) -> None:
    whole = [_shown(item) for item in decode([data])]
    step = 1 if len(data) < 256 else 1 + len(data) // 97
    pieces = [_shown(item) for item in decode(data[i : i + step] for i in range(0, len(data), step))]
    assert whole == pieces, "the way the input is cut shows"


def _shown(item: Item) -> str:
    if isinstance(item, RemoteProtocolError):
        assert item.reason.isidentifier(), "a reason is a name"
        return f"{item.reason} {item.detail} {item.offset}"
    return json.dumps(item.to_json()) if isinstance(item, Reading) else repr(item)


def own_seeds(name: str) -> Iterator[bytes]:
    """The telegrams of tests/data/meters that the codec of this name reads."""
    row_file = OWN_VECTORS / f"{_VECTORS_OF.get(name, name)}.jsonl"
    for row in map(json.loads, row_file.read_text(encoding="utf-8").splitlines()):
        yield bytes.fromhex(row["hex"]) if "hex" in row else row["text"].encode("utf-8")


def seeds(codec: Codec, corpora: Path) -> Iterator[bytes]:
    """The telegrams of the codec's corpus files, each as it is."""
    for name in codec.seeds:
        for line in (corpora / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            digits = row.get("hex") or ""
            is_hexadecimal = digits and not set(digits) - set(string.hexdigits) and len(digits) % 2 == 0
            yield bytes.fromhex(digits) if is_hexadecimal else (row.get("text") or digits).encode("latin-1")


def _decoder(name: str, *arguments: object) -> Decode:
    decode = importlib.import_module(f"node.lmn.{name}.decode").decode_stream
    return lambda chunks: decode(chunks, *arguments)


def _hdlc(chunks: Iterable[bytes]) -> Iterator[Item]:
    reader = FrameReader()
    for chunk in chunks:
        yield from reader.feed(chunk)
    yield from reader.end()


def _hdlc_frame(content: bytes) -> bytes:
    head = b"\xa0" + bytes([len(content[:240]) + 3]) + content[:240]
    return b"\x7e" + head + crc_x25(head) + b"\x7e"


def _information(content: bytes) -> bytes:
    return Frame(Address(16), Address(1), Kind.UNNUMBERED_INFORMATION, False, content[:1500]).to_bytes()


def _segments(content: bytes) -> bytes:
    return push_mbus_frames(content[:2000])


def _ciphered(content: bytes) -> bytes:
    return GeneralGlobalCiphering(_TITLE, protect(content, Keys(_KEY, _KEY), _TITLE, 1)).to_bytes()


def _sml_message(body: bytes) -> bytes:
    message = b"\x76\x02\x00\x62\x00\x62\x00" + body
    return wrap(message + b"\x63" + crc.x25(message).to_bytes(2, "big") + b"\x00")


def _sml_list(body: bytes) -> bytes:
    return _sml_message(b"\x72\x63\x07\x01" + body)


def _mbus(ci: int, content: bytes) -> bytes:
    return encode_frame(LongFrame(0x08, 1, ci, content[:240]))


def _radio(content: bytes) -> bytes:
    return imst_frame(_datagram(content))


def _datagram(content: bytes) -> bytes:
    body = b"\x44" + _METER.to_link() + content[:200]
    return bytes([len(body)]) + body


def _makers(content: bytes) -> bytes:
    """A maker's own format: whose, is the first octet's to say."""
    tables = [each for each in shipped_formats() if each.where == "ci"]
    table = tables[content[0] % len(tables)] if content else tables[0]
    maker, version, medium = table.meters[0].split()
    address = DeviceAddress(manufacturer_code(maker), "00000001", int(version, 16), int(medium, 16))
    begin = table.begins[0] if table.begins else b""
    body = b"\x44" + address.to_link() + table.ci[0] + begin + content[1:200]
    return imst_frame(bytes([len(body)]) + body)


def _walk_by(content: bytes) -> bytes:
    address = DeviceAddress(manufacturer_code("QDS"), "00000001", 0x16, 7)
    inside = b"\x00\x82" + content[:51].ljust(51, b"\x00")
    body = b"\x44" + address.to_link() + b"\x78\x0d\xff\x5f\x35" + inside
    return imst_frame(bytes([len(body)]) + body)


def _rtl_433(content: bytes) -> bytes:
    row = {"model": "Wireless-MBus", "data": _datagram(content).hex(), "rssi": -12.5}
    return json.dumps(row).encode("ascii") + b"\n"


def _mode5(content: bytes) -> bytes:
    plain = security.VERIFICATION + content[:174]
    plain += b"\x2f" * (-len(plain) % 16)
    configuration = (len(plain) // 16 << 4 | 5 << 8).to_bytes(2, "little")
    sealed = security.encrypt_cbc(_KEY, security.mode5_vector(_METER, 1), plain)
    return imst_frame(_datagram(b"\x7a\x01\x00" + configuration + sealed))


def _readout(content: bytes) -> bytes:
    block = content.replace(b"\x03", b"") + b"!\r\n\x03"
    return b"/SKR5STK\r\n\x02" + block + bytes([block_check(block)])


def _p1(content: bytes) -> bytes:
    text = b"/SKR5\\2STK\r\n\r\n" + content.replace(b"!", b"") + b"\r\n!"
    return text + f"{crc16_arc(text):04X}\r\n".encode("ascii")


def _ciphered_p1(content: bytes) -> bytes:
    return _ciphered(_p1(content))


CODECS: dict[str, Codec] = {
    "sml": Codec(_decoder("sml"), (_sml_list, _sml_message, wrap), ("sml/frames.jsonl", "sml/smllib_frames.jsonl")),
    "hdlc": Codec(_hdlc, (_hdlc_frame, _information), ("dlms/frames.jsonl",)),
    "dlms": Codec(
        _decoder("dlms", _KEY + _KEY),
        (_information, _ciphered, _segments),
        ("dlms/frames.jsonl", "dlms/apdu_vectors.jsonl"),
    ),
    "mbus": Codec(_decoder("mbus"), tuple(partial(_mbus, ci) for ci in (0x72, 0x73, 0x78)), ("mbus/libmbus.jsonl",)),
    "wmbus": Codec(
        _decoder("wmbus", _KEY),
        (_radio, _mode5, _makers, _walk_by, _rtl_433),
        ("wmbus/telegrams.jsonl", "wmbus/oms_vectors.jsonl"),
    ),
    "iec62056-21": Codec(_decoder("iec62056_21"), (_readout, _p1), ("iec62056_21/readouts.jsonl",)),
    "p1-encrypted": Codec(_decoder("p1", _KEY + _KEY), (_ciphered, _ciphered_p1), ("dsmr/telegrams.jsonl",)),
    "p1": Codec(_decoder("p1"), (_p1,), ("dsmr/telegrams.jsonl",)),
}
