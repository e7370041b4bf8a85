"""
What both ends of an HDLC connection share: negotiated parameters, modulo-8 windows, reassembly.

A unit (one LLC packet, one TLS record) may be longer than a frame; it goes in segments, and all but the last say so.
`Sender` and `Receiver` keep V(S) and V(R) of ISO/IEC 13239 and know nothing of who may speak when: that is the
difference between a primary and a secondary, and it lives there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from node.lmn.hdlc.frame import Address, Frame
from protocol.errors import LocalProtocolError, RemoteProtocolError

MODULO: Final = 8
INFORMATION_SIZE_DEFAULT: Final = 128  # what holds where a station does not say otherwise (IEC 62056-46, 6.4.4.4.3.2)
INFORMATION_SIZE_MAX: Final = (
    2034  # BSI TR-03109-1 Detailspezifikation, 8.1; fits with addresses of up to 5 bytes in all
)
UNIT_SIZE_MAX: Final = 65536
_FORMAT_ID: Final = b"\x81\x80"


@dataclass(frozen=True, slots=True)
class Parameters:
    """Link parameters from one station's side: sizes of information fields in bytes, windows in frames (1..7)."""

    transmit_size_max: int = INFORMATION_SIZE_DEFAULT
    receive_size_max: int = INFORMATION_SIZE_DEFAULT
    transmit_window: int = 1
    receive_window: int = 1

    def __post_init__(self) -> None:
        sizes = (self.transmit_size_max, self.receive_size_max)
        windows = (self.transmit_window, self.receive_window)
        if not all(1 <= size <= INFORMATION_SIZE_MAX for size in sizes) or not all(1 <= n < MODULO for n in windows):
            raise LocalProtocolError(f"impossible link parameters {self}")

    def to_bytes(self) -> bytes:
        """The information field of SNRM and UA."""
        groups = (
            (5, self.transmit_size_max.to_bytes(2 if self.transmit_size_max > 255 else 1, "big")),
            (6, self.receive_size_max.to_bytes(2 if self.receive_size_max > 255 else 1, "big")),
            (7, self.transmit_window.to_bytes(4, "big")),
            (8, self.receive_window.to_bytes(4, "big")),
        )
        body = b"".join(bytes((key, len(value))) + value for key, value in groups)
        return _FORMAT_ID + bytes((len(body),)) + body

    @classmethod
    def from_bytes(cls, data: bytes) -> Parameters:
        """
        What the other station says of itself; an empty field means the defaults, unknown parameters are passed over.

        Raises RemoteProtocolError for a field that is cut off or a value that cannot be.
        """
        if not data:
            return cls()
        if data[:2] != _FORMAT_ID or len(data) < 3 or len(data) != 3 + data[2]:
            raise RemoteProtocolError("hdlc_parameters", "no parameter negotiation group", offset=0)
        values = dict.fromkeys((5, 6), INFORMATION_SIZE_DEFAULT) | dict.fromkeys((7, 8), 1)
        at = 3
        while at < len(data):
            length = data[at + 1] if at + 1 < len(data) else 0
            field = data[at + 2 : at + 2 + length]
            if not 1 <= length == len(field) or length > 4:
                raise RemoteProtocolError("hdlc_parameters", "a parameter is cut off", offset=at)
            values[data[at]] = int.from_bytes(field, "big")
            at += 2 + length
        if min(values[key] for key in (5, 6, 7, 8)) < 1:
            raise RemoteProtocolError("hdlc_parameters", "a size or window of zero")
        windows = (min(values[7], MODULO - 1), min(values[8], MODULO - 1))
        return cls(min(values[5], INFORMATION_SIZE_MAX), min(values[6], INFORMATION_SIZE_MAX), *windows)

    def agreed_with(self, peer: Parameters) -> Parameters:
        """What both can do, still from our side: what the peer receives we may send."""
        return Parameters(
            min(self.transmit_size_max, peer.receive_size_max),
            min(self.receive_size_max, peer.transmit_size_max),
            min(self.transmit_window, peer.receive_window),
            min(self.receive_window, peer.transmit_window),
        )


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send these bytes now."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Connected:
    """The connection stands, with these parameters."""

    parameters: Parameters


@dataclass(frozen=True, slots=True)
class Delivered:
    """A whole unit has arrived."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Unnumbered:
    """Connectionless information (UI) has arrived."""

    data: bytes
    source: Address


@dataclass(frozen=True, slots=True)
class Disconnected:
    """There is no connection any more; `reason` is `requested` or a code fit for a metric label."""

    reason: str


Instruction = Transmit | Connected | Delivered | Unnumbered | Disconnected


class Sender:
    """Segments waiting for their acknowledgement, oldest first."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._segments: deque[tuple[bytes, bool]] = deque()
        self._oldest = 0
        self._sent = 0

    def __len__(self) -> int:
        return len(self._segments)

    def add(self, unit: bytes) -> None:
        """Queue one unit, cut to the agreed size.  Raises LocalProtocolError for an empty or far too long one."""
        if not 0 < len(unit) <= UNIT_SIZE_MAX:
            raise LocalProtocolError(f"a unit has 1..{UNIT_SIZE_MAX} bytes, this one {len(unit)}")
        size = self._parameters.transmit_size_max
        for start in range(0, len(unit), size):
            self._segments.append((unit[start : start + size], start + size < len(unit)))

    def window(self) -> Iterator[tuple[int, bytes, bool, bool]]:
        """The frames of one turn: send number, information, segmented, and whether it is the turn's last."""
        count = min(self._parameters.transmit_window, len(self._segments))
        self._sent = max(self._sent, count)
        for index in range(count):
            information, segmented = self._segments[index]
            yield (self._oldest + index) % MODULO, information, segmented, index == count - 1

    def acknowledge(self, receive_number: int) -> int:
        """
        How many segments N(R) acknowledges.

        Raises RemoteProtocolError where N(R) names a frame that was never sent.
        """
        count = (receive_number - self._oldest) % MODULO
        if count > self._sent:
            raise RemoteProtocolError("hdlc_sequence", "an acknowledgement of a frame that was not sent")
        for _ in range(count):
            self._segments.popleft()
        self._oldest = receive_number
        self._sent -= count
        return count


class Receiver:
    """V(R) and the unit under way."""

    def __init__(self, unit_size_max: int = UNIT_SIZE_MAX) -> None:
        self._unit_size_max = unit_size_max
        self._unit = bytearray()
        self.next_number = 0
        self.within_unit = False

    def accept(self, frame: Frame) -> bytes | None:
        """
        The unit that this I frame completes, if it does; a frame out of sequence is passed over.

        Raises RemoteProtocolError where the unit outgrows its bound.
        """
        if frame.send_number != self.next_number:
            return None
        if len(self._unit) + len(frame.information) > self._unit_size_max:
            raise RemoteProtocolError("hdlc_unit_too_long", f"more than {self._unit_size_max} bytes in segments")
        self.next_number = (self.next_number + 1) % MODULO
        self._unit += frame.information
        self.within_unit = frame.segmented
        if frame.segmented:
            return None
        unit = bytes(self._unit)
        self._unit.clear()
        return unit
