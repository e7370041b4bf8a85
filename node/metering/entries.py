"""
What the metering log keeps: logged readings, and the octets that they are sealed as.

Two forms.  An *entry* is what one telegram says of one meter, written when it comes.  A *block* is one register over
one day, one value for each registration time, made when the day is over: entries are many and short-lived, blocks are
what a year consists of.  A block has fixed-width fields, so its size says how many values there are and nothing of
how large they are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final, NamedTuple

import msgpack

from protocol.metering.interval import DAY_S, second_of_day, start_of
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality

_QUALITIES: Final = tuple(Quality)
_CODES: Final = {quality: code for code, quality in enumerate(_QUALITIES)}
_RUN: Final = struct.Struct("<bhBQBH")  # scaler, unit or -1, has a status, status, quality and on time, values
_VALUE: Final = struct.Struct("<Iqiqq")  # second of the day, mantissa, deviation, measured, received (ms)


class LoggedReading(NamedTuple):
    """
    One register of one meter at one moment, as the log has it.

    `value` is the mantissa (the quantity is value·10^scaler in `unit`, a DLMS unit code), None where the meter sent no
    usable number.  `measured_ms` and `received_ms` are real time (Unix, ms): the latest moment at which the value can
    have been measured, and the reception of its telegram's first octet.  `registration_s` is the registration time
    that it counts for (Unix, s, metering time) and `deviation_ms` how much later than that it was measured; both None
    where it counts for none: its time is uncertain, or it repeats a past value.
    """

    meter: str
    obis: Obis
    value: int | None
    scaler: int
    unit: int | None
    status: int | None
    measured_ms: int
    received_ms: int
    registration_s: int | None
    deviation_ms: int | None
    on_time: bool
    quality: Quality


class Entry(NamedTuple):
    """What one telegram said of one meter; `position` orders the entries of a gateway, with gaps."""

    position: int
    readings: tuple[LoggedReading, ...]


def encode_entry(readings: Sequence[LoggedReading]) -> bytes:
    """Readings of one meter and one telegram."""
    first = readings[0]
    rows = [
        (
            bytes(obis), value, scaler, unit, status, measured_ms, registration_s, deviation_ms, on_time,
            _CODES[quality],
        )
        for (
            _, obis, value, scaler, unit, status, measured_ms, _, registration_s, deviation_ms, on_time, quality
        ) in readings
    ]  # fmt: skip
    return bytes(msgpack.packb((first.meter, first.received_ms, rows)))


def decode_entry(position: int, data: bytes, only: Obis | None = None) -> Entry:
    """Inverse of `encode_entry`, of the register `only` where that is given; what is read was sealed by ourselves."""
    meter, received_ms, rows = msgpack.unpackb(data)
    wanted = None if only is None else only.to_bytes()
    return Entry(
        position,
        tuple(
            LoggedReading(
                meter, only or Obis.from_bytes(obis), value, scaler, unit, status, measured_ms, received_ms,
                registration_s, deviation_ms, on_time, _QUALITIES[quality],
            )
            for obis, value, scaler, unit, status, measured_ms, registration_s, deviation_ms, on_time, quality in rows
            if wanted is None or obis == wanted
        ),
    )  # fmt: skip


def nearest(readings: Iterable[LoggedReading]) -> list[LoggedReading]:
    """One value for each registration time of one register: the one that was measured nearest to it; in order."""
    best: dict[int, LoggedReading] = {}
    for each in readings:
        if each.registration_s is None or each.deviation_ms is None or each.value is None:
            continue
        known = best.get(each.registration_s)
        if known is None or known.deviation_ms is None or abs(each.deviation_ms) < abs(known.deviation_ms):
            best[each.registration_s] = each
    return [best[registration_s] for registration_s in sorted(best)]


def _alike(reading: LoggedReading) -> tuple[int, int | None, int | None, Quality, bool]:
    return reading.scaler, reading.unit, reading.status, reading.quality, reading.on_time


def encode_block(readings: Sequence[LoggedReading]) -> bytes:
    """The values of one register on one day, as `nearest` gives them."""
    parts = []
    for (scaler, unit, status, quality, on_time), alike in groupby(readings, _alike):
        run = [
            _VALUE.pack(
                second_of_day(each.registration_s or 0), each.value, each.deviation_ms, each.measured_ms,
                each.received_ms,
            )
            for each in alike
        ]  # fmt: skip
        flags = _CODES[quality] << 1 | on_time
        head = _RUN.pack(scaler, -1 if unit is None else unit, status is not None, status or 0, flags, len(run))
        parts += [head, *run]
    return b"".join(parts)


def decode_block(meter: str, obis: Obis, day: int, data: bytes) -> list[LoggedReading]:
    """Inverse of `encode_block`."""
    offset, day_s, found, make = 0, start_of(day, 0, DAY_S), list[LoggedReading](), LoggedReading._make
    while offset < len(data):
        scaler, code, has_status, word, flags, count = _RUN.unpack_from(data, offset)
        begin, offset = offset + _RUN.size, offset + _RUN.size + count * _VALUE.size
        quality, on_time = _QUALITIES[flags >> 1], bool(flags & 1)
        unit, status = None if code < 0 else code, word if has_status else None
        found += [  # the inner loop of every query over months: a third faster than by keywords
            make(
                (
                    meter, obis, value, scaler, unit, status, measured_ms, received_ms, day_s + second, deviation_ms,
                    on_time, quality,
                )
            )
            for second, value, deviation_ms, measured_ms, received_ms in _VALUE.iter_unpack(data[begin:offset])
        ]  # fmt: skip
    return found
