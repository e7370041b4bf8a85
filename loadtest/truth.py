"""
Ground truth: what every opened total must be, slot by slot, from the simulated meters' own registers.

The checker knows what no part of the system knows: every household's register in every quarter hour.  It walks the
coordinator's round ledger in time and keeps, for each gateway, the quarter hour of the last round that opened with it.
Energy is the difference since then (docs/explanation/protocol.md, section 4), so a round that was lost must reappear
in the next one and nothing may appear twice; power is a snapshot; slot 0 counts.  Conservation is checked apart from
the slots, on the sums of a whole run: two faults that cancel in one are seen in the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from loadtest.households import Registers, SimulatedMeter
from protocol.dcnet.setup.schema import WORD_MODULUS, Kind, Schema, Slot, signed

_REGISTERS = {  # where a slot's OBIS code is found among the registers, and at which power of ten
    "1-0:1.8.0*255": ("import_tenth_wh", -1),
    "1-0:2.8.0*255": ("export_tenth_wh", -1),
    "1-0:16.7.0*255": ("power_w", 0),
}


@dataclass(frozen=True, slots=True)
class RoundRow:
    """
    One ended round of one ring in the round ledger.

    `q` is the metering interval's index, `roster` the gateway ids in the sum, `total` its words (signed or mod 2^64);
    both are empty where the round is void.
    """

    epoch: int
    ring: int
    round: int
    q: int
    opened: bool
    roster: tuple[str, ...] = ()
    total: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """A slot of an opened total that is not what it must be."""

    epoch: int
    ring: int
    round: int
    slot: str
    expected: int
    opened: int

    def __str__(self) -> str:
        where = f"epoch {self.epoch}, ring {self.ring}, round {self.round}, slot {self.slot}"
        return f"{where}: opened {self.opened}, must be {self.expected}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the round ledger is worth.  Energies are sums over all opened totals."""

    opened: int
    void: int
    differences: tuple[Difference, ...]
    conservation_error_wh: Decimal
    energy_import_wh: Decimal
    energy_export_wh: Decimal

    @property
    def exact(self) -> bool:
        """Every slot of every opened total is what it must be."""
        return not self.differences


def check(
    schema: Schema,
    meters: Mapping[str, Sequence[SimulatedMeter]],
    rows: Iterable[RoundRow],
    *,
    base_q: int = 0,
) -> Verdict:
    """
    Hold a round ledger against the meters of each gateway.

    `base_q` is the quarter hour whose registers every gateway began from.  A roster with a gateway that has no meters
    here, or a total of another length than the schema, counts as a difference of slot 0.
    """
    last_q: dict[str, int] = {}
    sums = [0] * len(schema.slots)
    opened = void = 0
    differences: list[Difference] = []
    for row in sorted(rows, key=lambda row: (row.q, row.epoch, row.ring)):
        if not row.opened:
            void += 1
            continue
        opened += 1
        if len(row.total) != len(schema.slots) or not meters.keys() >= set(row.roster):
            known = len(meters.keys() & set(row.roster))
            differences.append(
                Difference(
                    row.epoch, row.ring, row.round, schema.slots[0].name, known, row.total[0] if row.total else 0
                )
            )
            continue
        for index, slot in enumerate(schema.slots):
            expected = sum(_contribution(slot, meters[name], row.q, last_q.get(name, base_q)) for name in row.roster)
            found = signed(row.total[index] % WORD_MODULUS)
            sums[index] += found
            if (found - expected) % WORD_MODULUS:
                differences.append(Difference(row.epoch, row.ring, row.round, slot.name, expected, found))
        last_q.update((name, row.q) for name in row.roster)
    error_wh = Decimal(0)
    energies = {"1-0:1.8.0*255": Decimal(0), "1-0:2.8.0*255": Decimal(0)}
    for index, slot in enumerate(schema.slots):
        if slot.kind is Kind.ENERGY:
            flown = sum(_contribution(slot, meters[name], q, base_q) for name, q in last_q.items())
            error_wh += abs(Decimal(sums[index] - flown).scaleb(slot.scaler))
            energies[str(slot.obis)] = Decimal(sums[index]).scaleb(slot.scaler)
    return Verdict(opened, void, tuple(differences), error_wh, *energies.values())


def _contribution(slot: Slot, meters: Sequence[SimulatedMeter], q: int, since_q: int) -> int:
    match slot.kind:
        case Kind.COUNT:
            return 1
        case Kind.POWER:
            return sum(_at(slot, meter.registers(q)) for meter in meters)
        case Kind.ENERGY:
            return sum(_at(slot, meter.registers(q)) - _at(slot, meter.registers(since_q)) for meter in meters)


def _at(slot: Slot, registers: Registers) -> int:
    """A register's mantissa at the slot's power of ten, floored as `Reading.at_scaler` floors it."""
    name, scaler = _REGISTERS[str(slot.obis)]
    value: int = getattr(registers, name)
    shift = scaler - slot.scaler
    return int(value * 10**shift) if shift >= 0 else value // 10**-shift
