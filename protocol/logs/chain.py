"""
The calibration log's entries and their chain: who has a later entry can tell whether an earlier one was touched.

Each entry names the hash of the one before it and is signed by the gateway, so a change, a gap and a forged entry are
found by anybody with the gateway's certificate.  A tail that was cut off leaves a shorter chain that is right in
itself: it is found against a head (number and hash) that lies elsewhere, such as with the administrator.

The text of an entry is canonical JSON (sorted keys, no spaces); the hash is SHA-256 over a purpose and the text.  An
entry that was written before the gateway was enrolled has no signature of its own; the next signed one covers it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from protocol.errors import RemoteProtocolError
from protocol.logs.events import Parameter

HASH_SIZE = 32
ENTRY_SIZE_MAX = 4096
FIRST = bytes(HASH_SIZE)
"""What the first entry names as the hash before it."""

_PURPOSE = b"stromkreis calibration log entry 1\0"
_KEYS = {"at_ms", "event", "gateway", "number", "parameters", "previous", "signature"}


@dataclass(frozen=True, slots=True)
class ChainedEntry:
    """
    One entry: numbered from 1, `at_ms` real time (Unix, ms), `previous` the hash of the entry before.

    `signature` is ECDSA (DER) over `signed_text`, or empty.
    """

    gateway: str
    number: int
    at_ms: int
    event: int
    parameters: Mapping[str, Parameter]
    previous: bytes
    signature: bytes = field(default=b"", repr=False)

    @property
    def signed_text(self) -> bytes:
        """What is hashed and signed."""
        document = {
            "at_ms": self.at_ms, "event": self.event, "gateway": self.gateway, "number": self.number,
            "parameters": dict(self.parameters), "previous": self.previous.hex(),
        }  # fmt: skip
        return _PURPOSE + json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @property
    def hash(self) -> bytes:
        """By which the next entry and a head name it."""
        return sha256(self.signed_text).digest()

    def to_json(self) -> str:
        """One line of an export."""
        document: dict[str, Any] = json.loads(self.signed_text[len(_PURPOSE) :])
        return json.dumps(document | {"signature": self.signature.hex()}, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> ChainedEntry:
        """Read a line.  Raises RemoteProtocolError `bad_log_entry` for anything else."""
        try:
            if len(line) > ENTRY_SIZE_MAX:
                raise ValueError
            document = json.loads(line)
            if set(document) != _KEYS or not _is_plain(document["parameters"]):
                raise ValueError
            entry = cls(
                document["gateway"], document["number"], document["at_ms"], document["event"], document["parameters"],
                bytes.fromhex(document["previous"]), bytes.fromhex(document["signature"]),
            )  # fmt: skip
            numbers = (entry.number, entry.at_ms, entry.event)
            if not isinstance(entry.gateway, str) or any(type(each) is not int for each in numbers):
                raise ValueError
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise RemoteProtocolError(
                "bad_log_entry", "expected a JSON object of an exported calibration log"
            ) from None
        return entry


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry of a log, as somebody saw it."""

    number: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Verification:
    """What a log is worth: `findings` is empty for a whole one; `head` is its newest entry, None of an empty log."""

    count: int
    head: Head | None
    findings: tuple[str, ...]


def verify(
    entries: Iterable[ChainedEntry], is_signed: Callable[[bytes, bytes], bool], known_head: Head | None = None
) -> Verification:
    """
    Check a whole log from its first entry on.

    `is_signed(signature, text)` is the check by the gateway's certificate.  Every finding names the entry.
    """
    findings: list[str] = []
    count, previous, gateway = 0, FIRST, ""
    head: Head | None = None
    signed_up_to, seen_known = 0, known_head is None
    for entry in entries:
        count += 1
        gateway = gateway or entry.gateway
        expected = 1 if head is None else head.number + 1
        if entry.gateway != gateway:
            findings.append(f"entry {entry.number} is of gateway {entry.gateway}, the log is of {gateway}")
        if entry.number != expected:
            findings.append(f"entry {entry.number} follows where entry {expected} is expected")
        if entry.previous != previous:
            findings.append(
                f"entry {entry.number} does not follow the entry before it: that one was changed or taken out"
            )
        if entry.signature:
            if is_signed(entry.signature, entry.signed_text):
                signed_up_to = entry.number
            else:
                findings.append(f"entry {entry.number} is not what the gateway signed")
        previous = entry.hash
        head = Head(entry.number, previous)
        if known_head is not None and entry.number == known_head.number:
            seen_known = True
            if head.hash != known_head.hash:
                findings.append(f"entry {entry.number} is not the one that was the newest when its hash was noted")
    if known_head is not None and not seen_known:
        findings.append(
            f"entry {known_head.number} was there when its hash was noted and is missing: the end was cut off"
        )
    if head is not None and signed_up_to < head.number:
        findings.append(f"entries after {signed_up_to} have no signature that holds")
    return Verification(count, head, tuple(findings))


def _is_plain(parameters: Any) -> bool:
    return isinstance(parameters, dict) and all(type(each) in (str, int) for each in parameters.values())
