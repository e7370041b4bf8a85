"""
What people have of their meters, as the bytes of the line: hexadecimal text, and logs with octets in it.

A log (Tasmota's dump, ESPHome's `uart` debug, anything with octets in hexadecimal behind a time) holds the octets of a
line one row after the other.  Captures of a network: `captures`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from protocol.errors import RemoteProtocolError

CAPTURE_MAGICS: Final = (
    b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x0a\x0d\x0d\x0a",
)  # fmt: skip
_LOG_HEAD_LINES: Final = 50
_WHITESPACE: Final = b" \t\r\n\v\f"
_NO_DIGIT: Final = re.compile(rb"[^0-9A-Fa-f \t\r\n\v\f]")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_TIME: Final = re.compile(r"^\s*\[?(?:\d{4}-\d\d-\d\d[ T])?\d\d:\d\d:\d\d(?:[.,]\d+)?(?![:\d])")
_OCTETS: Final = re.compile(
    r"(?<![0-9A-Za-z.:])[0-9A-Fa-f]{2}(?:(?P<gap>[ :.-]?)[0-9A-Fa-f]{2}(?:(?P=gap)[0-9A-Fa-f]{2})*)?(?![0-9A-Za-z])"
)
# Two letters are an octet only where nothing else is said: a command may end with d1.
_STARTS_OCTETS: Final = re.compile(r"[ :>]*|.*<<< *")
_LOG_LINE: Final = re.compile(
    rb"\s*(?:\x1b\[[0-9;]*m)?(?:\[?(?:\d{4}-\d\d-\d\d[ T])?\d\d:\d\d:\d\d|\[[A-Z]+\]\[|<<< )"  # ESPHome without a time
)


def is_capture(head: bytes) -> bool:
    """Whether a file that begins so is a capture of a network."""
    return head.startswith(CAPTURE_MAGICS)


def is_log(head: bytes) -> bool:
    """
    Whether a file that begins so is a log: its first line begins with a time, one of the first has octets behind it.

    Before the octets stand the commands that asked for them, and what the device says besides.
    """
    lines = head.lstrip().split(b"\n", _LOG_HEAD_LINES)[:_LOG_HEAD_LINES]
    return _LOG_LINE.match(lines[0]) is not None and any(
        _LOG_LINE.match(line) is not None and len(_line_octets(line.decode("latin-1"))) >= 4 for line in lines
    )


def octets_of_log(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """
    The octets of the lines of a log, in their order; what else stands in a line is passed over.

    Lines that say what was sent to the meter (`>>>`), and messages in JSON (identifications are hexadecimal there), are
    left out.  Never holds more than one line of 64 KiB.
    """
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        rest = rest[-65_536:]
        for line in lines:
            yield _line_octets(line.decode("latin-1"))
    yield _line_octets(rest.decode("latin-1"))


def _line_octets(line: str) -> bytes:
    if ">>>" in line or "{" in line:
        return b""
    plain = _TIME.sub(" ", _COLOUR.sub("", line))
    found = max(_OCTETS.finditer(plain), key=lambda match: len(match.group()), default=None)
    if found is None or (len(found.group()) == 2 and not _STARTS_OCTETS.fullmatch(plain[: found.start()])):
        return b""
    digits = re.sub(r"[ :.-]", "", found.group())
    return bytes.fromhex(digits) if len(digits) % 2 == 0 else b""


def octets_of_hex(chunks: Iterable[bytes], faults: list[RemoteProtocolError]) -> Iterator[bytes]:
    """The octets of hexadecimal text; it ends at the first character that is no digit, and adds it to the faults."""
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


def looks_hexadecimal(head: bytes) -> bool:
    """Whether a file that begins so is hexadecimal text."""
    return len(head) > 8 and _NO_DIGIT.search(head) is None
