"""What `stromkreis sniff` does on the air: sets the radio module up, and says who is heard, how often, how strongly."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator

import trio
import typer
from rich import box
from rich.live import Live
from rich.table import Table

from node.lmn.links import parse_link
from node.lmn.profiles import MeterProfile
from node.lmn.wmbus.adapter import module_of
from node.lmn.wmbus.heard import HeardMeters
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.reading import Reading
from stromkreis.decode import error_line, write_line

Item = Reading | RemoteProtocolError


class Radio:
    """A radio line of a profile.  Raises typer.BadParameter for an address that is no module's."""

    def __init__(self, profile: MeterProfile) -> None:
        try:
            module = module_of(profile)
            self._module = module
            is_named = bool(profile.address or parse_link(profile.link).programs)
            self._reader = module.reader() if is_named else None
        except LocalProtocolError as error:
            raise typer.BadParameter(str(error), param_hint="LINK") from None
        self._heard = HeardMeters(time.monotonic)

    async def set_up(self, stream: trio.abc.Stream) -> None:
        """Put the module into the mode that the address names, where it names one."""
        if octets := self._module.set_up():
            await stream.send_all(octets)

    def decode(self, decode_stream: Callable[..., Iterator[Item]], chunks: Iterable[bytes]) -> Iterator[Item]:
        """The codec's items; who speaks is counted."""
        return decode_stream(chunks, heard=self._heard, reader=self._reader)

    def print_heard(self, items: Iterator[Item]) -> int:
        """A JSON line for each telegram; damaged ones on standard error.  How many were heard."""
        count = 0
        for item in items:
            new = self._heard.new()
            for meter in new:
                write_line(json.dumps(meter.to_json(), ensure_ascii=False))
            count += len(new)
            if isinstance(item, RemoteProtocolError) and not new:
                typer.echo(error_line(item), err=True)
        return count

    def show_heard(self, items: Iterator[Item]) -> int:
        """The table of who is heard, renewed with each telegram."""
        with Live(self.table(), refresh_per_second=4) as live:
            for _ in items:
                live.update(self.table())
        return sum(meter.count for meter in self._heard)

    def table(self) -> Table:
        """Who is heard, those most often heard first."""
        unnamed = f"{self._heard.unnamed_count} telegrams of others" if self._heard.unnamed_count else None
        table = Table(title="heard on the air", caption=unnamed, box=box.SIMPLE, pad_edge=False)
        for column in ("device", "telegrams", "every", "signal", "last"):
            table.add_column(column, justify="right" if column in {"telegrams", "every", "signal"} else "left")
        for meter in sorted(self._heard, key=lambda each: -each.count):
            every = "" if meter.interval_s is None else f"{meter.interval_s:.1f} s"
            signal = "" if meter.signal is None else str(meter.signal)
            table.add_row(meter.device, str(meter.count), every, signal, meter.outcome)
        return table
