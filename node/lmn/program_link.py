"""
Programs that receive with an RTL-SDR stick as a byte stream: rtl_433, and rtl_sdr with rtl_wmbus behind it.

They run as children without a shell, their lines on standard output are the stream.  What they say on standard error is
read on, so that a full pipe never stops them, and its last line is the reason when they end.  Closing ends them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import trio

from node.lmn.faults import LinkEnded

FREQUENCY: Final = "868.95M"  # modes C and T (EN 13757-4 table 9)
_DEVICE: Final = re.compile(r"[0-9A-Za-z:_-]{1,32}")
_FREQUENCY: Final = re.compile(r"\d{1,10}(\.\d{1,6})?[kMG]?")
_RECEIVE_SIZE: Final = 4096
_SAID_SIZE_MAX: Final = 2048
_END_TIMEOUT_S: Final = 1.0


def commands(program: str, device: str = "0", frequency: str = FREQUENCY) -> list[list[str]]:
    """
    The command lines of a receiver, the output of each the input of the next.

    `device` is the stick's number, or serial number with rtl_433 (`:00000001`).  Raises ValueError that says what was
    expected.
    """
    if not _DEVICE.fullmatch(device):
        raise ValueError("device= is a stick's number or serial number, for example device=0")
    if not _FREQUENCY.fullmatch(frequency):
        raise ValueError(f"frequency= is a number with k, M or G, for example frequency={FREQUENCY}")
    if program == "rtl_433":
        return [
            ["rtl_433", "-d", device, "-f", frequency, "-s", "1200k", "-R", "104", "-F", "json", "-M", "level"],
        ]  # fmt: skip
    if program == "rtl_wmbus":
        return [["rtl_sdr", "-d", device, "-f", frequency, "-s", "1600000", "-"], ["rtl_wmbus"]]
    raise ValueError("a receiving program is rtl://rtl_433 or rtl://rtl_wmbus")


class ProgramStream(trio.abc.Stream):
    """
    What the last of the programs writes; make it with `open_program`.

    Raises LinkEnded with the reason when it ends, trio.ClosedResourceError after `aclose`.
    """

    def __init__(self, name: str, processes: Sequence[trio.Process], output: int, said: int) -> None:
        self._name = name
        self._processes = processes
        self._output, self._said = output, said
        self._is_said_open = True
        self._last_said = b""
        self._is_open = True

    def fileno(self) -> int:
        """The descriptor that is read, so that what waits in it can be seen."""
        return self._output

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """A receiver takes nothing: raises trio.BrokenResourceError."""
        raise trio.BrokenResourceError(f"a receiving program sends nothing, not even {len(data)} bytes")

    async def wait_send_all_might_not_block(self) -> None:
        """Returns at once."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At least one byte, as soon as there is one."""
        await trio.lowlevel.checkpoint()
        while True:
            if not self._is_open:
                raise trio.ClosedResourceError
            self._read_said()
            try:
                data = os.read(self._output, max_bytes or _RECEIVE_SIZE)
            except BlockingIOError:
                await self._wait()
                continue
            if data:
                return data
            raise LinkEnded(await self._why())

    async def aclose(self) -> None:
        """End the programs and close; after a second without asking them."""
        if not self._is_open:
            return
        self._is_open = False
        for descriptor in (self._output, self._said):
            trio.lowlevel.notify_closing(descriptor)
            os.close(descriptor)
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.terminate()
        try:
            with trio.move_on_after(_END_TIMEOUT_S):
                for process in self._processes:
                    await process.wait()
        finally:
            with trio.CancelScope(shield=True):
                for process in self._processes:
                    process.kill()
                    await process.wait()

    async def _wait(self) -> None:
        async with trio.open_nursery() as nursery:

            async def readable(descriptor: int) -> None:
                await trio.lowlevel.wait_readable(descriptor)
                nursery.cancel_scope.cancel()

            nursery.start_soon(readable, self._output)
            if self._is_said_open:
                nursery.start_soon(readable, self._said)

    def _read_said(self) -> None:
        try:
            while data := os.read(self._said, _RECEIVE_SIZE):
                self._last_said = (self._last_said + data)[-_SAID_SIZE_MAX:]
            self._is_said_open = False
        except BlockingIOError:
            pass

    async def _why(self) -> str:
        with trio.move_on_after(_END_TIMEOUT_S):
            for process in self._processes:
                await process.wait()
        self._read_said()
        lines = self._last_said.decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "without a word")
        return f"{self._name} has ended: {last}"


async def open_program(command_lines: Sequence[Sequence[str]]) -> ProgramStream:
    """Start them.  Raises LinkEnded that names the one which is not installed, OSError where one cannot be started."""
    for command_line in command_lines:
        if shutil.which(command_line[0]) is None:
            raise LinkEnded(f"{command_line[0]} is not installed")
    said, said_end = os.pipe()
    held_by_children = [said_end]
    processes: list[trio.Process] = []
    source: int = subprocess.DEVNULL
    try:
        for command_line in command_lines:
            output, output_end = os.pipe()
            held_by_children += [output_end] if source == subprocess.DEVNULL else [output_end, source]
            source_of_this, source = source, output
            process = await trio.lowlevel.open_process(
                list(command_line), stdin=source_of_this, stdout=output_end, stderr=said_end
            )
            processes.append(process)
    except BaseException:
        for process in processes:
            process.kill()
        os.close(said)
        os.close(source)
        raise
    finally:
        for descriptor in held_by_children:
            os.close(descriptor)
    for descriptor in (source, said):
        os.set_blocking(descriptor, False)
    return ProgramStream(command_lines[-1][0], processes, source, said)
