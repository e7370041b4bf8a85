"""
What a field of a message may be: its bound is in its annotation, and reading it off the front of a message checks it.

A `Read` takes one field off an unpacker or raises `malformed`.  Fields are taken one by one as the class says, so that
nested arrays, which MessagePack allows to promise a thousand times their own size, are never built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgpack

from protocol.errors import RemoteProtocolError

VERSION = 2
MAX_RING = 1024  # members of one ring; the parameters never ask for more
MAX_LIST = 1024  # gateways that draw one beacon; areas of more than 256 are split (protocol.dcnet.setup.crowd)
MAX_SPOT_CHECKS = 66  # joins that a gateway asks for (protocol.dcnet.setup.crowd)
MAX_TRIES = 64  # of drawing one epoch's rings; a gateway shows its value for 8 in a day
MAX_SLOTS = 4096
MAX_ROUNDS = 1 << 20
MAX_FRAME_SIZE = 8 << 20  # every field alone at its bound fits; a link carries less (LinkLimits.message_bytes_max)
NONCE_SIZE = 16  # of one process of a gateway in one epoch; docs/explanation/protocol.md, section 4
MAX_ATTEMPTS = 3  # of one round; docs/explanation/protocol.md, section 4

Read = Callable[[msgpack.Unpacker], Any]  # takes one field off the front, or raises for what it may not be


def malformed(expected: str) -> RemoteProtocolError:
    """The error of a field that is not what was expected; what it was is not repeated."""
    return RemoteProtocolError("malformed_message", f"expected {expected}")


def integer(low: int, high: int) -> Read:
    """A whole number from `low` to `high`; a boolean is none."""

    def read(source: msgpack.Unpacker) -> int:
        value = source.unpack()
        if type(value) is not int or not low <= value <= high:
            raise malformed(f"an integer from {low} to {high}")
        return value

    return read


def octets(low: int, high: int | None = None, multiple: int = 1) -> Read:
    """Bytes, from `low` to `high` of them (exactly `low` without), in multiples."""
    top = low if high is None else high

    def read(source: msgpack.Unpacker) -> bytes:
        value = source.unpack()
        if type(value) is not bytes or not low <= len(value) <= top or len(value) % multiple:
            raise malformed(f"{low} to {top} octets in multiples of {multiple}")
        return value

    return read


def text(high: int) -> Read:
    """Printable text of 1 to `high` characters."""

    def read(source: msgpack.Unpacker) -> str:
        value = source.unpack()
        if type(value) is not str or not 0 < len(value) <= high or not value.isprintable():
            raise malformed(f"printable text of 1 to {high} characters")
        return value

    return read


def many(item: Read, high: int) -> Read:
    """At most `high` items of one kind."""

    def read(source: msgpack.Unpacker) -> tuple[Any, ...]:
        count = source.read_array_header()
        if count > high:
            raise malformed(f"an array of at most {high} items")
        return tuple(item(source) for _ in range(count))

    return read


def record(*items: Read) -> Read:
    """Exactly these items in this order."""

    def read(source: msgpack.Unpacker) -> tuple[Any, ...]:
        if source.read_array_header() != len(items):
            raise malformed(f"an array of {len(items)} items")
        return tuple(item(source) for item in items)

    return read


ring_position = integer(0, MAX_RING - 1)
gateway_identity = text(64)
feldman = many(octets(32), MAX_RING)
sealed_share = octets(1, 128)
FeldmanCommitments = Annotated[tuple[bytes, ...], feldman]
SealedShares = Annotated[tuple[tuple[int, bytes], ...], many(record(ring_position, sealed_share), MAX_RING)]

Counter = Annotated[int, integer(0, 2**63 - 1)]
Epoch = Annotated[int, integer(0, 2**40)]
Ring = Annotated[int, integer(0, 2**32)]
Round = Annotated[int, integer(0, MAX_ROUNDS - 1)]
Attempt = Annotated[int, integer(0, MAX_ATTEMPTS - 1)]
Try = Annotated[int, integer(0, MAX_TRIES - 1)]
Term = Annotated[int, integer(0, 2**32)]
Position = Annotated[int, ring_position]
Identity = Annotated[str, gateway_identity]
Key = Annotated[bytes, octets(32)]
Digest = Annotated[bytes, octets(32)]
Signature = Annotated[bytes, octets(8, 160)]
Bitmap = Annotated[bytes, octets(1, MAX_RING // 8)]
Vector = Annotated[bytes, octets(0, 8 * MAX_SLOTS, 8)]
Elements = Annotated[bytes, octets(0, 32 * MAX_SLOTS, 32)]
Scalars = Annotated[bytes, octets(0, 32 * MAX_SLOTS, 32)]
Macs = Annotated[bytes, octets(0, 16 * MAX_RING, 16)]
SeedCommitment = Annotated[bytes, octets(32)]
Salt = Annotated[bytes, octets(16)]
Nonce = Annotated[bytes, octets(NONCE_SIZE)]
Nonces = Annotated[bytes, octets(0, NONCE_SIZE * MAX_RING, NONCE_SIZE)]
MemberSignature = Annotated[bytes, octets(64)]  # Ed25519, with a member's or the round ledger's key of the epoch
Attestations = Annotated[bytes, octets(0, 128 * MAX_RING, 128)]
Reason = Annotated[str, text(200)]
Endpoint = Annotated[str, text(200)]
FuseRating = Annotated[int, integer(16, 10_000)]
Fraction = Annotated[int, integer(0, 1_000_000)]  # parts in a million: no float goes into a digest
