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
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from protocol.errors import RemoteProtocolError, StromkreisError

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


DecodeStream = Callable[[Iterable[bytes]], Iterator["Reading | RemoteProtocolError"]]
Keys = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="[DEVICE=]HEX|@FILE",
        help="Key of all meters, or of one (may be given several times). @FILE holds it: others see a command line.",
    ),
]


def decode(
    protocol: Annotated[MeterProtocol, typer.Argument(help="What the meter speaks.")],
    file: Annotated[typer.FileBinaryRead, typer.Argument(metavar="FILE|-", help="The bytes; - is standard input.")],
    key: Keys = None,
    hexadecimal: Annotated[
        bool, typer.Option("--hex", help="FILE is hexadecimal text, spaces and lines ignored.")
    ] = False,
) -> None:
    """
    Readings of a recorded byte stream as JSON lines.

    Several telegrams may follow each other.  Exit status 0 when at least one reading came out, else 1; errors go to
    standard error with offset and reason.
    """
    decode_stream = decoder(protocol, key)
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
        write_line(json.dumps(item.to_json(), ensure_ascii=False))
    if not count:
        if not error_count:
            typer.echo("nothing in it is a reading" if head else "the file is empty", err=True)
        if not hexadecimal and _looks_hexadecimal(head):
            typer.echo("the file looks like hexadecimal text: try --hex", err=True)
        raise typer.Exit(1)


def decoder(protocol: MeterProtocol, keys: list[str] | None) -> DecodeStream:
    """The codec of a protocol with its keys.  Raises typer.BadParameter for keys that are none or serve nothing."""
    module = importlib.import_module(f"node.lmn.{protocol.value.replace('-', '_')}.decode")
    decode_stream: DecodeStream = module.decode_stream
    parsed = _parse_keys(keys or [])
    if parsed is None:
        return decode_stream
    if len(inspect.signature(decode_stream).parameters) < 2:
        raise typer.BadParameter(f"{protocol.value} telegrams have no keys", param_hint="--key")
    if isinstance(parsed, dict) and protocol not in (MeterProtocol.WMBUS, MeterProtocol.MBUS):
        told = f"a recording of {protocol.value} is one meter's: its key alone, without DEVICE="
        raise typer.BadParameter(told, param_hint="--key")
    return partial(_with_keys, decode_stream, parsed)


def _with_keys(
    decode_stream: Callable[..., Iterator[Reading | RemoteProtocolError]],
    keys: bytes | dict[str, bytes],
    chunks: Iterable[bytes],
) -> Iterator[Reading | RemoteProtocolError]:
    return decode_stream(chunks, keys)


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
