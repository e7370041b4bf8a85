"""A DLMS meter behind an optical head: it speaks IEC 62056-21 until its tester asks for HDLC (mode E, annex E)."""

from __future__ import annotations

import math

import trio

from loadtest.meters.dlms import DlmsServer, respond_hdlc
from node.lmn.hdlc.frame import Address
from node.lmn.hdlc.link import serve_secondary
from node.lmn.hdlc.secondary import SecondaryStation
from node.lmn.hdlc.station import Disconnected, Instruction
from node.lmn.iec62056_21.checks import with_even_parity
from node.lmn.iec62056_21.client import mode_of
from node.lmn.iec62056_21.driver import SpeedLink

_STRIP = bytes(character & 0x7F for character in range(256))
_LAST_FRAME_S = 0.05  # the answer to the disconnection is still to go out


async def serve_mode_e(
    server: DlmsServer, stream: trio.abc.Stream, address: Address, *, identification: bytes = b"/STK5\\2STKE"
) -> None:
    """Answer until the line closes; after each disconnection the meter is at 300 baud again."""
    while True:
        await _speed(stream, 300)
        if not await _heard(stream, b"/?!\r\n"):
            return
        await stream.send_all(with_even_parity(identification + b"\r\n"))
        chosen = await _heard(stream, b"2\r\n")
        if not chosen:
            return
        await stream.send_all(with_even_parity(chosen[chosen.index(6) :]))
        await _speed(stream, mode_of(chr(chosen[chosen.index(6) + 2]))[1])
        if not await _serve_hdlc(server, stream, address):
            return


async def _serve_hdlc(server: DlmsServer, stream: trio.abc.Stream, address: Address) -> bool:
    """One connection; whether the line is still open."""
    station = SecondaryStation(address)
    with trio.CancelScope() as scope:

        def handle(instruction: Instruction) -> None:
            respond_hdlc(server, station, instruction)
            if isinstance(instruction, Disconnected) and scope.deadline == math.inf:
                scope.deadline = trio.current_time() + _LAST_FRAME_S

        await serve_secondary(stream, station, handle)
    return scope.cancelled_caught


async def _heard(stream: trio.abc.Stream, end: bytes) -> bytes:
    """What came, up to this end; nothing where the line closed."""
    heard = b""
    while not heard.endswith(end):
        data = await stream.receive_some()
        if not data:
            return b""
        heard += bytes(data).translate(_STRIP)
    return heard


async def _speed(stream: trio.abc.Stream, baudrate: int) -> None:
    if isinstance(stream, SpeedLink):
        await stream.set_baudrate(baudrate)
