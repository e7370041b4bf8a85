"""Modbus meters as the runtime wants them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import trio

from node.lmn.links import parse_link
from node.lmn.modbus.client import REGISTER_COUNT_MAX, Framing, ModbusClient
from node.lmn.modbus.register_map import Register, RegisterMap, find_map
from node.lmn.modbus.sunspec import read_sunspec
from node.lmn.profiles import MeterProfile
from node.lmn.session import Batch, Clock, Driver, LmnStores, datetimes
from protocol.errors import LocalProtocolError
from protocol.metering.reading import Quality, Reading

_RESPONSE_TIMEOUT_S: Final = 1.0
_GAP_MAX: Final = 16  # registers between two wanted ones that are rather read than asked around
_ADDRESS: Final = re.compile(r"(?:(?P<framing>rtu|tcp):)?(?P<unit>\d{1,3})")
_SUNSPEC: Final = "sunspec"


@dataclass(frozen=True, slots=True)
class _Meter:
    unit: int
    framing: Framing
    response_timeout_s: float
    registers: RegisterMap | None  # None: it describes itself


class ModbusPoll:
    """The meters of a line, or behind a gateway."""

    def __init__(self, profiles: Sequence[MeterProfile], _stores: LmnStores) -> None:
        self._meters = {profile.device: _meter(profile) for profile in profiles}

    async def ask(self, stream: trio.abc.Stream, profile: MeterProfile, clock: Clock) -> Batch:
        """As `PollSession.ask`; nothing of it may be billed."""
        meter = self._meters[profile.device]
        client = ModbusClient(stream, meter.unit, meter.framing, meter.response_timeout_s)
        now = datetimes(clock)
        template = Reading(profile.name_on_bus, None, None, received_at=now(), quality=Quality.NOT_FOR_BILLING)
        if meter.registers is None:
            return await read_sunspec(client, template)
        return await _read_map(client, meter.registers, template)


def _meter(profile: MeterProfile) -> _Meter:
    match = _ADDRESS.fullmatch(profile.address or "1")
    if match is None or not 1 <= int(match["unit"]) <= 247:
        raise LocalProtocolError("a Modbus address is [rtu:|tcp:]UNIT, the unit from 1 to 247")
    link = parse_link(profile.link)
    rtu = match["framing"] == "rtu" or (match["framing"] is None and bool(link.path))
    registers = None if profile.map == _SUNSPEC else find_map(profile.map)
    timeout_s = _RESPONSE_TIMEOUT_S + (link.latency_s or 0.0)
    return _Meter(int(match["unit"]), "rtu" if rtu else "tcp", timeout_s, registers)


async def _read_map(client: ModbusClient, registers: RegisterMap, template: Reading) -> list[Reading]:
    readings: list[Reading] = []
    device = template.device
    for first, count, wanted in _questions(registers):
        words = await client.read(registers.table, first, count)
        for register in wanted:
            at = register.address - first
            value, scaler = register.value(words[at : at + register.count], registers.word_order)
            if register.role == "meter-number" and isinstance(value, str):
                device = value
            record: dict[str, str | int] = {"map": registers.name, "address": register.address}
            if register.name:
                record["name"] = register.name
            quality = Quality.METER_ERROR if value is None and register.type != "text" else template.quality
            readings.append(
                replace(
                    template, obis=register.obis, value=value, scaler=scaler, unit=register.unit, quality=quality,
                    record=record,
                )
            )  # fmt: skip
    return [replace(reading, device=device) for reading in readings]


def _questions(registers: RegisterMap) -> list[tuple[int, int, list[Register]]]:
    """(first, count, registers) of each question, as few as the size of an answer allows."""
    questions: list[tuple[int, int, list[Register]]] = []
    for register in sorted(registers.registers, key=lambda each: each.address):
        end = register.address + register.count
        if questions:
            first, count, wanted = questions[-1]
            if register.address - (first + count) <= _GAP_MAX and end - first <= REGISTER_COUNT_MAX:
                questions[-1] = (first, max(count, end - first), [*wanted, register])
                continue
        questions.append((register.address, register.count, [register]))
    return questions


MODBUS: Final = Driver("modbus", poll=ModbusPoll)
