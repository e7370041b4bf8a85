"""How the fields of DLMS messages are written (A-XDR, IEC 61334-6): the codecs that `apdu` puts on its dataclasses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from node.lmn.dlms.axdr import Data, Reader, encode_length
from node.lmn.dlms.clock import CosemDateTime
from protocol.metering.obis import Obis


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute or method of an object: class id, logical name, index (signed)."""

    class_id: int
    obis: Obis
    index: int


@dataclass(frozen=True, slots=True)
class Access:
    """Selective access: the selector and its parameters."""

    selector: int
    parameters: Data


@dataclass(frozen=True, slots=True)
class Codec:
    """A field's decoder and encoder; the decoder raises RemoteProtocolError."""

    read: Callable[[Reader], Any]
    write: Callable[[Any], bytes]


def unsigned(size: int) -> Codec:
    """Big-endian, `size` bytes."""
    return Codec(lambda reader: reader.integer(size), lambda value: int(value).to_bytes(size, "big"))


def optional(codec: Codec) -> Codec:
    """OPTIONAL: a presence byte, and the field if it is not zero."""
    return Codec(
        lambda reader: codec.read(reader) if reader.optional() else None,
        lambda value: b"\x00" if value is None else b"\x01" + codec.write(value),
    )


def list_of(codec: Codec) -> Codec:
    """SEQUENCE OF: a count, and as many."""

    def read(reader: Reader) -> tuple[Any, ...]:
        count = reader.length()
        if count > reader.remaining:
            raise reader.error("dlms_truncated", f"{count} items wanted, {reader.remaining} bytes left")
        return tuple(codec.read(reader) for _ in range(count))

    return Codec(read, lambda items: encode_length(len(items)) + b"".join(map(codec.write, items)))


def pair(first: Codec, second: Codec) -> Codec:
    """One after the other."""
    return Codec(
        lambda reader: (first.read(reader), second.read(reader)),
        lambda both: first.write(both[0]) + second.write(both[1]),
    )


def either(codec: Codec) -> Codec:
    """CHOICE of data [0] and an error number [1]."""

    def read(reader: Reader) -> Any:
        choice = reader.byte()
        if choice > 1:
            raise reader.error("dlms_choice", "neither data nor an error")
        return reader.byte() if choice else codec.read(reader)

    return Codec(read, lambda value: bytes((1, value)) if isinstance(value, int) else b"\x00" + codec.write(value))


def _read_attribute(reader: Reader) -> Attribute:
    return Attribute(reader.integer(2), Obis.from_bytes(reader.take(6)), reader.integer(1, signed=True))


def _write_attribute(value: Attribute) -> bytes:
    return value.class_id.to_bytes(2, "big") + value.obis.to_bytes() + value.index.to_bytes(1, "big", signed=True)


def read_date_time(reader: Reader) -> CosemDateTime | None:
    """
    An octet string of 0 or 12 bytes.

    Kaifa puts a data tag (09) before its length, which no other reading of these bytes explains.
    """
    length = reader.length()
    if length == 9 and reader.peek() == b"\x0c":
        length = reader.byte()
    content = reader.take(length)
    return CosemDateTime.from_bytes(content) if content else None


def _write_date_time(value: CosemDateTime | None) -> bytes:
    return b"\x00" if value is None else b"\x0c" + value.to_bytes()


def _read_conformance(reader: Reader) -> int:
    """BER inside A-XDR: 5F 1F 04 00 and three bytes; some meters leave out the 1F (IEC 62056-5-3, 11)."""
    if reader.byte() != 0x5F:
        raise reader.error("dlms_conformance", "no conformance block")
    if reader.peek() == b"\x1f":
        reader.byte()
    if reader.take(2) != b"\x04\x00":
        raise reader.error("dlms_conformance", "a conformance block has 24 bits")
    return reader.integer(3)


BYTE: Final = unsigned(1)
WORD: Final = unsigned(4)
BOOLEAN: Final = Codec(lambda reader: reader.byte() != 0, lambda value: b"\x01" if value else b"\x00")
DATA: Final = Codec(Reader.data, Data.to_bytes)
OCTETS: Final = Codec(Reader.octets, lambda value: encode_length(len(value)) + value)
REST: Final = Codec(Reader.rest, bytes)
ATTRIBUTE: Final = Codec(_read_attribute, _write_attribute)
ACCESS: Final = optional(
    Codec(
        lambda reader: Access(reader.byte(), reader.data()),
        lambda value: bytes((value.selector,)) + value.parameters.to_bytes(),
    )
)
CONFORMANCE: Final = Codec(_read_conformance, lambda value: b"\x5f\x1f\x04\x00" + value.to_bytes(3, "big"))
DATE_TIME: Final = Codec(read_date_time, _write_date_time)
