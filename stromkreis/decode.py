"""
`stromkreis decode`: the readings of a recorded byte stream as JSON lines.

Readings go to standard output as they are decoded, errors to standard error with their offset and reason, never with
what was received.  The codec is imported when its name is known, so that `--help` stays quick.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
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

if TYPE_CHECKING:
    from protocol.metering.reading import Reading

CHUNK_SIZE = 65_536
_WHITESPACE = b" \t\r\n\v\f"
_NO_DIGIT = re.compile(rb"[^0-9A-Fa-f \t\r\n\v\f]")


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
        help="What a DLMS list means that names nothing (may be given several times; docs/lmn.md has the form).",
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

    Several telegrams may follow each other.  Exit status 0 when at least one reading came out, else 1; errors go to
    standard error with offset and reason.
    """
    decode_stream = decoder(protocol, key, options_of(layout, medium))
    local = None if zone is None else _zone(zone)
    head = next(_chunks(file), b"")
    chunks = chain([head], _chunks(file))
    faults: list[RemoteProtocolError] = []
    items = decode_stream(_from_hex(chunks, faults) if hexadecimal else chunks)
    count = error_count = 0
    for item in chain(items, faults):
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
        if not hexadecimal and _looks_hexadecimal(head):
            typer.echo("the file looks like hexadecimal text: try --hex", err=True)
        raise typer.Exit(1)


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
        _check_layouts(arguments["layouts"])
    if parsed is not None:
        if not parameters.keys() & {"key", "keys"}:
            raise typer.BadParameter(f"{protocol.value} telegrams have no keys", param_hint="--key")
        if isinstance(parsed, dict) and "keys" not in parameters:
            told = f"a recording of {protocol.value} is one meter's: its key alone, without DEVICE="
            raise typer.BadParameter(told, param_hint="--key")
        arguments["keys" if "keys" in parameters else "key"] = parsed
    return partial(decode_stream, **arguments)


def _check_layouts(layouts: Sequence[str]) -> None:
    from node.lmn.dlms.layout import find_layout  # noqa: PLC0415  the codec is imported when its name is known

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


def _from_hex(chunks: Iterable[bytes], faults: list[RemoteProtocolError]) -> Iterator[bytes]:
    """The bytes; it ends at the first character that is no digit, and adds it to the faults."""
    rest, position = b"", 0
    for chunk in chunks:
        foreign = _NO_DIGIT.search(chunk)
        good = chunk if foreign is None else chunk[: foreign.start()]
        digits = rest + good.translate(None, _WHITESPACE)
        even = len(digits) - len(digits) % 2
        rest = digits[even:]
        yield bytes.fromhex(digits[:even].decode("ascii"))
        position += len(good)
        if foreign is not None:
            faults.append(RemoteProtocolError("not_hexadecimal", "expected hexadecimal digits", offset=position))
            return
    if rest:
        faults.append(RemoteProtocolError("not_hexadecimal", "an odd number of digits", offset=position))


def _looks_hexadecimal(head: bytes) -> bool:
    return len(head) > 8 and _NO_DIGIT.search(head) is None
