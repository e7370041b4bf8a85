"""
`stromkreis sniff`: what a live bus says, as a table that renews itself, or as JSON lines where there is no terminal.

It only listens.  The codecs pull their bytes from an iterator, the link is a trio stream: so the codec runs in a
thread whose iterator asks trio for the next bytes, and Ctrl-C cancels the asking.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated

import trio
import typer
from rich.live import Live
from rich.table import Table

from node.lmn.links import open_link, parse_link
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading
from protocol.metering.units import unit_symbol
from stromkreis.decode import Keys, MeterProtocol, decoder, error_line

ROWS_MAX = 500
_RECEIVE_SIZE = 4096


def sniff(
    link: Annotated[
        str,
        typer.Argument(
            metavar="LINK", help="tcp://host:port, serial:///dev/ttyUSB0?baud=9600&frame=8N1, or radio:// with either."
        ),
    ],
    protocol: Annotated[MeterProtocol, typer.Option("--protocol", "-p", help="What the meters speak.")],
    key: Keys = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines even on a terminal.")] = False,
) -> None:
    """
    What a live bus says: a table of the latest readings, or JSON lines.

    It only listens: a meter that must be asked stays silent, unless someone else asks it.
    """
    try:
        parse_link(link)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="LINK") from None
    decode_stream = decoder(protocol, key)

    async def run() -> None:
        async with await open_link(link) as stream:
            items = decode_stream(_chunks(stream))
            show = _print_lines if as_json or not sys.stdout.isatty() else _show_table
            await trio.to_thread.run_sync(show, items)

    try:
        trio.run(run)
    except (OSError, trio.TooSlowError) as error:
        typer.echo(f"the link cannot be opened: {type(error).__name__}", err=True)
        raise typer.Exit(1) from None


def _chunks(stream: trio.abc.Stream) -> Iterator[bytes]:
    while data := trio.from_thread.run(stream.receive_some, _RECEIVE_SIZE):
        yield bytes(data)


def _print_lines(items: Iterator[Reading | RemoteProtocolError]) -> None:
    for item in items:
        if isinstance(item, RemoteProtocolError):
            typer.echo(error_line(item), err=True)
        else:
            typer.echo(json.dumps(item.to_json(), ensure_ascii=False))


def _show_table(items: Iterator[Reading | RemoteProtocolError]) -> None:
    board = Board()
    with Live(board.table(), refresh_per_second=4) as live:
        for item in items:
            board.add(item)
            live.update(board.table())


class Board:
    """The latest reading of each register, how often it came, and the faults by reason; at most ROWS_MAX registers."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], tuple[Reading, int]] = {}
        self._faults: dict[str, int] = {}

    def add(self, item: Reading | RemoteProtocolError) -> None:
        """Take what the codec gave."""
        if isinstance(item, RemoteProtocolError):
            self._faults[item.reason] = self._faults.get(item.reason, 0) + 1
            return
        name = str(item.obis) if item.obis is not None else json.dumps(dict(item.record), default=str)
        row = (item.device, name)
        if row in self._rows or len(self._rows) < ROWS_MAX:
            self._rows[row] = (item, self._rows[row][1] + 1 if row in self._rows else 1)

    def table(self) -> Table:
        """The board as a table."""
        faults = ", ".join(f"{reason} {count}" for reason, count in sorted(self._faults.items()))
        table = Table(title="Ctrl-C ends", caption=f"faults: {faults or 'none'}")
        for column in ("device", "register", "value", "unit", "meter's time", "quality", "count"):
            table.add_column(column, justify="right" if column in {"value", "count"} else "left")
        for (device, name), (reading, count) in self._rows.items():
            unit = str(reading.record.get("unit", "")) if reading.unit is None else unit_symbol(reading.unit)
            when = reading.measured_at if reading.measured_at is not None else reading.meter_seconds
            moment = "" if when is None else str(when)
            table.add_row(device, name, _value(reading), unit, moment, reading.quality.value, str(count))
        return table


def _value(reading: Reading) -> str:
    if isinstance(reading.value, int):
        return f"{reading.decimal():f}"
    return reading.value.hex() if isinstance(reading.value, bytes) else str(reading.value or "")
