"""
Meters that describe themselves: SunSpec's models (SunSpec Device Information Model Specification 1.1).

The map begins with "SunS" at one of three addresses; behind it models follow each other, each with its number and
length, until FFFF.  Model 1 names the device, 201 to 204 are meters with integers and scale factors, 211 to 214 with
floats.  A value that is not implemented says so by a pattern of its own.  Powers keep their name and no code: which
direction is positive the makers do not agree upon.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from node.lmn.modbus.client import REGISTER_COUNT_MAX, ModbusClient
from node.lmn.tables import exact
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading
from protocol.metering.units import unit_code

BASES: Final = (40_000, 50_000, 0)
_MARK: Final = [0x5375, 0x6E53]
_END: Final = 0xFFFF
_COMMON, _INTEGER_METERS, _FLOAT_METERS = 1, range(201, 205), range(211, 215)
_MODEL_COUNT_MAX: Final = 64
_NOT_IMPLEMENTED: Final = {-0x8000}
_SERIAL_NUMBER: Final = slice(48, 64)  # model 1: maker, model, options, version, serial number


@dataclass(frozen=True, slots=True)
class Point:
    """A value of a meter model: its place with integers, with floats, the place of its scale factor, what it is."""

    integer_at: int
    float_at: int
    scale_at: int
    name: str
    obis: Obis | None
    unit: str
    size: int = 1


def _obis(text: str) -> Obis:
    return Obis.parse(text)


POINTS: Final = (
    *(Point(1 + n, 2 + 2 * n, 4, f"current L{n + 1}", _obis(f"1-0:{31 + 20 * n}.7.0"), "A") for n in range(3)),
    *(Point(6 + n, 10 + 2 * n, 13, f"voltage L{n + 1}", _obis(f"1-0:{32 + 20 * n}.7.0"), "V") for n in range(3)),
    Point(14, 24, 15, "frequency", _obis("1-0:14.7.0"), "Hz"),
    Point(16, 26, 20, "power", None, "W"),
    *(Point(17 + n, 28 + 2 * n, 20, f"power L{n + 1}", None, "W") for n in range(3)),
    Point(36, 58, 52, "energy exported", _obis("1-0:2.8.0"), "Wh", 2),
    Point(44, 66, 52, "energy imported", _obis("1-0:1.8.0"), "Wh", 2),
)


async def read_sunspec(client: ModbusClient, template: Reading) -> list[Reading]:
    """
    The readings of all meter models of a device; `template` has the device's name where it has none itself.

    Raises RemoteProtocolError as the client does, `sunspec_missing` where no map begins, `sunspec_model` for one that
    has no end or no meter.
    """
    readings: list[Reading] = []
    address = await _begin(client) + len(_MARK)
    for _ in range(_MODEL_COUNT_MAX):
        model, length = await client.read("holding", address, 2)
        if model == _END:
            break
        if model == _COMMON and length >= _SERIAL_NUMBER.stop:
            number = _text((await _block(client, address + 2, length))[_SERIAL_NUMBER])
            template = replace(template, device=number or template.device)
        elif model in _INTEGER_METERS or model in _FLOAT_METERS:
            words = await _block(client, address + 2, length)
            readings += _meter(words, template, is_float=model in _FLOAT_METERS)
        address += 2 + length
    else:
        raise RemoteProtocolError("sunspec_model", f"no end within {_MODEL_COUNT_MAX} models")
    if not readings:
        raise RemoteProtocolError("sunspec_model", "none of the device's models is a meter")
    return readings


async def _begin(client: ModbusClient) -> int:
    for base in BASES:
        try:
            if await client.read("holding", base, len(_MARK)) == _MARK:
                return base
        except RemoteProtocolError as error:
            if error.reason != "modbus_exception":
                raise
    raise RemoteProtocolError("sunspec_missing", f"no SunSpec map at {', '.join(map(str, BASES))}: name its map=")


async def _block(client: ModbusClient, address: int, length: int) -> list[int]:
    words: list[int] = []
    while len(words) < length:
        words += await client.read("holding", address + len(words), min(REGISTER_COUNT_MAX, length - len(words)))
    return words


def _meter(words: list[int], template: Reading, *, is_float: bool) -> Iterator[Reading]:
    for point in POINTS:
        at = point.float_at if is_float else point.integer_at
        if at + 2 > len(words) or (not is_float and point.scale_at >= len(words)):
            continue
        value: int | None
        if is_float:
            (number,) = struct.unpack(">f", words[at].to_bytes(2, "big") + words[at + 1].to_bytes(2, "big"))
            value, scaler = exact(number)
        else:
            value, scaler = _integer(words, at, point.size), _signed(words[point.scale_at])
            if scaler in _NOT_IMPLEMENTED or not -10 <= scaler <= 10:
                continue
        if value is None:
            continue
        yield replace(
            template,
            obis=point.obis,
            value=value,
            scaler=scaler,
            unit=unit_code(point.unit),
            record={"name": point.name},
        )


def _integer(words: list[int], at: int, size: int) -> int | None:
    if size == 2:
        number = words[at] << 16 | words[at + 1]
        return number or None  # an accumulator of 0 is not implemented
    number = _signed(words[at])
    return None if number in _NOT_IMPLEMENTED else number


def _signed(word: int) -> int:
    return word - 0x10000 if word & 0x8000 else word


def _text(words: list[int]) -> str:
    return b"".join(word.to_bytes(2, "big") for word in words).rstrip(b"\0 ").decode("ascii", "replace")
