"""
The frames that carry TLS records (draft-ietf-aft-socks-ssl-00, "SSL record framing").

    VER (1) = 0x01 | STATE (1) | LEN (2, big-endian) | DATA (LEN)

Sent is one TLS record a frame.  What is received may be cut anywhere: DATA is a stream of octets, and a frame is handed
on as it comes, so that nothing but its header ever waits here.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from protocol.errors import LocalProtocolError, RemoteProtocolError

VERSION: Final = 0x01
_HEADER_SIZE: Final = 4
_RECORD_HEADER_SIZE: Final = 5


class State(IntEnum):
    """What a frame belongs to."""

    INITIAL_HANDSHAKE = 0x01
    OPTION_NEGOTIATION = 0x02
    DATA_FLOW = 0x03
    CLOSING_HANDSHAKE = 0x04


class FrameReader:
    """Takes frames apart."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._state = State.INITIAL_HANDSHAKE
        self._missing = 0

    def receive(self, data: bytes) -> Iterator[tuple[State, bytes]]:
        """
        The contents of frames as they come, each part with its frame's state; an empty frame is one empty part.

        Raises RemoteProtocolError `bad_frame` for another version or an unknown state.
        """
        at = 0
        while at < len(data):
            if self._missing:
                part = data[at : at + self._missing]
                self._missing -= len(part)
                at += len(part)
                yield self._state, part
                continue
            wanted = _HEADER_SIZE - len(self._header)
            self._header += data[at : at + wanted]
            at += wanted
            if len(self._header) == _HEADER_SIZE:
                self._begin()
                if not self._missing:
                    yield self._state, b""

    def _begin(self) -> None:
        version, state = self._header[0], self._header[1]
        if version != VERSION:
            raise RemoteProtocolError("bad_frame", f"version {version}, expected {VERSION}")
        try:
            self._state = State(state)
        except ValueError:
            raise RemoteProtocolError("bad_frame", f"state {state}, expected 1 to 4") from None
        self._missing = int.from_bytes(self._header[2:])
        self._header.clear()


def frames(state: State, records: bytes) -> bytes:
    """Whole TLS records, each in a frame.  Raises LocalProtocolError where the last one is not whole."""
    framed = bytearray()
    at = 0
    while at < len(records):
        size = _RECORD_HEADER_SIZE + int.from_bytes(records[at + 3 : at + 5])
        record = records[at : at + size]
        if len(record) != size:
            raise LocalProtocolError("a TLS record that is not whole")
        framed += bytes((VERSION, state)) + size.to_bytes(2) + record
        at += size
    return bytes(framed)
