"""
A gateway's registers as the aggregate schema wants them: one integer a slot, summed over its meters.

Every meter must have spoken for a registration time before the registers are complete.  A register that a meter does
not have (feed-in of a household without a plant) counts as 0; one that vanishes later shows as a register that fell,
and stops the contribution rather than bending the sum.  Meters that tell power by direction (P1, M-Bus) have no
register of the difference: it is made here.

A gateway's account can be billed from, so only readings that may be billed count: those of impulse inputs, of telegrams
without a check sum and of meters that doubt themselves do not.  Nor do readings that the log has for no registration
time: those of uncertain time, and past values that a load profile repeats under a register's code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from node.metering.entries import Entry, LoggedReading
from protocol.dcnet.setup.schema import Kind, Schema
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, mantissa_at
from protocol.metering.units import unit_code

_NET_POWER, _POWER_IN, _POWER_OUT = (Obis(1, 0, c, 7, 0, 255) for c in (16, 1, 2))
_OPEN_MAX = 2  # registration times that meters may still be heard for: the present one, and one a meter is early for


@dataclass(frozen=True, slots=True)
class Registers:
    """
    The gateway's slots at one registration time: integers at the schema's scalers, slot 0 being 1.

    With everything up to `position` of the metering log no other registers can become complete.
    """

    interval_s: int
    values: tuple[int, ...]
    position: int = field(default=0, compare=False)


@dataclass(slots=True)
class _Open:
    """A registration time that not all meters were heard for."""

    first_position: int
    heard: dict[str, list[int]] = field(default_factory=dict)


class _Slots:
    """Which registers a schema is about; the same object for all gateways of a process."""

    def __init__(self, schema: Schema) -> None:
        self.all = [
            (Obis.parse(slot.obis), unit_code(slot.unit), slot.scaler) for slot in schema.slots if slot.obis is not None
        ]
        self.main = next(Obis.parse(slot.obis) for slot in schema.slots if slot.kind is Kind.ENERGY and slot.obis)
        # A bad energy is not the same as none: taken for 0 it would become the zero of the gateway's account.
        self.energies = {
            Obis.parse(slot.obis): unit_code(slot.unit)
            for slot in schema.slots
            if slot.kind is Kind.ENERGY and slot.obis
        }


_slots_of = lru_cache(maxsize=4)(_Slots)


class RegisterSet:
    """
    Collects logged readings until all meters were heard; `devices` are the gateway's meters.

    Raises ValueError, KeyError or StopIteration for a schema of registers that no meter has.
    """

    __slots__ = ("_complete_s", "_devices", "_open", "_slots")

    def __init__(self, schema: Schema, devices: Sequence[str]) -> None:
        self._devices = frozenset(devices)
        self._slots = _slots_of(schema)
        self._open: dict[int, _Open] = {}
        self._complete_s = -1  # the newest registration time that was complete

    def take(self, entry: Entry) -> list[Registers]:
        """What one telegram said; the registers of each registration time for which all meters have now been heard."""
        by_time: dict[int, dict[Obis, LoggedReading]] = {}
        meter = entry.readings[0].meter
        if meter not in self._devices:
            return []
        for each in entry.readings:
            # A bad energy spoils the telegram; what else is bad is as if it were not there.
            usable = each.quality is Quality.VALID or each.obis in self._slots.energies
            if each.registration_s is not None and each.registration_s >= self._complete_s and usable:
                by_time.setdefault(each.registration_s, {})[each.obis] = each
        complete = []
        for interval_s, known in sorted(by_time.items()):
            if self._slots.main in known and self._are_billable(known) and self._has_room(interval_s):
                place = self._open.setdefault(interval_s, _Open(entry.position))
                place.heard[meter] = [self._slot(known, *slot) for slot in self._slots.all]
                if len(place.heard) == len(self._devices):
                    self._complete_s = interval_s
                    self._open = {each: still for each, still in self._open.items() if each > interval_s}
                    sums = tuple(sum(column) for column in zip(*place.heard.values(), strict=True))
                    complete.append((interval_s, (1, *sums)))
        position = min([entry.position, *(each.first_position - 1 for each in self._open.values())])
        return [Registers(interval_s, values, position) for interval_s, values in complete]

    def _has_room(self, interval_s: int) -> bool:
        """Whether it is one of the newest registration times, for which older ones are given up."""
        newest = sorted({*self._open, interval_s})[-_OPEN_MAX:]
        self._open = {each: still for each, still in self._open.items() if each in newest}
        return interval_s in newest

    def _are_billable(self, known: Mapping[Obis, LoggedReading]) -> bool:
        return all(
            known[obis].unit == unit and known[obis].value is not None and known[obis].quality is Quality.VALID
            for obis, unit in self._slots.energies.items()
            if obis in known
        )

    def _slot(self, known: Mapping[Obis, LoggedReading], obis: Obis, unit: int, scaler: int) -> int:
        if obis == _NET_POWER and obis not in known:
            received, given = (self._value(known.get(each), unit, scaler) for each in (_POWER_IN, _POWER_OUT))
            return received - given
        return self._value(known.get(obis), unit, scaler)

    def _value(self, reading: LoggedReading | None, unit: int, scaler: int) -> int:
        if reading is None or reading.value is None or reading.unit != unit:
            return 0
        return mantissa_at(reading.value, reading.scaler, scaler)
