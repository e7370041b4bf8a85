"""
The binary encoding of SML (DIN VDE 0418-63-9 clause 6): every element is a type-and-length field and its content.

    tl byte:  more | type(3) | length(4)      type 0 octets, 4 boolean, 5 integer, 6 unsigned, 7 list

The length counts the tl bytes themselves, but for a list, where it counts elements.  `more` adds four length bits in
a further tl byte.  0x01 (octets of length nothing) stands for an absent optional value, 0x00 ends a message.

A reader is a function (data, position) -> (value, position after it); a writer one (value) -> bytes.  Readers do not
check that a content ends inside `data`: running over shows as IndexError at the next tl byte, of which a message always
has one more (its end mark), and `node.lmn.sml.messages` turns it into the remote kind of error.

Meters encode integers in any number of bytes, 3-byte signed ones among them, and not always with the sign that the
field's type has; so a field takes any integer that its type can hold, and a scaler sent as unsigned 255 is -1.
Where the type is open (SML_Value), it must survive a round trip, because a meter refuses a parameter of another type:
there integers come as `Number`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from protocol.errors import RemoteProtocolError

Read = Callable[[bytes, int], tuple[Any, int]]
Write = Callable[[Any], bytes]

ABSENT = b"\x01"
_TL_BYTES_MAX = 4
_DEPTH_MAX = 12


class Kind(NamedTuple):
    """How one type of field is read and written."""

    read: Read
    write: Write


class Number(NamedTuple):
    """An integer of an open type: `size` is 1..8 bytes."""

    value: int
    size: int
    signed: bool


class Opaque(NamedTuple):
    """An element that has no meaning here, as its bytes."""

    data: bytes


def unexpected(pos: int, wanted: str) -> RemoteProtocolError:
    """The error for an element of the wrong type at `pos`."""
    return RemoteProtocolError("sml_type", f"expected {wanted}", offset=pos)


def read_tl(data: bytes, pos: int) -> tuple[int, int, int]:
    """(type 0..7, length as written, position of the content)."""
    tl = data[pos]
    length = tl & 0x0F
    at = pos + 1
    while tl & 0x80:
        if at - pos == _TL_BYTES_MAX:
            raise RemoteProtocolError("sml_length", f"more than {_TL_BYTES_MAX} length bytes", offset=pos)
        tl = data[at]
        length = length << 4 | tl & 0x0F
        at += 1
    return data[pos] >> 4 & 7, length, at


def write_tl(kind: int, count: int) -> bytes:
    """The tl field of a list of `count` elements, or of `count` bytes of content."""
    size = 1
    while (count if kind == 7 else count + size) >> 4 * size:
        size += 1
    length = count if kind == 7 else count + size
    field = bytearray(length >> 4 * (size - 1 - i) & 0x0F for i in range(size))
    field[0] |= kind << 4
    for i in range(size - 1):
        field[i] |= 0x80
    return bytes(field)


def read_octets(data: bytes, pos: int) -> tuple[bytes, int]:
    """An octet string; an absent one is empty."""
    tl = data[pos]
    if 0 < tl < 0x10:
        end = pos + tl
        return data[pos + 1 : end], end
    kind, length, at = read_tl(data, pos)
    end = pos + length
    if kind != 0 or end < at:
        raise unexpected(pos, "octets")
    return data[at:end], end


def write_octets(value: bytes) -> bytes:
    """An octet string."""
    return write_tl(0, len(value)) + value


def read_number(data: bytes, pos: int) -> tuple[Number, int]:
    """An integer of any size, with its type."""
    kind, length, at = read_tl(data, pos)
    end = pos + length
    size = end - at
    if kind not in (5, 6) or not 0 < size <= 8:
        raise unexpected(pos, "an integer of 1 to 8 bytes")
    return Number(int.from_bytes(data[at:end], "big", signed=kind == 5), size, kind == 5), end


def write_number(number: Number) -> bytes:
    """An integer with the type that it has."""
    head = write_tl(5 if number.signed else 6, number.size)
    return head + number.value.to_bytes(number.size, "big", signed=number.signed)


def integer(size: int, *, signed: bool) -> Kind:
    """A field of a fixed integer type."""
    low, high = (-1 << 8 * size - 1, (1 << 8 * size - 1) - 1) if signed else (0, (1 << 8 * size) - 1)
    head = write_tl(5 if signed else 6, size)
    base = head[0] - size - 1
    usual = range(base + 2, base + size + 2)  # the field's own type, in as many bytes or fewer: always in range

    def read(data: bytes, pos: int) -> tuple[int, int]:
        tl = data[pos]
        if tl in usual:
            end = pos + tl - base
            return int.from_bytes(data[pos + 1 : end], "big", signed=signed), end
        (value, width, is_signed), end = read_number(data, pos)
        if signed and not is_signed and width == size and value > high:
            value -= 1 << 8 * size
        if not low <= value <= high:
            raise RemoteProtocolError("sml_range", f"an integer outside {low}..{high}", offset=pos)
        return value, end

    def write(value: int) -> bytes:
        return head + value.to_bytes(size, "big", signed=signed)

    return Kind(read, write)


def optional(kind: Kind) -> Kind:
    """A field that may be absent: None.  Octets of length 0 are absent too, in however many bytes that is said."""
    read_present, write_present = kind

    def read(data: bytes, pos: int) -> tuple[Any, int]:
        if data[pos] == 1:
            return None, pos + 1
        value, pos = read_present(data, pos)
        return (None if value == b"" else value), pos

    return Kind(read, lambda value: ABSENT if value is None else write_present(value))


def read_count(data: bytes, pos: int) -> tuple[int, int]:
    """The number of elements of the list at `pos`, and where the first one is."""
    tl = data[pos]
    if 0x70 <= tl < 0x80:
        return tl & 0x0F, pos + 1
    kind, count, at = read_tl(data, pos)
    if kind != 7:
        raise unexpected(pos, "a list")
    return count, at


def expect_count(data: bytes, pos: int, wanted: int, what: str) -> int:
    """The position of the first element of a list that must have `wanted` elements."""
    count, at = read_count(data, pos)
    if count != wanted:
        raise RemoteProtocolError("sml_count", f"{what} has {wanted} elements, this one {count}", offset=pos)
    return at


def list_of(kind: Kind) -> Kind:
    """A list of any number of elements of one kind: a tuple."""
    read_element, write_element = kind

    def read(data: bytes, pos: int) -> tuple[tuple[Any, ...], int]:
        count, pos = read_count(data, pos)
        out = []
        for _ in range(count):
            value, pos = read_element(data, pos)
            out.append(value)
        return tuple(out), pos

    return Kind(read, lambda values: write_tl(7, len(values)) + b"".join(map(write_element, values)))


def sequence(make: Callable[..., Any], *kinds: Kind) -> Kind:
    """A list with one element per field; `make` is the NamedTuple of the values."""
    readers = [kind.read for kind in kinds]
    writers = [kind.write for kind in kinds]
    name = getattr(make, "__name__", "the sequence")
    head = write_tl(7, len(kinds))

    def read(data: bytes, pos: int) -> tuple[Any, int]:
        if data[pos] == head[0] < 0x80:
            pos += 1
        else:
            pos = expect_count(data, pos, len(readers), name)
        values = []
        for reader in readers:
            value, pos = reader(data, pos)
            values.append(value)
        return make(*values), pos

    def write(values: tuple[Any, ...]) -> bytes:
        return head + b"".join(writer(value) for writer, value in zip(writers, values, strict=True))

    return Kind(read, write)


def skip(data: bytes, pos: int, depth: int = 0) -> int:
    """The position after any one element."""
    kind, length, at = read_tl(data, pos)
    if kind != 7:
        if pos + length < at:
            raise unexpected(pos, "an element")
        return pos + length
    if depth == _DEPTH_MAX:
        raise RemoteProtocolError("sml_depth", f"lists nested deeper than {_DEPTH_MAX}", offset=pos)
    for _ in range(length):
        at = skip(data, at, depth + 1)
    return at


def _read_bool(data: bytes, pos: int) -> tuple[bool, int]:
    if data[pos] != 0x42:
        raise unexpected(pos, "a boolean")
    return data[pos + 1] != 0, pos + 2


OCTETS = Kind(read_octets, write_octets)
BOOL = Kind(_read_bool, lambda value: b"\x42\x01" if value else b"\x42\x00")
U8, U16, U32, U64 = (integer(size, signed=False) for size in (1, 2, 4, 8))
I8, I16, I64 = (integer(size, signed=True) for size in (1, 2, 8))
