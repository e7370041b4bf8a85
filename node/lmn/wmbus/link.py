"""
The wireless M-Bus data link layer (EN 13757-4 clause 12): block check sums, frame formats A and B, and addresses.

Format A: a first block of L, C, M and A field, then blocks of at most 16 octets, each with two octets of CRC that L
does not count.  Format B: one or two large blocks, whose CRCs L counts.  Many receivers check and strip the CRCs and
hand over L and the rest; nothing in the octets says which of the three it is, so the sizes decide and the CRCs
confirm: a datagram that only fits by size but whose CRC is false is refused, never taken for a stripped one unless
the size says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from node.lmn.mbus.crc import crc16
from node.lmn.mbus.device import DeviceAddress
from protocol.errors import RemoteProtocolError

_FORMAT_B_BLOCK: Final = 128  # first two blocks together, with their CRC


class Format(Enum):
    """How a datagram is framed on the air; STRIPPED where the receiver removed the check sums."""

    A = "A"
    B = "B"
    STRIPPED = "stripped"


def size_on_air(length: int, frame_format: Format) -> int:
    """Octets of a whole datagram with this L field, L included."""
    if frame_format is not Format.A:
        return length + 1
    return length + 1 + 2 * (1 + -(-max(length - 9, 0) // 16))


def _blocks(data: bytes, frame_format: Format) -> list[tuple[int, int]]:
    """(start, end) of each block with its CRC."""
    if frame_format is Format.A:
        starts = [0, *range(12, len(data), 18)]
    else:
        starts = [0, _FORMAT_B_BLOCK] if len(data) > _FORMAT_B_BLOCK else [0]
    return list(zip(starts, [*starts[1:], len(data)], strict=True))


def strip(data: bytes, frame_format: Format) -> bytes:
    """
    The datagram without its check sums and with L counting what is left.

    Raises RemoteProtocolError where it is cut off or a block's CRC is false.
    """
    if len(data) < 1 or len(data) < size_on_air(data[0], frame_format):
        raise RemoteProtocolError("datagram_truncated", "fewer octets than the length field says", offset=len(data))
    data = data[: size_on_air(data[0], frame_format)]
    if frame_format is Format.STRIPPED:
        return data
    out = bytearray()
    for start, end in _blocks(data, frame_format):
        if end - start < 3 or crc16(data[start : end - 2]) != int.from_bytes(data[end - 2 : end], "big"):
            raise RemoteProtocolError("block_crc", f"a block of format {frame_format.value} is damaged", offset=start)
        out += data[start : end - 2]
    out[0] = len(out) - 1
    return bytes(out)


def seal(datagram: bytes, frame_format: Format) -> bytes:
    """A stripped datagram with check sums, `strip` reversed.  Raises ValueError where it grows too long."""
    if frame_format is Format.STRIPPED:
        return datagram
    if frame_format is Format.A:
        blocks = [datagram[:10], *(datagram[start : start + 16] for start in range(10, len(datagram), 16))]
    else:
        limit = _FORMAT_B_BLOCK - 2
        blocks = [datagram[:limit], datagram[limit:]] if len(datagram) > limit else [datagram]
        length = len(datagram) - 1 + 2 * len(blocks)
        if length > 255:
            raise ValueError("too long for frame format B")
        blocks[0] = bytes([length]) + blocks[0][1:]
    return b"".join(block + crc16(block).to_bytes(2, "big") for block in blocks)


def guess_format(data: bytes) -> Format:
    """
    The format of one whole datagram of unknown origin, by its size and, where that fits twice, by its CRC.

    One octet more than expected is taken as the signal strength that some receivers append.  Raises
    RemoteProtocolError where nothing fits.
    """
    if not data:
        raise RemoteProtocolError("datagram_empty", "no octets")
    length = data[0]
    if len(data) == size_on_air(length, Format.A) and len(data) > length + 2:
        return Format.A
    if len(data) in (length + 1, length + 2):
        try:
            strip(data, Format.B)
        except RemoteProtocolError:
            return Format.STRIPPED
        return Format.B if length >= 12 else Format.STRIPPED
    if len(data) > length + 1:
        raise RemoteProtocolError("length_field", "more octets than the length field says", offset=0)
    raise RemoteProtocolError("datagram_truncated", "fewer octets than the length field says", offset=len(data))


@dataclass(frozen=True, slots=True)
class LinkHeader:
    """C field and sender's address of a stripped datagram, and all that follows."""

    control: int
    address: DeviceAddress
    rest: bytes


# Control fields (EN 13757-4 table 24): from the meter, and from the other side.
SND_NR: Final = 0x44
SND_IR: Final = 0x46
ACC_NR: Final = 0x47
ACC_DMD: Final = 0x48
RSP_UD: Final = 0x08
SND_NKE: Final = 0x40
REQ_UD2: Final = 0x5B


def take_link_header(datagram: bytes) -> LinkHeader:
    """The first ten octets of a stripped datagram.  Raises RemoteProtocolError where they are not there."""
    if len(datagram) < 11:
        raise RemoteProtocolError("datagram_truncated", "shorter than a link header and a CI field", offset=0)
    if datagram[0] != len(datagram) - 1:
        raise RemoteProtocolError("length_field", "the length field is not the datagram's length", offset=0)
    return LinkHeader(datagram[1], DeviceAddress.from_link(datagram[2:10]), datagram[10:])
