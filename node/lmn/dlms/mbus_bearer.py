"""
DLMS on wired M-Bus, as the customer interface of Austrian meters pushes it (IEC 62056-7-3).

A long frame with a CI field of 00 to 1F carries one segment: bits 0 to 3 count from 0, bit 4 marks the last one.
Before the segment stand two bytes, the source's and the destination's service access point.  Kaifa's MA309M and
Sagemcom's T210-D send a ciphered notification in two segments, to everyone (address FF).

The check sum of a frame has eight bits only; a segment that is missing, doubled or between two other access points
throws the message under way out.
"""

from __future__ import annotations

from typing import Final, TypeGuard

from node.lmn.mbus.link import SEGMENT_CI_MAX, Frame, LongFrame
from protocol.errors import RemoteProtocolError

LAST_SEGMENT: Final = 0x10


def carries_dlms(frame: Frame) -> TypeGuard[LongFrame]:
    """Whether a frame of an M-Bus is a segment of DLMS."""
    return isinstance(frame, LongFrame) and frame.ci <= SEGMENT_CI_MAX


class Segments:
    """Frames in, APDUs out; holds one message, at most 16 segments of 506 bytes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._points = b""

    @property
    def in_message(self) -> bool:
        """Whether a segment has come and not the last one."""
        return bool(self._parts)

    def reset(self) -> None:
        """Forget the message under way: a frame was lost or broken."""
        self._parts.clear()

    def accept(self, frame: Frame) -> list[bytes | RemoteProtocolError]:
        """
        The APDU that a segment completes, and before it an error for the message that it breaks off.

        Nothing for frames that are none of DLMS: others may talk on the line.
        """
        if not carries_dlms(frame):
            return []
        number, points = frame.ci & 0x0F, frame.data[:2]
        found: list[bytes | RemoteProtocolError] = []
        if number != len(self._parts) or (self._parts and points != self._points) or len(points) < 2:
            if self._parts or number or len(points) < 2:
                detail = f"segment {number} where {len(self._parts)} was expected, or between other access points"
                found.append(RemoteProtocolError("mbus_segment", detail))
            self._parts.clear()
            if number or len(points) < 2:
                return found
        self._points = points
        self._parts.append(frame.data[2:])
        if frame.ci & LAST_SEGMENT:
            found.append(b"".join(self._parts))
            self._parts.clear()
        return found
