"""
Where a bus is, as a URL, and how to open it as a trio stream.

    tcp://host:port                          serial device servers, simulated meters
    serial:///dev/ttyUSB0?baud=300&frame=7E1  RS-485, optical heads, pseudo-terminals
    radio:///dev/ttyUSB0?baud=57600, radio://host:port   a receiver: neighbours' meters are heard as well
    rtl://rtl_433?device=0&frequency=868.95M, rtl://rtl_wmbus   the same by a program that reads an RTL-SDR stick

`latency=SECONDS` with any of them is what the way to the meters adds to every answer (GSM routers, gateways that poll
by themselves): a driver waits so much longer than its protocol says, and finds a dead meter so much later.

A serial line whose settings are left out gets those of its protocol (`with_defaults`), or 9600 8N1 where none is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

import trio

from node.lmn.program_link import FREQUENCY, commands, open_program
from node.lmn.serial_link import Parity, open_serial

OPEN_TIMEOUT_S = 10.0
LATENCY_S_MAX = 60.0
_FRAME = re.compile(r"([78])([NEO])([12])")
# What a line starts with: EN 13757-2, IEC 62056-21 clause 6.3, DSMR P1 5.0.2 clause 4.6, IMST's host interface.
_LINES = {
    "mbus": (2400, "8E1"), "iec62056-21": (300, "7E1"), "p1": (115_200, "8N1"), "wmbus": (57_600, "8N1"),
    "lks1": (921_600, "8N1"), "modbus": (9600, "8N1"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Link:
    """
    A parsed link: a serial device where `path` is set, else a TCP address; `radio` if other meters are heard on it.

    `programs` are the command lines of a receiver that is started instead.  `latency_s` is None where nothing was said
    of it.
    """

    radio: bool = False
    host: str = ""
    port: int = 0
    path: str = ""
    baudrate: int = 9600
    bytesize: Literal[7, 8] = 8
    parity: Parity = "N"
    stopbits: Literal[1, 2] = 1
    latency_s: float | None = None
    programs: tuple[tuple[str, ...], ...] = ()


def parse_link(url: str) -> Link:
    """Raises ValueError that says what was expected."""
    parts = urlsplit(url)
    radio = parts.scheme == "radio"
    if parts.scheme not in {"tcp", "serial", "radio", "rtl"}:
        raise ValueError(
            "a link is tcp://host:port, serial:///dev/...?baud=9600&frame=8N1, radio:// with either or rtl://rtl_433"
        )
    query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    if parts.scheme == "rtl":
        return _receiving_program(parts.netloc, parts.path, query)
    latency_s = _latency_s(query.pop("latency", None))
    if parts.scheme == "tcp" or parts.netloc:
        if parts.scheme == "serial" or not parts.hostname or not parts.port or query:
            raise ValueError(
                "a TCP link is tcp://host:port alone or with ?latency=3, a serial link serial:///dev/... with three"
                " slashes"
            )
        return Link(radio, parts.hostname, parts.port, latency_s=latency_s)
    frame = _FRAME.fullmatch(query.pop("frame", "8N1").upper())
    baudrate = query.pop("baud", "9600")
    if not parts.path or frame is None or not baudrate.isdecimal() or query:
        raise ValueError("a serial link is serial:///dev/...?baud=9600&frame=8N1&latency=0.5, nothing else after the ?")
    parity: Parity = "E" if frame[2] == "E" else "O" if frame[2] == "O" else "N"
    return Link(
        radio,
        path=parts.path,
        baudrate=int(baudrate),
        bytesize=7 if frame[1] == "7" else 8,
        parity=parity,
        stopbits=2 if frame[3] == "2" else 1,
        latency_s=latency_s,
    )


def _receiving_program(program: str, path: str, query: dict[str, str]) -> Link:
    options = {name: query.pop(name) for name in ("device", "frequency") if name in query}
    if path or query:
        raise ValueError(f"a receiving program is rtl://rtl_433?device=0&frequency={FREQUENCY}, no other settings")
    return Link(True, programs=tuple(tuple(command) for command in commands(program, **options)))


def _latency_s(text: str | None) -> float | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,2}(\.\d{1,3})?", text) or float(text) > LATENCY_S_MAX:
        raise ValueError(f"latency= is seconds from 0 to {LATENCY_S_MAX:.0f}, for example latency=3")
    return float(text)


def with_defaults(url: str, protocol: str) -> str:
    """The URL with the protocol's usual baud rate and frame where a serial link leaves them out.  Raises ValueError."""
    if not parse_link(url).path or protocol not in _LINES:
        return url
    base, _, query = url.partition("?")
    given = dict(parse_qsl(query))
    baudrate, frame = _LINES[protocol]
    settings = {"baud": str(baudrate), "frame": frame, **given}
    return f"{base}?{'&'.join(f'{name}={value}' for name, value in settings.items())}"


async def open_link(url: str) -> trio.abc.Stream:
    """A connected stream.  Raises OSError, LinkEnded, or trio.TooSlowError after OPEN_TIMEOUT_S."""
    link = parse_link(url)
    if link.programs:
        return await open_program(link.programs)
    if link.path:
        return open_serial(link.path, link.baudrate, link.bytesize, link.parity, link.stopbits)
    with trio.fail_after(OPEN_TIMEOUT_S):
        return await trio.open_tcp_stream(link.host, link.port)
