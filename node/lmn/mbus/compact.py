"""
Compact frames (EN 13757-3 annex G): values without their headers, distinguished by a signature over the headers.

A meter sends a full telegram now and then and compact ones between.  A full telegram teaches the headers; a compact
one names them by a CRC and carries a CRC over the full telegram as it would have been, so a wrong guess cannot give a
wrong value: the full telegram is rebuilt and compared.  Anyone on the air can teach formats, so the memory is bounded,
and what was used last is kept longest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from node.lmn.mbus.crc import crc16
from node.lmn.mbus.records import Item, ManufacturerData, Record, parse_with_layout
from protocol.errors import RemoteProtocolError

Layout = tuple[bytes, ...]
FORMAT_COUNT_MAX: Final = 256


def signature_of(layout: Layout) -> int:
    """The format signature: CRC-16/EN-13757 over all headers."""
    return crc16(b"".join(layout))


class FormatCache:
    """
    Signature to headers; at most `count_max` are learnt, and of these the least recently used goes first.

    `known` are headers by signature that makers' meters are known to use: they need no full telegram and never go.
    """

    def __init__(self, count_max: int = FORMAT_COUNT_MAX, known: Mapping[int, Layout] | None = None) -> None:
        self._layouts: OrderedDict[int, Layout] = OrderedDict()
        self._known = known or {}
        self._count_max = count_max

    def __len__(self) -> int:
        return len(self._layouts)

    def learn(self, layout: Layout) -> None:
        """Remember the headers of a full telegram."""
        signature = signature_of(layout)
        self._layouts[signature] = layout
        self._layouts.move_to_end(signature)
        while len(self._layouts) > self._count_max:
            self._layouts.popitem(last=False)

    def expand(self, data: bytes) -> list[Item]:
        """
        The records of a compact frame: signature, CRC of the full telegram, values.

        Raises RemoteProtocolError("compact_format_unknown") until a full telegram of that format was seen, and
        "compact_frame_crc" where the rebuilt telegram is not the one that the meter meant.
        """
        if len(data) < 4:
            raise RemoteProtocolError("compact_frame_size", "no room for signature and CRC", offset=0)
        signature = int.from_bytes(data[:2], "little")
        layout = self._layouts.get(signature)
        if layout is not None:
            self._layouts.move_to_end(signature)
        else:
            layout = self._known.get(signature)
        if layout is None:
            raise RemoteProtocolError("compact_format_unknown", "no full telegram of this format was seen yet")
        items = list(parse_with_layout(layout, data[4:]))
        if crc16(rebuild(items)) != int.from_bytes(data[2:4], "little"):
            raise RemoteProtocolError("compact_frame_crc", "the rebuilt telegram has another check sum")
        return items


def rebuild(items: list[Item]) -> bytes:
    """The records of a full telegram."""
    out = bytearray()
    for item in items:
        match item:
            case Record(header, octets):
                out += header.octets + octets
            case ManufacturerData(octets, more):
                out += bytes([0x1F if more else 0x0F]) + octets
    return bytes(out)
