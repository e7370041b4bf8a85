"""
A gateway's registers as the aggregate schema wants them: one integer a slot, summed over its meters.

Every meter must have spoken in an interval before the interval counts.  A register that a meter does not have (feed-in
of a household without a plant) counts as 0; one that vanishes later shows as a register that fell, and stops the
contribution rather than bending the sum.  Meters that tell power by direction (P1, M-Bus) have no register of the
difference: it is made here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from node.aggregation.contribution import Registers
from protocol.dcnet.schema import Kind, Schema
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading
from protocol.metering.units import unit_code

_NET_POWER, _POWER_IN, _POWER_OUT = (Obis(1, 0, c, 7, 0, 255) for c in (16, 1, 2))
_USABLE = (Quality.VALID, Quality.UNVERIFIED)


class RegisterSet:
    """Collects readings until all meters have spoken; `devices` are the gateway's meters."""

    def __init__(self, schema: Schema, devices: Sequence[str]) -> None:
        self.schema = schema
        self._devices = frozenset(devices)
        self._slots = [
            (Obis.parse(slot.obis), unit_code(slot.unit), slot.scaler) for slot in schema.slots if slot.obis is not None
        ]
        self._main = next(Obis.parse(slot.obis) for slot in schema.slots if slot.kind is Kind.ENERGY and slot.obis)
        self._heard: dict[str, list[int]] = {}

    def take(self, readings: Sequence[Reading]) -> None:
        """Readings of one readout or telegram."""
        by_device: dict[str, dict[Obis, Reading]] = {}
        for reading in readings:
            if reading.obis is not None and isinstance(reading.value, int) and reading.quality in _USABLE:
                by_device.setdefault(reading.device, {})[reading.obis] = reading
        for device, known in by_device.items():
            if device in self._devices and self._main in known:
                self._heard[device] = [self._slot(known, *slot) for slot in self._slots]

    def _slot(self, known: Mapping[Obis, Reading], obis: Obis, unit: int, scaler: int) -> int:
        if obis == _NET_POWER and obis not in known:
            received, given = (self._value(known.get(each), unit, scaler) for each in (_POWER_IN, _POWER_OUT))
            return received - given
        return self._value(known.get(obis), unit, scaler)

    def _value(self, reading: Reading | None, unit: int, scaler: int) -> int:
        return reading.at_scaler(scaler) if reading is not None and reading.unit == unit else 0

    def complete(self, interval_s: int) -> Registers | None:
        """The registers, once all meters have been heard since the last time this returned some."""
        if len(self._heard) < len(self._devices):
            return None
        sums = tuple(sum(column) for column in zip(*self._heard.values(), strict=True))
        self._heard.clear()
        return Registers(interval_s, (1, *sums))
