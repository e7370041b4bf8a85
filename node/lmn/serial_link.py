"""
A serial line as a trio stream: RS-485 buses, optical heads, USB converters, pseudo-terminals.

pyserial knows how to set a line up on every platform, trio knows how to wait; so pyserial opens and configures the
descriptor, and reading and writing go to it directly, non-blocking.

Two complications.  Seven data bits with parity (IEC 62056-21) are made here in software on an eight-bit line: on the
wire it is the same ten bits, the parity errors can be counted, and the path that production uses is the one that
tests run, since a pseudo-terminal has no line and refuses parity.  For the same reason eight bits with parity
(M-Bus) on a pseudo-terminal are opened without it.
"""

from __future__ import annotations

import errno
import os
from typing import Final, Literal

import serial
import trio

Parity = Literal["N", "E", "O"]
RECEIVE_SIZE_MAX: Final = 4096


def _with_parity(odd: bool) -> bytes:
    """For each seven-bit character the byte on the wire."""
    return bytes((n & 0x7F) | (((n & 0x7F).bit_count() & 1) ^ odd) << 7 for n in range(256))


_TABLES: Final = {"E": _with_parity(False), "O": _with_parity(True)}


class SerialStream(trio.abc.Stream):
    """
    A byte stream over one open serial device; make it with `open_serial`.

    One task may receive while another sends.  Raises trio.BrokenResourceError when the device goes away and
    trio.ClosedResourceError after `aclose`, like every trio stream.
    """

    def __init__(self, port: serial.Serial, software_parity: Literal["E", "O"] | None = None) -> None:
        self._port = port
        self._fd = int(port.fileno())
        self._table = _TABLES[software_parity] if software_parity else None
        self.parity_error_count = 0

    def fileno(self) -> int:
        """The device's file descriptor."""
        return self._fd

    @property
    def baudrate(self) -> int:
        """Bits per second now set."""
        return int(self._port.baudrate)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """
        At least one byte, as soon as there is one; b"" at a hang-up.

        In seven-bit mode a character with a false parity comes as NUL, as the kernel's own check would give it,
        and counts in `parity_error_count`.
        """
        size = RECEIVE_SIZE_MAX if max_bytes is None else max_bytes
        await trio.lowlevel.checkpoint()
        while True:
            self._must_be_open()
            try:
                data = os.read(self._fd, size)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._fd)
                continue
            except OSError as error:
                if error.errno == errno.EIO:  # a pseudo-terminal whose other end has gone
                    return b""
                raise trio.BrokenResourceError from error
            return data if self._table is None else self._check(data, self._table)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Hand all bytes to the line; returns when the kernel has them, not when they were sent (see `drain`)."""
        rest = memoryview(data if self._table is None else bytes(data).translate(self._table))
        await trio.lowlevel.checkpoint()
        while rest:
            self._must_be_open()
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._fd)
            except OSError as error:
                raise trio.BrokenResourceError from error

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room for at least one byte."""
        self._must_be_open()
        await trio.lowlevel.wait_writable(self._fd)

    async def drain(self) -> None:
        """Wait until the last bit has left the line."""
        self._must_be_open()
        await trio.to_thread.run_sync(self._port.flush, abandon_on_cancel=True)

    async def set_baudrate(self, baudrate: int) -> None:
        """Change the speed in both directions, after what was sent has left.  Raises ValueError if impossible."""
        await self.drain()
        self._port.baudrate = baudrate

    async def aclose(self) -> None:
        """Close the device; never blocks."""
        if self._port.is_open:
            trio.lowlevel.notify_closing(self._fd)
            self._port.close()
        await trio.lowlevel.checkpoint()

    def _must_be_open(self) -> None:
        if not self._port.is_open:
            raise trio.ClosedResourceError

    def _check(self, data: bytes, table: bytes) -> bytes:
        if data.translate(table) == data:
            return bytes(byte & 0x7F for byte in data)
        characters = bytes(byte & 0x7F if table[byte] == byte else 0 for byte in data)
        self.parity_error_count += sum(table[byte] != byte for byte in data)
        return characters


def open_serial(
    path: str,
    baudrate: int = 9600,
    bytesize: Literal[7, 8] = 8,
    parity: Parity = "N",
    stopbits: Literal[1, 2] = 1,
) -> SerialStream:
    """
    Open a serial device for this process alone.

    Raises OSError (serial.SerialException is one) where it does not exist, is locked by another process or
    refuses the settings.
    """
    if bytesize == 7 and parity != "N":
        port = _open(path, baudrate, 8, "N", stopbits)
        return SerialStream(port, parity)
    on_line = "N" if os.path.realpath(path).startswith("/dev/pts/") else parity
    return SerialStream(_open(path, baudrate, bytesize, on_line, stopbits))


def _open(path: str, baudrate: int, bytesize: int, parity: str, stopbits: int) -> serial.Serial:
    # inter_byte_timeout=0 makes pyserial set VMIN to 1: a read without data then says "would block", not "hung up".
    return serial.Serial(
        path, baudrate, bytesize, parity, stopbits, timeout=0, write_timeout=0, inter_byte_timeout=0, exclusive=True
    )
