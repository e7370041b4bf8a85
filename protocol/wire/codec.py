"""Strict decoding: exactly one well-formed message of an allowed kind, or the peer's fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from protocol.errors import RemoteProtocolError
from protocol.wire.fields import MAX_FRAME_SIZE, malformed
from protocol.wire.registry import CODES, READS, TABLE, VALUES, Message

_pack: Callable[[tuple[Any, ...]], bytes] = msgpack.Packer().pack  # one for all: a new one costs more than the packing


def encode(message: Message) -> bytes:
    """The message's bytes."""
    kind = type(message)
    return _pack((CODES[kind], *VALUES[kind](message)))


def decode(data: bytes, allowed: frozenset[type[Message]]) -> Message:
    """
    The one message in `data`.

    Raises RemoteProtocolError for anything that is not exactly one well-formed message of an allowed kind.
    """
    if len(data) > MAX_FRAME_SIZE:
        raise RemoteProtocolError("oversized_message", f"expected at most {MAX_FRAME_SIZE} bytes")
    # What is read whole is one field at most: an array, map or extension where a number should be ends the message.
    source = msgpack.Unpacker(
        max_buffer_size=len(data) + 1, read_size=len(data) + 1, max_array_len=0, max_map_len=0, max_ext_len=0
    )
    source.feed(data)
    try:
        message = _read(source, allowed)
        rest = len(data) - source.tell()
    except (ValueError, msgpack.UnpackException) as error:
        raise RemoteProtocolError("malformed_message", "expected one MessagePack value") from error
    if rest:
        raise malformed("nothing behind the message")
    return message


def _read(source: msgpack.Unpacker, allowed: frozenset[type[Message]]) -> Message:
    count, code = source.read_array_header(), source.unpack()
    if type(code) is not int:
        raise malformed("an array that begins with a message code")
    kind = TABLE.get(code)
    if kind is None:
        raise RemoteProtocolError("unknown_message", f"message code {code:d} is not in the table")
    if kind not in allowed:
        raise RemoteProtocolError("message_not_allowed", f"{kind.__name__} does not come from this side")
    reads = READS[kind]
    if count != len(reads) + 1:
        raise malformed(f"{len(reads)} fields in {kind.__name__}")
    make: Callable[..., Message] = kind
    return make(*(read(source) for read in reads))
