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

from collections.abc import Collection, Mapping, Sequence
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

    With everything up to `position` of the metering log no other registers can become complete.  `selection` says which
    of which meters they are (`ContributionRule`'s digest, empty where all are meant).
    """

    interval_s: int
    values: tuple[int, ...]
    position: int = field(default=0, compare=False)
    selection: bytes = field(default=b"", compare=False)


@dataclass(slots=True)
class _Open:
    """A registration time that not all meters were heard for."""

    first_position: int
    heard: dict[str, list[int]] = field(default_factory=dict)


class _Slots:
    """
    Which registers a schema is about; the same object for all gateways of a process.

    Registers are numbered, since looking up numbers costs a fraction of looking up OBIS codes: `number` has all that
    matter, the two directions of power among them.
    """

    def __init__(self, schema: Schema) -> None:
        slots = [(slot, Obis.parse(slot.obis), unit_code(slot.unit)) for slot in schema.slots if slot.obis is not None]
        self.codes = [obis for _, obis, _ in slots]
        codes = dict.fromkeys([*self.codes, _POWER_IN, _POWER_OUT])
        self.number = {obis: number for number, obis in enumerate(codes)}
        self.all = [(self.number[obis], unit, slot.scaler) for slot, obis, unit in slots]
        # A bad energy is not the same as none: taken for 0 it would become the zero of the gateway's account.
        self.energies = {self.number[obis]: unit for slot, obis, unit in slots if slot.kind is Kind.ENERGY}
        self.main = next(iter(self.energies))
        self.net_power = self.number.get(_NET_POWER)
        self.power_in, self.power_out = self.number[_POWER_IN], self.number[_POWER_OUT]


_slots_of = lru_cache(maxsize=4)(_Slots)


class RegisterSet:
    """
    Collects logged readings until all meters were heard; `devices` are the gateway's meters.

    `selected` are the registers that count, by meter and code, all others being 0; None: all do.  `selection` is their
    digest.

    Raises ValueError, KeyError or StopIteration for a schema of registers that no meter has.
    """

    __slots__ = ("_complete_s", "_devices", "_left_out", "_open", "_selection", "_slots")

    def __init__(
        self, schema: Schema, devices: Sequence[str], selected: Collection[tuple[str, Obis]] | None = None,
        selection: bytes = b"",
    ) -> None:  # fmt: skip
        self._devices = frozenset(devices)
        self._selection = selection
        self._slots = _slots_of(schema)
        self._left_out = frozenset(
            (device, self._slots.number[obis])
            for device in devices
            for obis in self._slots.codes
            if selected is not None and (device, obis) not in selected
        )
        self._open: dict[int, _Open] = {}
        self._complete_s = -1  # the newest registration time that was complete

    def take(self, entry: Entry) -> list[Registers]:
        """What one telegram said; the registers of each registration time for which all meters have now been heard."""
        by_time: dict[int, dict[int, LoggedReading]] = {}
        meter, slots = entry.readings[0].meter, self._slots
        if meter not in self._devices:
            return []
        for each in entry.readings:
            number = slots.number.get(each.obis)
            if number is None or each.registration_s is None or each.registration_s < self._complete_s:
                continue
            # A bad energy spoils the telegram; what else is bad is as if it were not there.
            if each.quality is Quality.VALID or number in slots.energies:
                by_time.setdefault(each.registration_s, {})[number] = each
        complete = []
        for interval_s, known in sorted(by_time.items()):
            if slots.main in known and self._are_billable(known) and self._has_room(interval_s):
                place = self._open.setdefault(interval_s, _Open(entry.position))
                place.heard[meter] = [
                    0 if (meter, slot[0]) in self._left_out else self._slot(known, *slot) for slot in slots.all
                ]
                if len(place.heard) == len(self._devices):
                    self._complete_s = interval_s
                    self._open = {each: still for each, still in self._open.items() if each > interval_s}
                    sums = map(sum, zip(*place.heard.values(), strict=True))
                    complete.append((interval_s, (1, *sums)))
        position = min([entry.position, *(each.first_position - 1 for each in self._open.values())])
        return [Registers(interval_s, values, position, self._selection) for interval_s, values in complete]

    def _has_room(self, interval_s: int) -> bool:
        """Whether it is one of the newest registration times, for which older ones are given up."""
        if not self._open:
            return True
        newest = sorted({*self._open, interval_s})[-_OPEN_MAX:]
        self._open = {each: still for each, still in self._open.items() if each in newest}
        return interval_s in newest

    def _are_billable(self, known: Mapping[int, LoggedReading]) -> bool:
        for number, unit in self._slots.energies.items():
            reading = known.get(number)
            if reading is not None and (
                reading.unit != unit or reading.value is None or reading.quality is not Quality.VALID
            ):
                return False
        return True

    def _slot(self, known: Mapping[int, LoggedReading], number: int, unit: int, scaler: int) -> int:
        reading = known.get(number)
        if reading is None and number == self._slots.net_power:
            received, given = self._slots.power_in, self._slots.power_out
            return _value(known.get(received), unit, scaler) - _value(known.get(given), unit, scaler)
        return _value(reading, unit, scaler)


def _value(reading: LoggedReading | None, unit: int, scaler: int) -> int:
    if reading is None or reading.value is None or reading.unit != unit:
        return 0
    return reading.value if reading.scaler == scaler else mantissa_at(reading.value, reading.scaler, scaler)
