"""
Data records of the application layer (EN 13757-3 clause 6): octets to records and back.

A record is a header (data information block, value information block) and a value.  The same few headers come
again and again, so what they mean is remembered by their octets.  Wireless compact frames leave the headers out
altogether: reading a header and reading a value are two steps here, so that both kinds share them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from node.lmn.mbus.values import DATA_SIZES, VARIABLE, Decoded, decode_value, variable_size
from node.lmn.mbus.vif import TEXT_SIZE_MAX, VIFE_COUNT_MAX, ValueInformation, value_information
from protocol.errors import RemoteProtocolError

DIFE_COUNT_MAX: Final = 10
IDLE_FILLER: Final = 0x2F
MANUFACTURER_DATA: Final = 0x0F
MORE_RECORDS_FOLLOW: Final = 0x1F
NO_DATA: Final = 0x0  # data field
FUNCTIONS: Final = ("instantaneous", "maximum", "minimum", "error")


@dataclass(frozen=True, slots=True)
class DataInformation:
    """A decoded DIB: data field (low nibble of the DIF), function 0..3, storage, tariff and subunit number."""

    field: int
    function: int
    storage: int
    tariff: int
    subunit: int


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """
    A record's header and its octets on the wire.

    Headers are remembered by their octets, so they compare by identity: hashing all fields cost a tenth of a telegram.
    """

    octets: bytes
    data: DataInformation
    value: ValueInformation
    vib: bytes


class Record(NamedTuple):
    """A header, the value's octets on the wire and what they mean."""

    header: Header
    octets: bytes
    decoded: Decoded


@dataclass(frozen=True, slots=True)
class ManufacturerData:
    """
    What follows a DIF 0F or 1F to the end, in wire order; `more_records_follow` asks for another telegram.

    `is_tail` marks one or two octets after the last record that are none (see `parse_records`).
    """

    octets: bytes
    more_records_follow: bool = False
    is_tail: bool = False


Item = Record | ManufacturerData


@lru_cache(maxsize=1024)
def data_information(dib: bytes) -> DataInformation:
    """What a complete DIB means (EN 13757-3 clause 6.3)."""
    dif = dib[0]
    storage, tariff, subunit = dif >> 6 & 1, 0, 0
    for index, dife in enumerate(dib[1:]):
        storage |= (dife & 0x0F) << 1 + 4 * index
        tariff |= (dife >> 4 & 3) << 2 * index
        subunit |= (dife >> 6 & 1) << index
    return DataInformation(dif & 0x0F, dif >> 4 & 3, storage, tariff, subunit)


@lru_cache(maxsize=4096)
def _header(octets: bytes, dib_size: int) -> Header:
    vib = octets[dib_size:]
    return Header(octets, data_information(octets[:dib_size]), value_information(vib), vib)


def take_header(data: bytes, position: int) -> tuple[Header, int]:
    """
    The header at `position` and where it ends.

    Raises RemoteProtocolError where it is cut off or longer than the standard allows.
    """
    start = position
    try:
        position = _chain_end(data, position, DIFE_COUNT_MAX, "too_many_dife")
        dib_size = position - start
        vif = data[position]
        if vif & 0x7F == 0x7C:
            text_size = data[position + 1]
            if text_size > TEXT_SIZE_MAX:
                raise RemoteProtocolError("unit_text_too_long", f"{text_size} characters", offset=position)
            position += 1 + text_size
            if vif & 0x80:
                position = _chain_end(data, position + 1, VIFE_COUNT_MAX, "too_many_vife")
            else:
                position += 1
        else:
            position = _chain_end(data, position, VIFE_COUNT_MAX, "too_many_vife")
    except IndexError:
        raise RemoteProtocolError("record_truncated", "the telegram ends inside a header", offset=start) from None
    if position > len(data):
        raise RemoteProtocolError("record_truncated", "the telegram ends inside a header", offset=start)
    return _header(data[start:position], dib_size), position


def _chain_end(data: bytes, position: int, count_max: int, reason: str) -> int:
    limit = position + count_max
    while data[position] & 0x80:
        position += 1
        if position > limit:
            raise RemoteProtocolError(reason, f"more than {count_max} extensions", offset=position)
    return position + 1


