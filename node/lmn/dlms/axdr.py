"""
A-XDR: the data types of COSEM attributes and their encoding (IEC 61334-6; DLMS UA 1000-1, 4.1.3).

A value keeps its type, because a meter must get back what it asked for (a long-unsigned is not an unsigned) and
because an octet-string of twelve bytes is not yet a date.  A compact array is expanded to its elements here but
keeps its type description, so that it encodes to the bytes it came from.

Bounds: nesting, and the number of values in one piece of data.  The latter is counted, not derived from the length,
since a compact array of null-data claims any number of elements in no bytes at all.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from protocol.errors import LocalProtocolError, RemoteProtocolError

DEPTH_MAX: Final = 16
VALUE_COUNT_MAX: Final = 50_000


class Type(IntEnum):
    """Tags of the common data types."""

    NULL = 0
    ARRAY = 1
    STRUCTURE = 2
    BOOLEAN = 3
    BIT_STRING = 4
    DOUBLE_LONG = 5
    DOUBLE_LONG_UNSIGNED = 6
    OCTET_STRING = 9
    VISIBLE_STRING = 10
    UTF8_STRING = 12
    BCD = 13
    INTEGER = 15
    LONG = 16
    UNSIGNED = 17
    LONG_UNSIGNED = 18
    COMPACT_ARRAY = 19
    LONG64 = 20
    LONG64_UNSIGNED = 21
    ENUM = 22
    FLOAT32 = 23
    FLOAT64 = 24
    DATE_TIME = 25
    DATE = 26
    TIME = 27
    DONT_CARE = 255


_INTEGERS: Final = {
    Type.DOUBLE_LONG: (4, True), Type.DOUBLE_LONG_UNSIGNED: (4, False), Type.BCD: (1, False),
    Type.INTEGER: (1, True), Type.LONG: (2, True), Type.UNSIGNED: (1, False), Type.LONG_UNSIGNED: (2, False),
    Type.LONG64: (8, True), Type.LONG64_UNSIGNED: (8, False), Type.ENUM: (1, False),
}  # fmt: skip
_FLOATS: Final = {Type.FLOAT32: ">f", Type.FLOAT64: ">d"}
_OCTETS: Final = {Type.DATE_TIME: 12, Type.DATE: 5, Type.TIME: 4}
_STRINGS: Final = frozenset({Type.OCTET_STRING, Type.VISIBLE_STRING, Type.UTF8_STRING})
INTEGER_TYPES: Final = frozenset(_INTEGERS)


@dataclass(frozen=True, slots=True)
class BitString:
    """Bits, most significant first; `count` says how many of `data` mean something."""

    data: bytes
    count: int

    def __post_init__(self) -> None:
        if len(self.data) != (self.count + 7) // 8:
            raise LocalProtocolError(f"{self.count} bits are not {len(self.data)} bytes")


@dataclass(frozen=True, slots=True)
class TypeDescription:
    """What the elements of a compact array are: a simple type, `count` times `parts[0]` (array), or a structure."""

    type: Type
    parts: tuple[TypeDescription, ...] = ()
    count: int = 0


@dataclass(frozen=True, slots=True)
class Data:
    """
    One value with its type.

    `value` is None (null, don't care), bool, int, float, bytes (octet-string, visible-string as sent, date-time,
    date, time), str (UTF-8), BitString, or a tuple of Data for array, structure and compact array.
    """

    type: Type
    value: Any = None
    description: TypeDescription | None = None

    def to_bytes(self) -> bytes:
        """With its tag.  Raises LocalProtocolError for a value that its type cannot hold."""
        return bytes((self.type,)) + self._content()

    def _content(self) -> bytes:
        try:
            return _encode(self)
        except (OverflowError, TypeError, AttributeError, struct.error, UnicodeEncodeError) as error:
            raise LocalProtocolError(f"not a value of type {self.type.name}") from error


def _encode(data: Data) -> bytes:
    kind, value = data.type, data.value
    if kind in _INTEGERS:
        size, signed = _INTEGERS[kind]
        return int(value).to_bytes(size, "big", signed=signed)
    if kind in (Type.ARRAY, Type.STRUCTURE):
        return encode_length(len(value)) + b"".join(item.to_bytes() for item in value)
    if kind in _STRINGS:
        octets = value.encode() if kind is Type.UTF8_STRING else bytes(value)
        return encode_length(len(octets)) + octets
    if kind in _OCTETS:
        if len(value) != _OCTETS[kind]:
            raise LocalProtocolError(f"a {kind.name} has {_OCTETS[kind]} bytes")
        return bytes(value)
    if kind in _FLOATS:
        return struct.pack(_FLOATS[kind], value)
    if kind is Type.BOOLEAN:
        return b"\x01" if value else b"\x00"
    if kind is Type.BIT_STRING:
        return encode_length(value.count) + bytes(value.data)
    if kind is Type.COMPACT_ARRAY:
        if data.description is None:
            raise LocalProtocolError("a compact array needs its type description")
        content = b"".join(_encode_packed(item, data.description) for item in value)
        return _encode_description(data.description) + encode_length(len(content)) + content
    return b""


def _encode_packed(data: Data, description: TypeDescription) -> bytes:
    if description.type is Type.ARRAY:
        return b"".join(_encode_packed(item, description.parts[0]) for item in data.value)
    if description.type is Type.STRUCTURE:
        pairs = zip(data.value, description.parts, strict=True)
        return b"".join(_encode_packed(item, part) for item, part in pairs)
    return _encode(data)


def _encode_description(description: TypeDescription) -> bytes:
    tag = bytes((description.type,))
    if description.type is Type.ARRAY:
        return tag + description.count.to_bytes(2, "big") + _encode_description(description.parts[0])
    if description.type is Type.STRUCTURE:
        parts = b"".join(map(_encode_description, description.parts))
        return tag + encode_length(len(description.parts)) + parts
    return tag


def encode_length(length: int) -> bytes:
    """One byte below 128, else the number of length bytes with the top bit set (ISO/IEC 8825-1, 8.1.3)."""
    if length < 0x80:
        return bytes((length,))
    size = (length.bit_length() + 7) // 8
    return bytes((0x80 | size,)) + length.to_bytes(size, "big")


class Reader:
    """
    A cursor over received bytes; whatever is not there raises RemoteProtocolError with its offset.

    `value_count_max` bounds all values decoded through this reader together.
    """

    def __init__(self, data: bytes, *, value_count_max: int = VALUE_COUNT_MAX) -> None:
        self._data = data
        self.offset = 0
        self._values_left = value_count_max

    @property
    def remaining(self) -> int:
        """Bytes not yet taken."""
        return len(self._data) - self.offset

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        if size > self.remaining:
            raise self.error("dlms_truncated", f"{size} bytes wanted, {self.remaining} left")
        self.offset += size
        return self._data[self.offset - size : self.offset]

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(self.remaining)

    def byte(self) -> int:
        """One byte."""
        return self.take(1)[0]

    def peek(self, size: int = 1) -> bytes:
        """Up to `size` bytes, not taken."""
        return self._data[self.offset : self.offset + size]

    def integer(self, size: int, *, signed: bool = False) -> int:
        """Big-endian."""
        return int.from_bytes(self.take(size), "big", signed=signed)

    def length(self) -> int:
        """A length field."""
        first = self.byte()
        if first < 0x80:
            return first
        if not 1 <= first & 0x7F <= 4:
            raise self.error("dlms_length", "a length field of more than four bytes")
        return self.integer(first & 0x7F)

    def octets(self) -> bytes:
        """A length field and as many bytes."""
        return self.take(self.length())

    def optional(self) -> bool:
        """The presence byte of an OPTIONAL or DEFAULT component."""
        return self.byte() != 0

    def end(self) -> None:
        """Raises RemoteProtocolError where bytes are left over."""
        if self.remaining:
            raise self.error("dlms_trailing", f"{self.remaining} bytes after the end")

    def error(self, reason: str, detail: str) -> RemoteProtocolError:
        """An error at this place."""
        return RemoteProtocolError(reason, detail, offset=self.offset)

    def data(self) -> Data:
        """One value with its tag."""
        return self._data_item(0)

    def _data_item(self, depth: int) -> Data:
        return self._content(self._type(), depth)

    def _type(self) -> Type:
        tag = self.byte()
        try:
            return Type(tag)
        except ValueError:
            self.offset -= 1
            raise self.error("dlms_data_type", "not the tag of a data type") from None

    def _content(self, kind: Type, depth: int) -> Data:
        self._values_left -= 1
        if self._values_left < 0 or depth > DEPTH_MAX:
            raise self.error("dlms_too_large", "more values or deeper nesting than allowed")
        if kind in _INTEGERS:
            size, signed = _INTEGERS[kind]
            return Data(kind, self.integer(size, signed=signed))
        if kind in (Type.ARRAY, Type.STRUCTURE):
            count = self.length()
            if count > self.remaining:  # every element has at least its tag
                raise self.error("dlms_truncated", f"{count} elements wanted, {self.remaining} bytes left")
            return Data(kind, tuple(self._data_item(depth + 1) for _ in range(count)))
        if kind is Type.UTF8_STRING:
            try:
                return Data(kind, self.octets().decode())
            except UnicodeDecodeError:
                raise self.error("dlms_text", "a UTF-8 string that is none") from None
        if kind in _STRINGS:
            return Data(kind, self.octets())
        if kind in _OCTETS:
            return Data(kind, self.take(_OCTETS[kind]))
        if kind in _FLOATS:
            return Data(kind, struct.unpack(_FLOATS[kind], self.take(struct.calcsize(_FLOATS[kind])))[0])
        if kind is Type.BOOLEAN:
            return Data(kind, self.byte() != 0)
        if kind is Type.BIT_STRING:
            count = self.length()
            return Data(kind, BitString(self.take((count + 7) // 8), count))
        if kind is Type.COMPACT_ARRAY:
            return self._compact_array(depth)
        return Data(kind)

    def _compact_array(self, depth: int) -> Data:
        description = self._description(depth + 1)
        end = self.length() + self.offset
        if end > len(self._data):
            raise self.error("dlms_truncated", "the compact array is cut off")
        items = []
        while self.offset < end:
            before = self.offset
            items.append(self._packed(description, depth + 1))
            if self.offset == before:
                raise self.error("dlms_data_type", "a compact array of elements without bytes")
        if self.offset != end:
            raise self.error("dlms_length", "an element crosses the end of its compact array")
        return Data(Type.COMPACT_ARRAY, tuple(items), description)

    def _description(self, depth: int) -> TypeDescription:
        self._values_left -= 1
        if self._values_left < 0 or depth > DEPTH_MAX:
            raise self.error("dlms_too_large", "more values or deeper nesting than allowed")
        kind = self._type()
        if kind is Type.ARRAY:
            count = self.integer(2)
            return TypeDescription(kind, (self._description(depth + 1),), count)
        if kind is Type.STRUCTURE:
            count = self.length()
            if count > self.remaining:
                raise self.error("dlms_truncated", "the type description is cut off")
            return TypeDescription(kind, tuple(self._description(depth + 1) for _ in range(count)))
        if kind is Type.COMPACT_ARRAY:
            raise self.error("dlms_data_type", "a compact array within a compact array")
        return TypeDescription(kind)

    def _packed(self, description: TypeDescription, depth: int) -> Data:
        if description.type is Type.ARRAY:
            parts = description.parts * description.count
        elif description.type is Type.STRUCTURE:
            parts = description.parts
        else:
            return self._content(description.type, depth)
        self._values_left -= 1
        if self._values_left < 0:
            raise self.error("dlms_too_large", "more values than allowed")
        return Data(description.type, tuple(self._packed(part, depth + 1) for part in parts))


def decode_data(data: bytes) -> Data:
    """Exactly one value with its tag.  Raises RemoteProtocolError for anything else."""
    reader = Reader(data)
    value = reader.data()
    reader.end()
    return value


def structure(*items: Data) -> Data:
    """Shorthand for a structure."""
    return Data(Type.STRUCTURE, items)


def octets(value: bytes) -> Data:
    """Shorthand for an octet-string."""
    return Data(Type.OCTET_STRING, value)
