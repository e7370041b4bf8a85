"""
`stromkreis decode`: the readings of a recorded byte stream as JSON lines.

Readings go to standard output as they are decoded, errors to standard error with their offset and reason, never with
what was received.  The codec is imported when its name is known, so that `--help` stays quick.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TypedDict
from zoneinfo import ZoneInfo

import typer

from node.lmn.timestamps import localized
from protocol.errors import LocalProtocolError, RemoteProtocolError, StromkreisError
from stromkreis import recordings

if TYPE_CHECKING:
    from protocol.metering.reading import Reading
    from stromkreis.captures import Direction

CHUNK_SIZE = 65_536


class MeterProtocol(StrEnum):
    """What a meter speaks; the value is the command line's name for it."""

    SML = "sml"
    DLMS = "dlms"
    MBUS = "mbus"
    WMBUS = "wmbus"
    IEC62056_21 = "iec62056-21"
    P1 = "p1"


class Options(TypedDict, total=False):
    """What the codecs take beside keys; each takes its own."""

    layouts: Sequence[str]
    medium: int


DecodeStream = Callable[[Iterable[bytes]], Iterator["Reading | RemoteProtocolError"]]
Keys = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="[DEVICE=]HEX|@FILE",
        help="Key of all meters, or of one (may be given several times). @FILE holds it: others see a command line.",
    ),
]

Layouts = Annotated[
    list[str] | None,
    typer.Option(
        "--layout",
        metavar="NAME|FILE.toml",
        help="What a DLMS list, or a maker's own format on the radio, means (repeatable; docs/reference/lmn.md has the "
        "forms).",
    ),
]
_OPTION_NAMES = {"layouts": "--layout", "medium": "--medium"}


def decode(
    protocol: Annotated[MeterProtocol, typer.Argument(help="What the meter speaks.")],
    file: Annotated[typer.FileBinaryRead, typer.Argument(metavar="FILE|-", help="The bytes; - is standard input.")],
    key: Keys = None,
    hexadecimal: Annotated[
        bool, typer.Option("--hex", help="FILE is hexadecimal text, spaces and lines ignored.")
    ] = False,
    layout: Layouts = None,
    zone: Annotated[
        str | None,
        typer.Option("--zone", help="Time zone of times that have no offset, such as Europe/Berlin."),
    ] = None,
    medium: Annotated[
        int | None,
        typer.Option("--medium", min=0, max=15, help="OBIS group A of addresses that leave it out (text protocols)."),
    ] = None,
) -> None:
    """
    Readings of a recorded byte stream as JSON lines.

    FILE may be a capture of a network (pcap, pcapng) or a log with octets in hexadecimal (Tasmota, ESPHome) as well.
    Several telegrams may follow each other.  Exit status 0 when at least one reading came out, else 1; errors go to
    standard error with offset and reason.
    """
    decode_stream = decoder(protocol, key, options_of(layout, medium))
    local = None if zone is None else _zone(zone)
    head = next(_chunks(file), b"")
    count = error_count = 0
    for item in _items(decode_stream, file, head, hexadecimal=hexadecimal):
        if isinstance(item, RemoteProtocolError):
            typer.echo(error_line(item), err=True)
            error_count += 1
            continue
        count += 1
        shown = item if local is None else localized(item, local)
        write_line(json.dumps(shown.to_json(), ensure_ascii=False))
    if not count:
        if not error_count:
            typer.echo("nothing in it is a reading" if head else "the file is empty", err=True)
        # Lines of radio receivers are hexadecimal text and read as such.
        if not hexadecimal and protocol is not MeterProtocol.WMBUS and recordings.looks_hexadecimal(head):
            typer.echo("the file looks like hexadecimal text: try --hex", err=True)
        raise typer.Exit(1)


def _items(
    decode_stream: DecodeStream, file: BinaryIO, head: bytes, *, hexadecimal: bool
) -> Iterator[Reading | RemoteProtocolError]:
    """What a file holds, by its form: how it begins tells a capture from a log."""
    if recordings.is_capture(head):
        captures = importlib.import_module("stromkreis.captures")
        for there, back in captures.captured(file, head):
            yield from _conversation(decode_stream, there, back)
        return
    chunks = chain([head], _chunks(file))
    if recordings.is_log(head):
        yield from decode_stream(recordings.octets_of_log(chunks))
        return
    faults: list[RemoteProtocolError] = []
    yield from decode_stream(recordings.octets_of_hex(chunks, faults) if hexadecimal else chunks)
    yield from faults


