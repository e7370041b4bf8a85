"""
Simulated radio modules behind a serial line, which must be set up before they hear anything.

Each hears the meters of one radio mode and hands them on in its own framing, with a signal strength; commands it does
not know it refuses as the real one does.  IMST WiMOD HCI of iM871A, AMBER AMB8465 manual, culfw's command reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import trio

from loadtest.meters.wmbus import WirelessMeter
from node.lmn.wmbus.framing import crc_x25
from node.lmn.wmbus.link import Format, seal

_IMST_MODES: Final = {0x00: "s", 0x03: "t", 0x06: "c", 0x0A: "ct"}
_AMBER_MODES: Final = {0x03: "s", 0x08: "t", 0x0E: "c", 0x09: "ct"}


class Stick(Protocol):
    """A radio module: commands to answers, datagrams that it hears to indications; `mode` is what it hears."""

    mode: str

    def command(self, octets: bytes) -> bytes:
        """The answers to what the host sends."""

    def indication(self, datagram: bytes) -> bytes:
        """A stripped datagram as it is handed on."""


class CulStick:
    """A CUL or nanoCUL with culfw: silent until `br` and a mode; signal quality only after X21."""

    def __init__(self, *, knows_wmbus: bool = True) -> None:
        self.mode = ""
        self._knows_wmbus = knows_wmbus
        self._reports_quality = False
        self._line = b""

    def command(self, octets: bytes) -> bytes:
        """As `Stick.command`."""
        *lines, self._line = (self._line + octets).replace(b"\r", b"\n").split(b"\n")
        out = b""
        for line in filter(None, lines):
            if line == b"X21":
                self._reports_quality = True
            elif line[:2] == b"br" and line[2:] in (b"t", b"c", b"s") and self._knows_wmbus:
                self.mode = line[2:].decode("ascii")
                out += line[2:].upper() + b"MODE\r\n"
            else:
                out += b"? (" + line + b" is unknown) Use one of B C F i A Z G M K U R T V W X e f l t u x\r\n"
        return out

    def indication(self, datagram: bytes) -> bytes:
        """As `Stick.indication`: in C mode format B, else A."""
        frame_format = Format.B if self.mode == "c" else Format.A
        mark = b"bY" if frame_format is Format.B else b"b"
        quality = b"2EF6" if self._reports_quality else b""  # 23, and -79 dBm
        return mark + seal(datagram, frame_format).hex().upper().encode("ascii") + quality + b"\r\n"


class ImstStick:
    """An iM871A: hears its stored mode; signal strength only when set up so."""

    def __init__(self) -> None:
        self.mode = "s"
        self._reports_strength = False

    def command(self, octets: bytes) -> bytes:
        """As `Stick.command`: the configuration message alone, whole."""
        if octets[:4] != b"\xa5\x01\x03\x06" or len(octets) != 10:
            return b""
        self.mode = _IMST_MODES.get(octets[6], "")
        self._reports_strength = octets[7] & 0x10 != 0 and octets[8] == 1
        body = bytes([0x81, 0x04, 1, 0x01])
        return b"\xa5" + body + crc_x25(body).to_bytes(2, "little")

    def indication(self, datagram: bytes) -> bytes:
        """As `Stick.indication`."""
        control = 0xC2 if self._reports_strength else 0x82
        strength = b"\x87" if self._reports_strength else b""  # -55 dBm
        body = bytes([control, 0x03, len(datagram) - 1]) + datagram[1:] + strength
        return b"\xa5" + body + crc_x25(body).to_bytes(2, "little")


class AmberStick:
    """An AMB8465 in command mode with the signal strength on: hears its stored mode."""

    def __init__(self) -> None:
        self.mode = "s"

    def command(self, octets: bytes) -> bytes:
        """As `Stick.command`: the command for the mode alone, whole."""
        if octets[:3] != b"\xff\x04\x01" or len(octets) != 5 or _xor(octets):
            return b""
        self.mode = _AMBER_MODES.get(octets[3], "")
        return _with_xor(b"\xff\x84\x01\x00")

    def indication(self, datagram: bytes) -> bytes:
        """As `Stick.indication`."""
        return _with_xor(bytes([0xFF, 0x03, len(datagram) - 1]) + datagram[1:] + b"\xf6")  # -79 dBm


def _xor(octets: bytes) -> int:
    check = 0
    for octet in octets:
        check ^= octet
    return check


def _with_xor(octets: bytes) -> bytes:
    return octets + bytes([_xor(octets)])


async def serve_stick(
    stream: trio.abc.Stream, stick: Stick, meters: Sequence[WirelessMeter], mode: str, interval_s: float
) -> None:
    """Be the module behind a stream; the meters send in one radio mode."""
    lock = trio.Lock()

    async def answer() -> None:
        while data := await stream.receive_some():
            async with lock:
                if reply := stick.command(bytes(data)):
                    await stream.send_all(reply)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        while True:
            for meter in meters:
                datagram = meter.datagram()
                async with lock:
                    if mode in stick.mode:
                        await stream.send_all(stick.indication(datagram))
            await trio.sleep(interval_s)
