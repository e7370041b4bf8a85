"""
A gateway's registers as the aggregate schema wants them: one integer a slot, summed over its meters.

Every meter must have spoken in an interval before the interval counts.  A register that a meter does not have (feed-in
of a household without a plant) counts as 0; one that vanishes later shows as a register that fell, and stops the
contribution rather than bending the sum.  Meters that tell power by direction (P1, M-Bus) have no register of the
difference: it is made here.

A gateway's account can be billed from, so only readings that may be billed count: those of impulse inputs, of telegrams
without a check sum and of meters that doubt themselves do not, nor do the past values that a load profile repeats under
a register's code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from node.aggregation.contribution import Registers
from node.lmn.s0 import is_billable
from node.lmn.timestamps import is_past
from protocol.dcnet.setup.schema import Kind, Schema
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading
from protocol.metering.units import unit_code

_NET_POWER, _POWER_IN, _POWER_OUT = (Obis(1, 0, c, 7, 0, 255) for c in (16, 1, 2))


class RegisterSet:
    """Collects readings until all meters have spoken; `devices` are the gateway's meters."""

    def __init__(self, schema: Schema, devices: Sequence[str]) -> None:
        self.schema = schema
        self._devices = frozenset(devices)
        self._slots = [
            (Obis.parse(slot.obis), unit_code(slot.unit), slot.scaler) for slot in schema.slots if slot.obis is not None
        ]
        self._main = next(Obis.parse(slot.obis) for slot in schema.slots if slot.kind is Kind.ENERGY and slot.obis)
        # A bad energy is not the same as none: taken for 0 it would become the zero of the gateway's account.
        self._energies = {
            Obis.parse(slot.obis): unit_code(slot.unit)
            for slot in schema.slots
            if slot.kind is Kind.ENERGY and slot.obis
        }
        self._heard: dict[str, list[int]] = {}
        self._interval_s = -1

    def take(self, interval_s: int, readings: Sequence[Reading]) -> Registers | None:
        """Readings of one readout or telegram in an interval; the registers, once all meters were heard in it."""
        if interval_s != self._interval_s:
            self._heard.clear()
            self._interval_s = interval_s
        by_device: dict[str, dict[Obis, Reading]] = {}
        spoilt: set[str] = set()
        for reading in readings:
            if reading.obis is None or reading.device not in self._devices or is_past(reading):
                continue
            if isinstance(reading.value, int) and is_billable(reading):
                by_device.setdefault(reading.device, {})[reading.obis] = reading
            elif reading.obis in self._energies:
                spoilt.add(reading.device)
        for device, known in by_device.items():
            if self._main in known and device not in spoilt and self._have_units(known):
                self._heard[device] = [self._slot(known, *slot) for slot in self._slots]
        if len(self._heard) < len(self._devices):
            return None
        sums = tuple(sum(column) for column in zip(*self._heard.values(), strict=True))
        self._heard.clear()
        return Registers(interval_s, (1, *sums))

    def _have_units(self, known: Mapping[Obis, Reading]) -> bool:
        return all(known[obis].unit == unit for obis, unit in self._energies.items() if obis in known)

    def _slot(self, known: Mapping[Obis, Reading], obis: Obis, unit: int, scaler: int) -> int:
        if obis == _NET_POWER and obis not in known:
            received, given = (self._value(known.get(each), unit, scaler) for each in (_POWER_IN, _POWER_OUT))
            return received - given
        return self._value(known.get(obis), unit, scaler)

    def _value(self, reading: Reading | None, unit: int, scaler: int) -> int:
        return reading.at_scaler(scaler) if reading is not None and reading.unit == unit else 0