def _conversation(
    decode_stream: DecodeStream, there: Direction, back: Direction | None
) -> list[Reading | RemoteProtocolError]:
    """What the meter says in a connection: the direction that has readings, or what both have where none has."""
    decoded = [list(decode_stream([bytes(each.octets)])) for each in (there, back) if each is not None]
    speaking = [each for each in decoded if not all(isinstance(item, RemoteProtocolError) for item in each)]
    return [item for each in speaking or decoded for item in each]


def options_of(layouts: list[str] | None, medium: int | None) -> Options:
    """What was given of the codecs' options."""
    options: Options = {}
    if layouts:
        options["layouts"] = layouts
    if medium is not None:
        options["medium"] = medium
    return options


def decoder(protocol: MeterProtocol, keys: list[str] | None, options: Options | None = None) -> DecodeStream:
    """
    The codec of a protocol with its keys and options.

    Raises typer.BadParameter for those that are none or serve nothing.
    """
    module = importlib.import_module(f"node.lmn.{protocol.value.replace('-', '_')}.decode")
    decode_stream: Callable[..., Iterator[Reading | RemoteProtocolError]] = module.decode_stream
    parameters = inspect.signature(decode_stream).parameters
    parsed = _parse_keys(keys or [])
    arguments: dict[str, Any] = dict(options or {})
    for name in arguments:
        if name not in parameters:
            raise typer.BadParameter(f"serves nothing with {protocol.value}", param_hint=_OPTION_NAMES[name])
    if "layouts" in arguments:
        _check_layouts(module.find_layout, arguments["layouts"])
    if parsed is not None:
        if not parameters.keys() & {"key", "keys"}:
            raise typer.BadParameter(f"{protocol.value} telegrams have no keys", param_hint="--key")
        if isinstance(parsed, dict) and "keys" not in parameters:
            told = f"a recording of {protocol.value} is one meter's: its key alone, without DEVICE="
            raise typer.BadParameter(told, param_hint="--key")
        arguments["keys" if "keys" in parameters else "key"] = parsed
    return partial(decode_stream, **arguments)


def _check_layouts(find_layout: Callable[[str], object], layouts: Sequence[str]) -> None:
    for layout in layouts:
        try:
            find_layout(layout)
        except LocalProtocolError as error:
            raise typer.BadParameter(str(error), param_hint="--layout") from None


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        told = f"no time zone {name!r} (expected a name such as Europe/Berlin)"
        raise typer.BadParameter(told, param_hint="--zone") from None


def _parse_keys(texts: list[str]) -> bytes | dict[str, bytes] | None:
    named: dict[str, bytes] = {}
    for text in texts:
        device, hexadecimal = named_key(text)
        try:
            named[device] = bytes.fromhex(hexadecimal)
        except ValueError:
            # The text is a key, or a slip of one: it is not repeated.
            raise typer.BadParameter("a key is hexadecimal, or DEVICE=hexadecimal", param_hint="--key") from None
    if not named:
        return None
    return named[""] if list(named) == [""] else named


def named_key(text: str) -> tuple[str, str]:
    """Whose or what for a `--key` is, and its digits, out of the file where it names one."""
    name, _, key = text.rpartition("=")
    if not key.startswith("@"):
        return name, key
    try:
        return name, Path(key[1:]).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "no text"
        raise typer.BadParameter(f"{key[1:]}: cannot be read ({why})", param_hint="--key") from None


def write_line(text: str) -> None:
    """One line on standard output.  Raises StromkreisError where it cannot be written; a closed pipe just ends us."""
    try:
        typer.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StromkreisError(f"standard output cannot be written ({error.strerror})") from None


def error_line(error: RemoteProtocolError) -> str:
    """One line for standard error: where, what, and what was expected."""
    where = "" if error.offset is None else f"byte {error.offset}: "
    return f"{where}{error.reason}{': ' if error.detail else ''}{error.detail}"


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    # read1 gives what is there: a live pipe is shown as it comes.
    read = getattr(file, "read1", file.read)
    while data := read(CHUNK_SIZE):
        yield data
