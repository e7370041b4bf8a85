r"""
The hand-over from IEC 62056-21 to HDLC at an optical head: mode E (IEC 62056-21 annex E).

Intuition: say `/?!` at 300 baud as for a readout; a meter whose identification has `\2` behind its speed speaks HDLC
as well.  The acknowledgement `2 Z 2` chooses that protocol, the offered speed Z and binary mode; the meter repeats it,
and both change to Z baud with eight bits and no parity.  Until then every character has seven bits and even parity,
which is put on here, so that the line is one of eight bits from the beginning.

A meter that was left inside HDLC does not hear the request until its own time-out has passed; the next reading time
asks it again.
"""

from __future__ import annotations

import re
from typing import Final

import trio

from node.lmn.iec62056_21.checks import with_even_parity
from node.lmn.iec62056_21.client import INITIAL_BAUDRATE, REACTION_TIME_S, Mode, mode_of
from node.lmn.iec62056_21.driver import SpeedLink
from node.lmn.iec62056_21.framing import ACK, IDENTIFICATION_SIZE_MAX
from protocol.errors import RemoteProtocolError

ATTEMPT_COUNT: Final = 3
_SPEEDS: Final = {300: "0", 600: "1", 1200: "2", 2400: "3", 4800: "4", 9600: "5", 19200: "6"}
_STRIP: Final = bytes(character & 0x7F for character in range(256))
# The slash may be lost by a head that wakes too late; our own request comes back where the head echoes.
_IDENTIFICATION: Final = re.compile(rb"(?:^|[\s\x00\x7f/])[A-Z]{2}[A-Za-z](?P<speed>[!-~])(?P<rest>[ -~]*)\r?\n")


async def hand_over(stream: trio.abc.Stream, *, baudrate_max: int = 9600, response_timeout_s: float = 2.0) -> int:
    """
    Bring the meter at a head to HDLC; the speed that the line then has, in bit/s.

    `baudrate_max` is the fastest the head can do, `response_timeout_s` how long the meter may be silent before it is
    asked again.  A stream without `set_baudrate` stays at 300 baud, which the meter is asked for.  Raises
    RemoteProtocolError: `silent`, `mode_e_missing` where the meter does not offer it, `mode_e_refused`, `link_closed`.
    """
    speed = await _identify(stream, response_timeout_s)
    mode, offered = mode_of(speed)
    if mode is not Mode.C:
        raise RemoteProtocolError("mode_e_missing", "the identification offers no speed that can be agreed")
    baudrate = min(offered, baudrate_max) if isinstance(stream, SpeedLink) else INITIAL_BAUDRATE
    answer = ACK + f"2{_SPEEDS[baudrate]}2\r\n".encode("ascii")
    await trio.sleep(REACTION_TIME_S)
    await stream.send_all(with_even_parity(answer))
    heard = await _until(stream, answer, len(answer) + IDENTIFICATION_SIZE_MAX, response_timeout_s)
    if heard is None:
        raise RemoteProtocolError("mode_e_refused", "the meter does not confirm the change to HDLC")
    if isinstance(stream, SpeedLink):
        await stream.set_baudrate(baudrate)
    await trio.sleep(REACTION_TIME_S)
    return baudrate


async def _identify(stream: trio.abc.Stream, timeout_s: float) -> str:
    for _ in range(ATTEMPT_COUNT):
        if isinstance(stream, SpeedLink):
            await stream.set_baudrate(INITIAL_BAUDRATE)
        await stream.send_all(with_even_parity(b"/?!\r\n"))
        heard = bytearray()
        with trio.move_on_after(timeout_s) as scope:
            while len(heard) < 4 * IDENTIFICATION_SIZE_MAX:
                heard += (await _receive(stream)).translate(_STRIP)
                scope.deadline = trio.current_time() + timeout_s
                if (match := _IDENTIFICATION.search(heard)) is None:
                    continue
                if not match["rest"].startswith(b"\\2"):
                    raise RemoteProtocolError("mode_e_missing", "the identification does not offer HDLC (\\2)")
                return match["speed"].decode("ascii")
    raise RemoteProtocolError("silent", f"no identification after {ATTEMPT_COUNT} requests")


async def _until(stream: trio.abc.Stream, wanted: bytes, size_max: int, timeout_s: float) -> bytes | None:
    """What came up to what is wanted; None where it did not come."""
    heard = b""
    with trio.move_on_after(timeout_s):
        while len(heard) < size_max:
            heard += (await _receive(stream)).translate(_STRIP)
            if wanted in heard:
                return heard
    return None


async def _receive(stream: trio.abc.Stream) -> bytes:
    data = bytes(await stream.receive_some(256))
    if not data:
        raise RemoteProtocolError("link_closed", "the link ended before the hand-over did")
    return data
