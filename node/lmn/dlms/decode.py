"""
`stromkreis decode dlms`: readings out of a recording, whatever it was recorded from.

The TCP wrapper begins with 00 01.  Frames, HDLC's or the M-Bus' of Austrian meters, are looked for in the first 4 KiB,
because whoever records a live line begins in the middle of one.  What holds none and begins like an APDU is APDUs one
after the other, with or without LLC header.  In frames the reader finds its way back after any damage; the other two
have no marks to find, so that an error ends them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from node.lmn.dlms import apdu
from node.lmn.dlms.axdr import Reader
from node.lmn.dlms.layout import LayoutBook, find_layout
from node.lmn.dlms.mbus_bearer import carries_dlms
from node.lmn.dlms.push import PushReceiver
from node.lmn.dlms.security import Keys
from node.lmn.dlms.transport import LLC_COMMAND, LLC_RESPONSE, WrapperReader
from node.lmn.hdlc.frame import Frame, FrameReader
from node.lmn.mbus.link import LONG_START
from node.lmn.mbus.link import FrameReader as MbusReader
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.reading import Reading

BARE_SIZE_MAX: Final = 1 << 18
SEARCH_SIZE: Final = 4096  # a frame of each kind fits in twice, and whoever begins inside one still sees the next whole
_PIECE_SIZE: Final = 512
Decoded = Reading | RemoteProtocolError
_Read = Callable[[Iterator[bytes], PushReceiver], Iterator[Decoded]]


def decode_stream(
    chunks: Iterable[bytes], key: bytes | None = None, *, layouts: Sequence[str] = ()
) -> Iterator[Decoded]:
    """
    Readings and errors in the order of the stream, independent of how it is cut into chunks.

    `key` is the encryption key (16 bytes: tags go unchecked, readings come as UNVERIFIED) or encryption and
    authentication key together (32 bytes).  `layouts` names those of lists without names, or files with one (see
    `layout`).  Raises LocalProtocolError for a key of another length or no such layout; never holds more than one
    message (256 KiB for bare APDUs) and the chunk in hand.
    """
    if key is not None and len(key) not in (16, 32):
        raise LocalProtocolError("a key has 16 bytes, or 32 with the authentication key")
    book = LayoutBook(tuple(map(find_layout, layouts)))
    keys = None if key is None else Keys(key[:16], key[16:])
    receiver = PushReceiver(keys=keys, layouts=book, plain_allowed=True)
    pieces = iter(chunks)
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= 2:
            break
    if not head:
        return
    if head[:2] == b"\x00\x01":
        yield from _wrapped(_chain(head, pieces), receiver)
        return
    read, head = _search(head, pieces)
    yield from read(_chain(head, pieces), receiver)


_BEGINNINGS: Final = frozenset(
    {0xE6, 0x0F, 0xC2, 0xDB, 0xDC, 0xE0, apdu.GLOBAL_TAGS[0xC2]}  # LLC, notifications, ciphering, blocks
)


def _search(head: bytes, pieces: Iterator[bytes]) -> tuple[_Read, bytes]:
    """What reads the stream, by the first whole frame in it, and what was taken from the stream to find it."""
    hdlc, mbus = FrameReader(), MbusReader()
    taken = bytearray(head)
    searched = 0
    while True:
        for value in taken[searched:SEARCH_SIZE]:  # byte by byte: the first frame decides, however the stream is cut
            byte = bytes((value,))
            if any(isinstance(item, Frame) for item in hdlc.feed(byte)):
                return _hdlc, bytes(taken)
            if any(not isinstance(item, RemoteProtocolError) and carries_dlms(item) for item in mbus.feed(byte)):
                return _mbus, bytes(taken)
        searched = len(taken)
        piece = next(pieces, None) if len(taken) < SEARCH_SIZE else None
        if piece is None:
            break
        taken += piece
    if head[0] in _BEGINNINGS:
        return _bare, bytes(taken)
    return _mbus if head[0] == LONG_START else _hdlc, bytes(taken)


def _chain(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    for start in range(0, len(head), _PIECE_SIZE):  # a reader gives all that a piece holds at once
        yield head[start : start + _PIECE_SIZE]
    yield from rest


def _hdlc(chunks: Iterator[bytes], receiver: PushReceiver) -> Iterator[Decoded]:
    reader = FrameReader()
    count = 0
    for last in (False, True):
        for chunk in (b"",) if last else chunks:
            for item in reader.end() if last else reader.feed(chunk):
                count += 1
                if isinstance(item, RemoteProtocolError):
                    receiver.reset()
                    yield item
                    continue
                try:
                    yield from receiver.frame(item)
                except RemoteProtocolError as error:
                    receiver.reset()
                    yield error
    if not count:
        yield RemoteProtocolError("dlms_no_frame", "neither a frame nor an APDU begins here", offset=0)


def _mbus(chunks: Iterator[bytes], receiver: PushReceiver) -> Iterator[Decoded]:
    reader = MbusReader()
    for last in (False, True):
        for chunk in (b"",) if last else chunks:
            for item in reader.finish() if last else reader.feed(chunk):
                if isinstance(item, RemoteProtocolError):
                    receiver.reset()
                    yield item
                    continue
                yield from receiver.mbus_frame(item)


def _wrapped(chunks: Iterator[bytes], receiver: PushReceiver) -> Iterator[Decoded]:
    reader = WrapperReader()
    for chunk in chunks:
        for item in reader.feed(chunk):
            if isinstance(item, RemoteProtocolError):
                yield item
            else:
                yield from _message(receiver, item[2])
    if reader.pending:
        yield RemoteProtocolError("dlms_truncated", "the stream ends within a packet")


def _message(receiver: PushReceiver, packet: bytes) -> Iterator[Decoded]:
    try:
        yield from receiver.message(packet)
    except RemoteProtocolError as error:
        yield error


def _bare(chunks: Iterator[bytes], receiver: PushReceiver) -> Iterator[Decoded]:
    data = bytearray()
    for chunk in chunks:
        data += chunk[: BARE_SIZE_MAX + 1 - len(data)]
    if len(data) > BARE_SIZE_MAX:
        yield RemoteProtocolError("dlms_too_large", f"more than {BARE_SIZE_MAX} bytes without any frame")
        return
    reader = Reader(bytes(data))
    while reader.remaining:
        if reader.peek(3) in (LLC_RESPONSE, LLC_COMMAND):
            reader.take(3)
        try:
            message = apdu.read_apdu(reader)
        except RemoteProtocolError as error:
            yield error
            return
        try:
            yield from receiver.received(message)
        except RemoteProtocolError as error:
            yield error
