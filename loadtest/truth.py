"""
Ground truth: what every opened total must be, slot by slot, from the simulated meters' own registers.

The checker knows what no part of the system knows: every household's register in every quarter hour.  It walks the
coordinator's round ledger in time and keeps each gateway's account, which follows from its meters and from the rounds
that opened with it: energy of a round that was lost comes back in parts (docs/explanation/protocol.md, section 4), and
nothing may appear twice; power is a snapshot; slot 0 counts.  Conservation is checked apart from the slots, on the sums
of a whole run: two faults that cancel in one are seen in the other.  What the meters counted and no total holds yet is
what the gateways still carry, and is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from loadtest.households import Registers, SimulatedMeter
from protocol.dcnet.discipline.carried_energy import EnergyAccount, contribute
from protocol.dcnet.setup.schema import WORD_MODULUS, Kind, Schema, Slot, signed
from protocol.errors import StromkreisError

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
    """
    What the round ledger is worth.  Energies are sums over all opened totals; `carried` are how many gateways have
    energy of missed rounds to release, `carried_wh` how much: the meters' counts less the accounts.
    """

    opened: int
    void: int
    differences: tuple[Difference, ...]
    conservation_error_wh: Decimal
    energy_import_wh: Decimal
    energy_export_wh: Decimal
    carried: int
    carried_wh: Decimal

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
    zeros: Mapping[str, Sequence[int]] | None = None,
) -> Verdict:
    """
    Hold a round ledger against the meters of each gateway.

    `base_q` is the quarter hour whose registers every gateway began from, `zeros` those whose registers became the zero
    of a gateway's account later, when its store was lost: what flowed between is in no total.  A roster with a gateway
    that has no meters here, or a total of another length than the schema, counts as a difference of slot 0.
    """
    accounts: dict[str, list[EnergyAccount]] = {}
    zero_of = {name: _accounts(schema, mine, base_q) for name, mine in meters.items()}
    zeros_left = {name: sorted(each) for name, each in (zeros or {}).items()}
    earlier = [0] * len(schema.slots)  # what the accounts had moved when their stores were lost
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
        expected = [0] * len(schema.slots)
        for name in row.roster:
            account = accounts.get(name) or zero_of[name]
            while zeros_left.get(name) and zeros_left[name][0] <= row.q:
                for index, (one, zero) in enumerate(zip(account, zero_of[name], strict=True)):
                    earlier[index] += one.contributed - zero.contributed
                account = zero_of[name] = _accounts(schema, meters[name], zeros_left[name].pop(0))
            accounts[name] = []
            for index, (slot, before) in enumerate(zip(schema.slots, account, strict=True)):
                word, after = _contribution(slot, meters[name], row.q, before)
                expected[index] += word
                accounts[name].append(after)
        for index, slot in enumerate(schema.slots):
            found = signed(row.total[index] % WORD_MODULUS)
            sums[index] += found
            if (found - expected[index]) % WORD_MODULUS:
                differences.append(Difference(row.epoch, row.ring, row.round, slot.name, expected[index], found))
    error_wh = carried_wh = Decimal(0)
    energies = {"1-0:1.8.0*255": Decimal(0), "1-0:2.8.0*255": Decimal(0)}
    energy = [index for index, slot in enumerate(schema.slots) if slot.kind is Kind.ENERGY]
    for index in energy:
        slot = schema.slots[index]
        moved = earlier[index] + sum(
            account[index].contributed - zero_of[name][index].contributed for name, account in accounts.items()
        )
        error_wh += abs(Decimal(sums[index] - moved).scaleb(slot.scaler))
        carried_wh += Decimal(sum(account[index].carried for account in accounts.values())).scaleb(slot.scaler)
        energies[str(slot.obis)] = Decimal(sums[index]).scaleb(slot.scaler)
    carried = sum(any(account[index].carried for index in energy) for account in accounts.values())
    taken_wh, fed_in_wh = energies["1-0:1.8.0*255"], energies["1-0:2.8.0*255"]
    return Verdict(opened, void, tuple(differences), error_wh, taken_wh, fed_in_wh, carried, carried_wh)


def _quarter_hour_of(schema: Schema, meters: Sequence[SimulatedMeter], first: Sequence[int], q_max: int) -> int | None:
    """In which quarter hour up to `q_max` the registers of a gateway's meters were `first`, None where in none."""
    energy = [index for index, slot in enumerate(schema.slots) if slot.kind is Kind.ENERGY]
    for q in range(q_max + 1):
        accounts = _accounts(schema, meters, q)
        if all(accounts[index].contributed == first[index] for index in energy):
            return q
    return None


def zeros_of(
    schema: Schema,
    meters: Mapping[str, Sequence[SimulatedMeter]],
    firsts: Iterable[tuple[str, Sequence[int]]],
    q_max: int,
) -> dict[str, list[int]]:
    """
    For `check`: the quarter hours up to `q_max` in which accounts began, from gateways and first registers by slot.

    A gateway that began with the very first quarter hour is left out.  Raises StromkreisError where a meter never had
    such registers.
    """
    found: dict[str, list[int]] = {}
    for gateway, first in firsts:
        q = _quarter_hour_of(schema, meters[gateway], first, q_max)
        if q is None:
            raise StromkreisError(f"{gateway}: its account begins with registers that its meter never had")
        found.setdefault(gateway, []).append(q)
    return {gateway: each for gateway, each in found.items() if each != [0]}


def _accounts(schema: Schema, meters: Sequence[SimulatedMeter], q: int) -> list[EnergyAccount]:
    return [_first(slot, meters, q) for slot in schema.slots]


def _first(slot: Slot, meters: Sequence[SimulatedMeter], q: int) -> EnergyAccount:
    register = sum(_at(slot, meter.registers(q)) for meter in meters) if slot.kind is Kind.ENERGY else 0
    return EnergyAccount(register, register)


def _contribution(
    slot: Slot, meters: Sequence[SimulatedMeter], q: int, account: EnergyAccount
) -> tuple[int, EnergyAccount]:
    match slot.kind:
        case Kind.COUNT:
            return 1, account
        case Kind.POWER:
            return sum(_at(slot, meter.registers(q)) for meter in meters), account
        case Kind.ENERGY:
            register = sum(_at(slot, meter.registers(q)) for meter in meters)
            return contribute(account, register, q, length_s=1)


def _at(slot: Slot, registers: Registers) -> int:
    """A register's mantissa at the slot's power of ten, floored as `Reading.at_scaler` floors it."""
    name, scaler = _REGISTERS[str(slot.obis)]
    value: int = getattr(registers, name)
    shift = scaler - slot.scaler
    return int(value * 10**shift) if shift >= 0 else value // 10**-shift
