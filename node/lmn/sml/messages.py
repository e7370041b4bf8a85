"""
The messages of SML 1.04 (DIN VDE 0418-63-9 clause 5, TR-03109-1 annex IV b), and how a file of them is read and made.

A file is a row of messages: an Open, requests or responses, a Close.  Each message carries a CRC of its own and ends
with a zero byte.  The table below says which tag is which body (`node.lmn.sml.bodies`) and what type each of
its fields has, and is all there is to know for reading and writing them.

Quirks of real meters read here: CRCs shortened to one byte, Kermit instead of X-25, tags in two or four bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from node.lmn.sml import crc
from node.lmn.sml.bodies import (
    ActionCosemRequest,
    ActionCosemResponse,
    AttentionResponse,
    Body,
    CloseRequest,
    CloseResponse,
    CosemAttribute,
    GetCosemRequest,
    GetCosemResponse,
    GetListRequest,
    GetListResponse,
    GetProcParameterRequest,
    GetProcParameterResponse,
    GetProfileListRequest,
    GetProfileListResponse,
    GetProfilePackRequest,
    GetProfilePackResponse,
    Message,
    OpenRequest,
    OpenResponse,
    ProfileHeader,
    ProfilePeriod,
    SetCosemRequest,
    SetCosemResponse,
    SetProcParameterRequest,
    SetProcParameterResponse,
    SignedValue,
    UnknownBody,
)
from node.lmn.sml.codec import (
    BOOL,
    I8,
    I16,
    OCTETS,
    U8,
    U16,
    U32,
    U64,
    Kind,
    expect_count,
    list_of,
    optional,
    read_octets,
    sequence,
    skip,
    write_octets,
)
from node.lmn.sml.values import ENTRIES, PERIOD_ENTRY, TIME, TREE, VALUE
from protocol.errors import LocalProtocolError, RemoteProtocolError

_O, _T, _TREE = optional(OCTETS), TIME, optional(TREE)
_U8, _PATH = optional(U8), list_of(OCTETS)
_PROFILE_REQUEST = (_O, _O, _O, optional(BOOL), _T, _T, _PATH, optional(_PATH), _TREE)
_HEADERS = list_of(sequence(ProfileHeader, OCTETS, U8, I8))
_PERIODS = list_of(sequence(ProfilePeriod, _T, U64, list_of(sequence(SignedValue, VALUE, _O)), _O))
_ATTRIBUTE = sequence(CosemAttribute, I16, TREE)
_ATTRIBUTES = list_of(_ATTRIBUTE)
_ASKER, _OBJECT = (OCTETS, _O, _O, _O), (OCTETS, U16, I16)
_ANSWERER = (_O, OCTETS)

_FIELDS: Final[dict[int, tuple[Any, tuple[Kind, ...]]]] = {
    0x0100: (OpenRequest, (_O, OCTETS, OCTETS, _O, _O, _O, _U8)),
    0x0101: (OpenResponse, (_O, _O, OCTETS, OCTETS, _T, _U8)),
    0x0200: (CloseRequest, (_O,)),
    0x0201: (CloseResponse, (_O,)),
    0x0300: (GetProfilePackRequest, _PROFILE_REQUEST),
    0x0301: (GetProfilePackResponse, (OCTETS, _T, U32, _PATH, _HEADERS, _PERIODS, _O, _O)),
    0x0400: (GetProfileListRequest, _PROFILE_REQUEST),
    0x0401: (GetProfileListResponse, (OCTETS, _T, U32, _PATH, _T, U64, list_of(PERIOD_ENTRY), _O, _O)),
    0x0500: (GetProcParameterRequest, (_O, _O, _O, _PATH, _O)),
    0x0501: (GetProcParameterResponse, (OCTETS, _PATH, TREE)),
    0x0600: (SetProcParameterRequest, (_O, _O, _O, _PATH, TREE)),
    0x0601: (SetProcParameterResponse, (OCTETS, _PATH, TREE)),
    0x0700: (GetListRequest, (OCTETS, _O, _O, _O, _O)),
    0x0701: (GetListResponse, (_O, OCTETS, _O, _T, ENTRIES, _O, _T)),
    0x0800: (GetCosemRequest, (*_ASKER, *_OBJECT, optional(list_of(I16)))),
    0x0801: (GetCosemResponse, (*_ANSWERER, *_OBJECT, _ATTRIBUTES)),
    0x0900: (SetCosemRequest, (*_ASKER, *_OBJECT, _ATTRIBUTES)),
    0x0901: (SetCosemResponse, (*_ANSWERER, *_OBJECT, optional(_ATTRIBUTES))),
    0x0A00: (ActionCosemRequest, (*_ASKER, *_OBJECT, _ATTRIBUTE)),
    0x0A01: (ActionCosemResponse, (*_ANSWERER, *_OBJECT, optional(_ATTRIBUTE))),
    0xFF01: (AttentionResponse, (OCTETS, OCTETS, _O, _TREE)),
}
_BODIES: Final = {tag: sequence(make, *kinds) for tag, (make, kinds) in _FIELDS.items()}
_USUAL_HEAD: Final = b"\x62\x00\x62\x00\x72\x63"  # group 0, abort 0, a body with a two-byte tag
_TAGS: Final = {make: tag for tag, (make, _) in _FIELDS.items()}


def decode_file(data: bytes) -> list[Message]:
    """
    The messages of one SML file (what a frame carries), every CRC checked.

    Zero bytes between and after messages are skipped: some meters fill up more than their frame says.
    Raises RemoteProtocolError, with the offset in `data`, where anything is wrong with any of them.
    """
    out: list[Message] = []
    pos, end = 0, len(data)
    try:
        while pos < end:
            if data[pos] == 0:
                pos += 1
                continue
            message, pos = _read_message(data, pos)
            out.append(message)
    except IndexError:
        raise RemoteProtocolError("truncated", "the file ends inside a message", offset=end) from None
    return out


def _read_message(data: bytes, start: int) -> tuple[Message, int]:
    pos = start + 1 if data[start] == 0x76 else expect_count(data, start, 6, "a message")
    transaction_id, pos = read_octets(data, pos)
    if data[pos : pos + 6] == _USUAL_HEAD:
        group = abort = 0
        tag = data[pos + 6] << 8 | data[pos + 7]
        pos += 8
    else:
        group, pos = U8.read(data, pos)
        abort, pos = U8.read(data, pos)
        pos = expect_count(data, pos, 2, "a message body")
        tag, pos = U32.read(data, pos)
    kind = _BODIES.get(tag)
    body: Body
    if kind is not None:
        body, pos = kind.read(data, pos)
    else:
        begin, pos = pos, skip(data, pos)
        body = UnknownBody(tag, data[begin:pos])
    at = pos
    wanted, pos = U16.read(data, at)
    if data[pos] != 0:
        raise RemoteProtocolError("sml_end", "a message without its end mark", offset=pos)
    if not crc.matches(data[start:at], wanted):
        raise RemoteProtocolError("message_crc", "a message's check sum is wrong", offset=start)
    return Message(transaction_id, body, group, abort), pos + 1


def encode_file(messages: Iterable[Message]) -> bytes:
    """The bytes of one SML file.  Raises LocalProtocolError for a value that its field cannot hold."""
    return b"".join(map(_write_message, messages))


def _write_message(message: Message) -> bytes:
    body = message.body
    try:
        if isinstance(body, UnknownBody):
            tag, content = body.tag, body.data
        else:
            tag = _TAGS[type(body)]
            content = _BODIES[tag].write(body)
        data = b"".join((
            b"\x76", write_octets(message.transaction_id), U8.write(message.group), U8.write(message.abort_on_error),
            b"\x72", U32.write(tag), content,
        ))  # fmt: skip
    except (OverflowError, TypeError, AttributeError, ValueError) as error:
        raise LocalProtocolError(f"{type(body).__name__} cannot be encoded: {type(error).__name__}") from error
    return data + U16.write(crc.x25(data)) + b"\x00"
