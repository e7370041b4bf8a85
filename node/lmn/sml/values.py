"""
The compound values of SML 1.04: times, values of open type, list entries, parameter trees
(DIN VDE 0418-63-9 clause 5; TR-03109-1 annex IV b).

`_read_entries` is written out by hand, the usual form of each field first, because the entries of GetList.Res are
nearly all that a meter ever sends; everything else goes through the table-driven readers of `codec`.

Quirks of real meters read here: a time without its tag (Holley DTZ541), a local time without its tag or under another
one (FROETEC Multiflex ZG22).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from node.lmn.sml.codec import (
    BOOL,
    I8,
    I16,
    I64,
    OCTETS,
    U8,
    U32,
    U64,
    Kind,
    Number,
    Opaque,
    expect_count,
    list_of,
    optional,
    read_count,
    read_number,
    read_octets,
    sequence,
    skip,
    unexpected,
    write_number,
    write_octets,
)
from protocol.errors import RemoteProtocolError

SEC_INDEX: Final = 1
TIMESTAMP: Final = 2
LOCAL_TIMESTAMP: Final = 3
_TREE_DEPTH_MAX = 8
_new = tuple.__new__  # a NamedTuple's own constructor takes twice as long; used where a frame has dozens


class Time(NamedTuple):
    """
    SML_Time: `choice` is SEC_INDEX (the meter's seconds of operation), TIMESTAMP (Unix seconds) or LOCAL_TIMESTAMP.

    The offsets are minutes east of UTC; a local timestamp's seconds count from the Unix epoch in UTC.
    """

    choice: int
    seconds: int
    local_offset_min: int = 0
    season_offset_min: int = 0


Value = None | bool | bytes | Number | Time | Opaque


def _read_local(data: bytes, pos: int) -> tuple[Time, int]:
    pos = expect_count(data, pos, 3, "a local time")
    seconds, pos = U32.read(data, pos)
    local, pos = I16.read(data, pos)
    season, pos = I16.read(data, pos)
    return Time(LOCAL_TIMESTAMP, seconds, local, season), pos


def _read_time(data: bytes, pos: int) -> tuple[Time | None, int]:
    if data[pos : pos + 4] == b"\x72\x62\x01\x65":
        return _new(Time, (SEC_INDEX, int.from_bytes(data[pos + 4 : pos + 8], "big"), 0, 0)), pos + 8
    tl = data[pos]
    if tl == 0x72:
        tag, at = U8.read(data, pos + 1)
        if data[at] == 0x73:
            return _read_local(data, at)
        if tag not in (SEC_INDEX, TIMESTAMP):
            raise RemoteProtocolError("sml_time", "a time of an unknown kind", offset=pos)
        seconds, at = U32.read(data, at)
        return Time(tag, seconds), at
    if tl == 1:
        return None, pos + 1
    if tl == 0x73:
        return _read_local(data, pos)
    if 0x62 <= tl <= 0x65:
        seconds, at = U32.read(data, pos)
        return Time(SEC_INDEX, seconds), at
    raise unexpected(pos, "a time")


def _write_time(time: Time | None) -> bytes:
    if time is None:
        return b"\x01"
    head = b"\x72" + U8.write(time.choice)
    if time.choice != LOCAL_TIMESTAMP:
        return head + U32.write(time.seconds)
    return head + b"\x73" + U32.write(time.seconds) + I16.write(time.local_offset_min) + I16.write(
        time.season_offset_min
    )  # fmt: skip


def _read_value(data: bytes, pos: int) -> tuple[Value, int]:
    tl = data[pos]
    if tl == 1:
        return None, pos + 1
    kind = tl >> 4 & 7
    if kind == 0:
        octets, pos = read_octets(data, pos)
        return octets or None, pos
    if kind == 4:
        return BOOL.read(data, pos)
    if kind != 7:
        return read_number(data, pos)
    if data[pos : pos + 4] in (b"\x72\x62\x01\x72", b"\x72\x62\x01\x73"):
        return _read_time(data, pos + 3)
    end = skip(data, pos)
    return Opaque(data[pos:end]), end


def _write_value(value: Value) -> bytes:
    match value:
        case None:
            return b"\x01"
        case Number():
            return write_number(value)
        case Time():
            return b"\x72\x62\x01" + _write_time(value)
        case Opaque():
            return value.data
        case bool():
            return BOOL.write(value)
    return write_octets(value)


TIME = Kind(_read_time, _write_time)
VALUE = Kind(_read_value, _write_value)
_OCTETS = optional(OCTETS)
_U8, _I8, _U64 = optional(U8), optional(I8), optional(U64)
_STATUS = Kind(optional(U64).read, lambda value: b"\x01" if value is None else write_number(unsigned(value)))


def unsigned(value: int) -> Number:
    """The smallest standard unsigned type that holds `value`."""
    return Number(value, next(size for size in (1, 2, 4, 8) if value >> 8 * size == 0), signed=False)


def signed(value: int) -> Number:
    """The smallest standard signed type that holds `value`."""
    return Number(value, next(size for size in (1, 2, 4, 8) if -1 <= value >> 8 * size - 1 <= 0), signed=True)


class ListEntry(NamedTuple):
    """One register of GetList.Res."""

    obj_name: bytes
    status: int | None
    val_time: Time | None
    unit: int | None
    scaler: int | None
    value: Value
    value_signature: bytes | None = None


def _read_entries(data: bytes, pos: int, count: int) -> tuple[list[ListEntry], int]:
    out: list[ListEntry] = []
    status: int | None
    time: Time | None
    unit: int | None
    scaler: int | None
    value: Value
    signature: bytes | None
    for _ in range(count):
        if data[pos] != 0x77:
            raise RemoteProtocolError("sml_count", "a list entry has 7 elements", offset=pos)
        if data[pos + 1] == 7:
            name, pos = data[pos + 2 : pos + 8], pos + 8
        else:
            name, pos = read_octets(data, pos + 1)
        if data[pos] == 1:
            status, pos = None, pos + 1
        else:
            status, pos = U64.read(data, pos)
        if data[pos] == 1:
            time, pos = None, pos + 1
        else:
            time, pos = _read_time(data, pos)
        if data[pos] == 0x62 and data[pos + 2] == 0x52:
            unit, scaler, pos = data[pos + 1], (data[pos + 3] ^ 0x80) - 0x80, pos + 4
        elif data[pos] == data[pos + 1] == 1:
            unit, scaler, pos = None, None, pos + 2
        else:
            unit, pos = _U8.read(data, pos)
            scaler, pos = _I8.read(data, pos)
        tl = data[pos]
        if 0x52 <= tl <= 0x59:
            end = pos + tl - 0x50
            value = _new(Number, (int.from_bytes(data[pos + 1 : end], "big", signed=True), tl - 0x51, True))
            pos = end
        elif 0x62 <= tl <= 0x69:
            end = pos + tl - 0x60
            value = _new(Number, (int.from_bytes(data[pos + 1 : end], "big"), tl - 0x61, False))
            pos = end
        else:
            value, pos = _read_value(data, pos)
        if data[pos] == 1:
            signature, pos = None, pos + 1
        else:
            signature, pos = _OCTETS.read(data, pos)
        out.append(_new(ListEntry, (name, status, time, unit, scaler, value, signature)))
    return out, pos


def _read_entry(data: bytes, pos: int) -> tuple[ListEntry, int]:
    (entry,), pos = _read_entries(data, pos, 1)
    return entry, pos


def _read_entry_list(data: bytes, pos: int) -> tuple[tuple[ListEntry, ...], int]:
    count, pos = read_count(data, pos)
    entries, pos = _read_entries(data, pos, count)
    return tuple(entries), pos


_ENTRY_AS_TABLE = sequence(ListEntry, OCTETS, _STATUS, TIME, _U8, _I8, VALUE, _OCTETS)
ENTRY = Kind(_read_entry, _ENTRY_AS_TABLE.write)
ENTRIES = Kind(_read_entry_list, list_of(ENTRY).write)


class PeriodEntry(NamedTuple):
    """One register of GetProfileList.Res."""

    obj_name: bytes
    unit: int
    scaler: int
    value: Value
    value_signature: bytes | None = None


class TupelEntry(NamedTuple):
    """SML_TupelEntry: the six energies of a meter at one moment, in the groups pA R1 R4 and mA R2 R3."""

    server_id: bytes
    sec_index: Time | None
    status: int
    unit_pa: int
    scaler_pa: int
    value_pa: int
    unit_r1: int
    scaler_r1: int
    value_r1: int
    unit_r4: int
    scaler_r4: int
    value_r4: int
    signature_pa_r1_r4: bytes
    unit_ma: int
    scaler_ma: int
    value_ma: int
    unit_r2: int
    scaler_r2: int
    value_r2: int
    unit_r3: int
    scaler_r3: int
    value_r3: int
    signature_ma_r2_r3: bytes


class Tree(NamedTuple):
    """
    SML_Tree: a named parameter, its value if it has one, its children if it has any.

    A value of a kind unknown here is an `Opaque` that includes its tag.
    """

    name: bytes
    value: Value | PeriodEntry | TupelEntry | ListEntry = None
    children: tuple[Tree, ...] | None = None


_ENERGY = (U8, I8, I64)
PERIOD_ENTRY = sequence(PeriodEntry, OCTETS, U8, I8, VALUE, _OCTETS)
_TUPEL_ENTRY = sequence(TupelEntry, OCTETS, TIME, U64, *_ENERGY * 3, OCTETS, *_ENERGY * 3, OCTETS)
_PARAMETER_KINDS: Final = {1: VALUE, 2: PERIOD_ENTRY, 3: _TUPEL_ENTRY, 4: TIME, 5: ENTRY}


def _read_parameter(data: bytes, pos: int) -> tuple[Any, int]:
    if data[pos] == 1:
        return None, pos + 1
    start = pos
    pos = expect_count(data, pos, 2, "a parameter value")
    tag, pos = U8.read(data, pos)
    kind = _PARAMETER_KINDS.get(tag)
    if kind is None:
        end = skip(data, start)
        return Opaque(data[start:end]), end
    value, end = kind.read(data, pos)
    return (Opaque(data[start:end]) if isinstance(value, Opaque) else value), end


def _write_parameter(value: Any) -> bytes:
    match value:
        case None:
            return b"\x01"
        case PeriodEntry():
            tag = 2
        case TupelEntry():
            tag = 3
        case Time():
            tag = 4
        case ListEntry():
            tag = 5
        case Opaque():
            return value.data
        case _:
            tag = 1
    return b"\x72" + U8.write(tag) + _PARAMETER_KINDS[tag].write(value)


def _read_tree(data: bytes, pos: int, depth: int = 0) -> tuple[Tree, int]:
    if depth == _TREE_DEPTH_MAX:
        raise RemoteProtocolError("sml_depth", f"a tree deeper than {_TREE_DEPTH_MAX}", offset=pos)
    pos = expect_count(data, pos, 3, "a tree")
    name, pos = read_octets(data, pos)
    value, pos = _read_parameter(data, pos)
    if data[pos] == 1:
        return Tree(name, value), pos + 1
    count, pos = read_count(data, pos)
    children = []
    for _ in range(count):
        child, pos = _read_tree(data, pos, depth + 1)
        children.append(child)
    return Tree(name, value, tuple(children)), pos


def _write_tree(tree: Tree) -> bytes:
    children = b"\x01" if tree.children is None else TREES.write(tree.children)
    return b"\x73" + write_octets(tree.name) + _write_parameter(tree.value) + children


TREE = Kind(_read_tree, _write_tree)
TREES = list_of(TREE)
