"""
DNS messages as multicast DNS uses them (RFC 1035, section 4; RFC 6762, section 18).

A name is the tuple of its labels, which may hold any octet; names are compared without regard to case.  Record data is
kept with names in it written out, so that equal data is equal octets.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Final

from protocol.errors import RemoteProtocolError

Name = tuple[bytes, ...]
A: Final = 1
PTR: Final = 12
TXT: Final = 16
AAAA: Final = 28
SRV: Final = 33
NSEC: Final = 47
ANY: Final = 255
_CNAME: Final = 5
_IN: Final = 1
_TOP_BIT: Final = 0x8000  # of the class: unicast wanted in a question, the only such data in a record
_RESPONSE: Final = 0x8000
_AUTHORITATIVE: Final = 0x0400
_TRUNCATED: Final = 0x0200
_OPCODE_AND_RCODE: Final = 0x780F
_POINTER: Final = 0xC0
_NAME_SIZE_MAX: Final = 255
_ENTRIES_MAX: Final = 256
SIZE_MAX: Final = 9_000
"""Of a message (RFC 6762, section 17)."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for; `is_unicast` where the answer may come to the asker alone (QU)."""

    name: Name
    type: int
    is_unicast: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """One record; `is_unique` where whoever sends it is the only one who has such records (cache-flush bit)."""

    name: Name
    type: int
    data: bytes
    ttl_s: int
    is_unique: bool = False

    @property
    def key(self) -> tuple[Name, int, bytes]:
        """What makes two records the same."""
        return lower(self.name), self.type, self.data


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A query or a response."""

    id: int = 0
    is_response: bool = False
    is_truncated: bool = False
    questions: tuple[Question, ...] = ()
    answers: tuple[Record, ...] = ()
    authorities: tuple[Record, ...] = ()
    additionals: tuple[Record, ...] = ()

    def to_bytes(self) -> bytes:
        """Its octets, with the names of records and questions compressed."""
        flags = (_RESPONSE | _AUTHORITATIVE if self.is_response else 0) | (_TRUNCATED if self.is_truncated else 0)
        parts = (self.questions, self.answers, self.authorities, self.additionals)
        out = bytearray(struct.pack(">6H", self.id, flags, *map(len, parts)))
        known: dict[Name, int] = {}
        for question in self.questions:
            _put_name(out, question.name, known)
            out += struct.pack(">2H", question.type, _IN | (_TOP_BIT if question.is_unicast else 0))
        for record in (*self.answers, *self.authorities, *self.additionals):
            _put_name(out, record.name, known)
            kind = _IN | (_TOP_BIT if record.is_unique else 0)
            out += struct.pack(">2HIH", record.type, kind, record.ttl_s, len(record.data)) + record.data
        return bytes(out)


def lower(name: Name) -> Name:
    """The form in which names are compared."""
    return tuple(each.lower() for each in name)


def name_of(text: str) -> Name:
    """The labels of a name that is written with points."""
    return tuple(each.encode() for each in text.rstrip(".").split("."))


def packed(name: Name) -> bytes:
    """A name written out."""
    return b"".join(bytes((len(each),)) + each for each in name) + b"\0"


def srv_data(port: int, host: Name) -> bytes:
    """The data of an SRV record of priority and weight 0."""
    return struct.pack(">3H", 0, 0, port) + packed(host)


def txt_data(pairs: dict[str, str]) -> bytes:
    """The data of a TXT record (RFC 6763, section 6)."""
    texts = [f"{key}={value}".encode() for key, value in pairs.items()]
    return b"".join(bytes((len(each),)) + each for each in texts) or b"\0"


def nsec_data(name: Name, types: set[int]) -> bytes:
    """The data of an NSEC record that says which types a name has, all of them below 256 (RFC 6762, section 6.1)."""
    bitmap = bytearray(32)
    for each in types:
        bitmap[each // 8] |= 0x80 >> each % 8
    shortened = bytes(bitmap).rstrip(b"\0")
    return packed(name) + bytes((0, len(shortened))) + shortened


def with_ttl(record: Record, ttl_s: int) -> Record:
    """The same record for another time."""
    return replace(record, ttl_s=ttl_s)


def read_message(data: bytes) -> Message:
    """
    A message from its octets; what is not of the Internet class is left out.

    Raises RemoteProtocolError `bad_mdns`.
    """
    if not 12 <= len(data) <= SIZE_MAX:
        raise RemoteProtocolError("bad_mdns", f"{len(data)} octets, expected 12 to {SIZE_MAX}")
    identifier, flags, *counts = struct.unpack_from(">6H", data)
    if flags & _OPCODE_AND_RCODE:
        raise RemoteProtocolError("bad_mdns", "an operation or an error, which are ignored (sections 18.3, 18.11)")
    if sum(counts) > _ENTRIES_MAX:
        raise RemoteProtocolError("bad_mdns", f"{sum(counts)} entries, expected at most {_ENTRIES_MAX}")
    try:
        at, questions = _questions(data, 12, counts[0])
        parts: list[tuple[Record, ...]] = []
        for count in counts[1:]:
            at, records = _records(data, at, count)
            parts.append(records)
    except (struct.error, IndexError):
        raise RemoteProtocolError("bad_mdns", "it ends too early") from None
    return Message(
        id=identifier, is_response=bool(flags & _RESPONSE), is_truncated=bool(flags & _TRUNCATED), questions=questions,
        answers=parts[0], authorities=parts[1], additionals=parts[2],
    )  # fmt: skip


def _questions(data: bytes, at: int, count: int) -> tuple[int, tuple[Question, ...]]:
    found = []
    for _ in range(count):
        name, at = _name(data, at)
        kind, class_ = struct.unpack_from(">2H", data, at)
        at += 4
        if class_ & ~_TOP_BIT in {_IN, ANY}:
            found.append(Question(name, kind, bool(class_ & _TOP_BIT)))
    return at, tuple(found)


def _records(data: bytes, at: int, count: int) -> tuple[int, tuple[Record, ...]]:
    found = []
    for _ in range(count):
        name, at = _name(data, at)
        kind, class_, ttl_s, size = struct.unpack_from(">2HIH", data, at)
        at += 10
        if at + size > len(data):
            raise IndexError
        if class_ & ~_TOP_BIT == _IN:
            found.append(Record(name, kind, _data(data, at, size, kind), ttl_s, bool(class_ & _TOP_BIT)))
        at += size
    return at, tuple(found)


def _data(data: bytes, at: int, size: int, kind: int) -> bytes:
    """Record data with a compressed name in it written out."""
    before = {PTR: 0, _CNAME: 0, NSEC: 0, SRV: 6}.get(kind)
    if before is None or size < before:
        return data[at : at + size]
    name, end = _name(data, at + before)
    return data[at : at + before] + packed(name) + data[end : at + size]


def _name(data: bytes, at: int) -> tuple[Name, int]:
    labels: list[bytes] = []
    end, size = 0, 0
    limit = at
    while (length := data[at]) != 0:
        if length & _POINTER == _POINTER:
            target = (length & ~_POINTER) << 8 | data[at + 1]
            end = end or at + 2
            if target >= limit:  # only backwards, so that it ends
                raise RemoteProtocolError("bad_mdns", "a name that points forwards", offset=at)
            at = limit = target
            continue
        if length & _POINTER:
            raise RemoteProtocolError("bad_mdns", "a label of an unknown kind", offset=at)
        size += length + 1
        if size > _NAME_SIZE_MAX or at + 1 + length > len(data):
            raise RemoteProtocolError("bad_mdns", "a name that is too long", offset=at)
        labels.append(data[at + 1 : at + 1 + length])
        at += 1 + length
    return tuple(labels), end or at + 1


def _put_name(out: bytearray, name: Name, known: dict[Name, int]) -> None:
    for index in range(len(name)):
        rest = name[index:]
        if rest in known:
            out += struct.pack(">H", _POINTER << 8 | known[rest])
            return
        if len(out) < 1 << 14:
            known[rest] = len(out)
        out += bytes((len(name[index]),)) + name[index]
    out += b"\0"
