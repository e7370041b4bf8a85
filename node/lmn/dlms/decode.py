"""
`stromkreis decode dlms`: readings out of a recording, whatever it was recorded from.

The first bytes say what it is: a flag for HDLC, 00 01 for the TCP wrapper, otherwise APDUs one after the other,
with or without LLC header.  In HDLC the reader finds its way back after any damage; the other two have no marks to
find, so that an error ends them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from node.lmn.dlms import apdu
from node.lmn.dlms.axdr import Reader
from node.lmn.dlms.push import PushReceiver
from node.lmn.dlms.security import Keys
from node.lmn.dlms.transport import LLC_COMMAND, LLC_RESPONSE, WrapperReader
from node.lmn.hdlc.frame import FrameReader
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.reading import Reading

BARE_SIZE_MAX: Final = 1 << 18
Decoded = Reading | RemoteProtocolError


def decode_stream(chunks: Iterable[bytes], key: bytes | None = None) -> Iterator[Decoded]:
    """
    Readings and errors in the order of the stream, independent of how it is cut into chunks.

    `key` is the encryption key (16 bytes: tags go unchecked, readings come as UNVERIFIED) or encryption and
    authentication key together (32 bytes).  Raises LocalProtocolError for a key of another length; never holds more
    than one message (256 KiB for bare APDUs) and the chunk in hand.
    """
    if key is not None and len(key) not in (16, 32):
        raise LocalProtocolError("a key has 16 bytes, or 32 with the authentication key")
    receiver = PushReceiver(keys=None if key is None else Keys(key[:16], key[16:]), plain_allowed=True)
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
    elif head[0] in _BEGINNINGS:
        yield from _bare(_chain(head, pieces), receiver)
    else:
        yield from _hdlc(_chain(head, pieces), receiver)


_BEGINNINGS: Final = frozenset(
    {0xE6, 0x0F, 0xC2, 0xDB, 0xDC, 0xE0, apdu.GLOBAL_TAGS[0xC2]}  # LLC, notifications, ciphering, blocks
)


def _chain(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
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