def take_value(header: Header, data: bytes, position: int) -> tuple[Record, int]:
    """The value of `header` at `position` and where it ends.  Raises RemoteProtocolError where it is cut off."""
    size = DATA_SIZES[header.data.field]
    if header.data.field == VARIABLE:
        if position >= len(data):
            raise RemoteProtocolError("record_truncated", "no length byte", offset=position)
        follows = variable_size(data[position])
        if follows is None:
            raise RemoteProtocolError("reserved_length", "a reserved LVAR code", offset=position)
        size = 1 + follows
    elif size < 0:
        raise RemoteProtocolError("reserved_data_field", "a special function with a value", offset=position)
    end = position + size
    if end > len(data):
        raise RemoteProtocolError("record_truncated", "the telegram ends inside a value", offset=position)
    octets = data[position:end]
    return Record(header, octets, decode_value(header.data.field, header.value.kind, octets)), end


def parse_records(data: bytes, *, tail_size_max: int = 0) -> Iterator[Item]:
    """
    The records of a full telegram's user data, in order.

    Some radio receivers leave a check sum at the end; `tail_size_max` octets that are no record are then given as
    they are.  Raises RemoteProtocolError with the offset in `data` at anything else that is no record.
    """
    position = 0
    limit = len(data) - tail_size_max
    while position < len(data):
        dif = data[position]
        if dif == IDLE_FILLER:
            position += 1
        elif dif in (MANUFACTURER_DATA, MORE_RECORDS_FOLLOW):
            yield ManufacturerData(data[position + 1 :], dif == MORE_RECORDS_FOLLOW)
            return
        else:
            try:
                record, end = _take_record(data, position)
            except RemoteProtocolError:
                if position < limit:
                    raise
                yield ManufacturerData(data[position:], is_tail=True)
                return
            position = end
            yield record


def is_makers_format(items: Sequence[Item]) -> bool:
    """
    Whether what was read as records is a format of the maker's own: most of them then have the data field "no data".

    EN 13757-3 table 4 knows that field for requests; in what a meter sends, the zeros of another format look like it.
    """
    records = [item for item in items if isinstance(item, Record)]
    return 2 * sum(record.header.data.field == NO_DATA for record in records) > len(records)


def _take_record(data: bytes, position: int) -> tuple[Record, int]:
    if data[position] & 0x0F == 0x0F:
        raise RemoteProtocolError("reserved_dif", f"DIF {data[position]:02x}", offset=position)
    header, value_position = take_header(data, position)
    return take_value(header, data, value_position)


def parse_with_layout(layout: Sequence[bytes], data: bytes) -> Iterator[Item]:
    """
    The records of a compact frame (EN 13757-3 annex G): the headers from `layout`, only the values from `data`.

    Raises RemoteProtocolError where the two do not fit together to the last byte.
    """
    position = 0
    for octets in layout:
        if octets[0] in (MANUFACTURER_DATA, MORE_RECORDS_FOLLOW):
            yield ManufacturerData(data[position:], octets[0] == MORE_RECORDS_FOLLOW)
            return
        header, _ = take_header(octets, 0)
        record, position = take_value(header, data, position)
        yield record
    if position != len(data) and any(byte != IDLE_FILLER for byte in data[position:]):
        raise RemoteProtocolError("compact_frame_size", "values left over after the last header", offset=position)


def layout_of(data: bytes) -> tuple[bytes, ...]:
    """The headers of a full telegram's user data, for compact frames to come.  Raises as `parse_records`."""
    return tuple(
        item.header.octets if isinstance(item, Record) else bytes([0x1F if item.more_records_follow else 0x0F])
        for item in parse_records(data)
    )


def encode_record(
    vib: bytes,
    octets: bytes,
    field: int,
    *,
    function: int = 0,
    storage: int = 0,
    tariff: int = 0,
    subunit: int = 0,
) -> bytes:
    """
    One record: the shortest DIB for the numbers given, then `vib` and the value's octets.

    Raises ValueError for numbers that a DIB cannot hold or octets that are not what `field` says.
    """
    size = DATA_SIZES[field]
    if field == VARIABLE:
        if not octets or variable_size(octets[0]) != len(octets) - 1:
            raise ValueError("the length byte does not fit the octets")
    elif size != len(octets):
        raise ValueError(f"data field {field} has {size} octets, not {len(octets)}")
    if not 0 <= function <= 3 or min(storage, tariff, subunit) < 0:
        raise ValueError("function, storage, tariff or subunit out of range")
    dib = bytearray([field | function << 4 | (storage & 1) << 6])
    storage >>= 1
    while storage or tariff or subunit:
        dib[-1] |= 0x80
        dib.append(storage & 0x0F | (tariff & 3) << 4 | (subunit & 1) << 6)
        storage, tariff, subunit = storage >> 4, tariff >> 2, subunit >> 1
    if len(dib) > 1 + DIFE_COUNT_MAX:
        raise ValueError("storage, tariff or subunit number too large")
    return bytes(dib) + vib + octets
