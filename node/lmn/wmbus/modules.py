"""
Radio modules as a profile's address names them, and how they are set up when the line is opened.

    MODULE[:MODE][/GATEWAY]     imst, amber, amber-rssi, cul, rtl-433, rtl-wmbus, raw; mode s, t, c or ct (both)

A CUL hears nothing until it is set to a mode, so it always is (t where none is named); iM871A and AMBER keep the mode
that they were delivered or set up with, unless the address names one, which they then hold until they lose their power.

Sources: IMST WiMOD HCI of iM871A (device management, message 3), AMBER AMB8465 manual (command 4), culfw's command
reference (b, X), as wmbusmeters uses them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from node.lmn.wmbus.framing import AmberReader, ImstReader, LineReader, RawReader, Reader, amber_frame, imst_frame
from protocol.errors import LocalProtocolError

Framing = Literal["imst", "amber", "amber-rssi", "cul", "rtl-433", "rtl-wmbus", "raw"]
_READERS: Final[dict[Framing, Callable[[], Reader]]] = {
    "imst": ImstReader, "amber": AmberReader, "amber-rssi": partial(AmberReader, "after"), "cul": LineReader,
    "rtl-433": LineReader, "rtl-wmbus": LineReader, "raw": RawReader,
}  # fmt: skip
_NAMES: Final[dict[str, Framing]] = {name: name for name in _READERS}
_IMST_MODES: Final = {"s": 0x00, "t": 0x03, "c": 0x06, "ct": 0x0A}
_AMBER_MODES: Final = {"s": 0x03, "t": 0x08, "c": 0x0E, "ct": 0x09}
_CUL_MODES: Final = {"": b"brt", "t": b"brt", "c": b"brc", "s": b"brs"}
_CUL_REPORTS_QUALITY: Final = b"X21"


@dataclass(frozen=True, slots=True)
class Module:
    """A radio module, the mode in which it shall receive (empty: as it is), and the text behind the slash."""

    framing: Framing
    mode: str = ""
    gateway: str = ""

    @classmethod
    def parse(cls, address: str) -> Module:
        """Out of a profile's address.  Raises LocalProtocolError that says what was expected."""
        radio, _, gateway = address.partition("/")
        name, _, mode = radio.partition(":")
        framing = _NAMES.get(name)
        if framing is None:
            raise LocalProtocolError(f"the address of a radio meter names its receiver: {', '.join(_NAMES)}")
        module = cls(framing, mode, gateway)
        module.set_up()
        return module

    def reader(self) -> Reader:
        """The reader for what it sends."""
        return _READERS[self.framing]()

    def set_up(self) -> bytes:
        """What it is to be sent when the line is opened.  Raises LocalProtocolError for a mode that it has not."""
        if self.framing == "cul" and self.mode in _CUL_MODES:
            return _CUL_MODES[self.mode] + b"\r\n" + _CUL_REPORTS_QUALITY + b"\r\n"
        if not self.mode:
            return b""
        if self.framing == "imst" and self.mode in _IMST_MODES:  # not stored: mode, signal strength, no time stamp
            return bytes([0xA5, 0x01, 0x03, 6, 0, 0x02, _IMST_MODES[self.mode], 0x30, 1, 0])
        if self.framing in ("amber", "amber-rssi") and self.mode in _AMBER_MODES:
            command = bytes([0xFF, 0x04, 1, _AMBER_MODES[self.mode]])
            return command + bytes([command[0] ^ command[1] ^ command[2] ^ command[3]])
        raise LocalProtocolError(
            f"{self.framing} cannot be set to the radio mode {self.mode!r} (there are s, t, c; imst and amber have ct)"
        )

    @property
    def can_send(self) -> bool:
        """Whether meters can be asked through it."""
        return self.framing in ("imst", "amber", "amber-rssi")

    def transmission(self, datagram: bytes) -> bytes:
        """What makes it send a datagram.  Raises LocalProtocolError for receivers that cannot send."""
        if not self.can_send:
            raise LocalProtocolError(f"{self.framing} only receives")
        frame = imst_frame if self.framing == "imst" else amber_frame
        return frame(datagram, request=True)
