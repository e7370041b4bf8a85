"""
The bytes of a live line for a codec that pulls them, and a word where nothing comes of them.

A line at the wrong speed and a meter that must be asked look alike to a codec: no telegram.  So it is distinguished
here, every `PATIENCE_S`: nothing came, or something came and no telegram was in it, with its beginning to recognise it
by.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import trio
import typer

from stromkreis.hints import line_settings

PATIENCE_S = 10.0
_RECEIVE_SIZE = 4096
_SHOWN_SIZE = 16
_T = TypeVar("_T")


class LiveByteSource:
    """Listens in a thread to a stream that lives in trio."""

    def __init__(self, stream: trio.abc.Stream, protocol: str, link: str) -> None:
        self._stream = stream
        self._protocol = protocol
        self._settings = line_settings(link)
        self._heard_size = 0
        self._beginning = b""
        self._why = ""
        self._has_output = False  # anything decoded, or an error reported, since the last hint

    def chunks(self) -> Iterator[bytes]:
        """What comes, until the link ends."""
        patience = trio.from_thread.run_sync(trio.current_time) + PATIENCE_S
        while True:
            data = trio.from_thread.run(self._receive, patience)
            if data is None or trio.from_thread.run_sync(trio.current_time) >= patience:
                self._say()
                patience = trio.from_thread.run_sync(trio.current_time) + PATIENCE_S
            if data is None:
                continue
            if not data:
                typer.echo(f"the link has ended{self._why}", err=True)
                return
            self._beginning = self._beginning or data[:_SHOWN_SIZE]
            self._heard_size += len(data)
            yield data

    def noted(self, items: Iterator[_T]) -> Iterator[_T]:
        """The items as they are; each counts as output."""
        for item in items:
            self._has_output = True
            yield item

    async def _receive(self, until: float) -> bytes | None:
        with trio.move_on_at(until):
            try:
                return bytes(await self._stream.receive_some(_RECEIVE_SIZE))
            except trio.BrokenResourceError as error:
                self._why = f": {error}" if str(error) else ""
                return b""
        return None

    def _say(self) -> None:
        if not self._has_output and not self._heard_size:
            typer.echo(
                f"nothing heard for {PATIENCE_S:.0f} s{self._settings}: what must be asked is silent until --ask",
                err=True,
            )
        elif not self._has_output:
            typer.echo(
                f"{self._heard_size} bytes in {PATIENCE_S:.0f} s and no telegram of {self._protocol} in them"
                f"{self._settings}: another protocol, baud= or frame=? They begin {self._beginning.hex(' ')}",
                err=True,
            )
        self._has_output, self._heard_size, self._beginning = False, 0, b""
