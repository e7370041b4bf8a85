"""
Which registers a gateway lets into a sum, and as what: the coordinator's schema is not believed about either.

A schema that declares the cumulative register 1.8.0 as a power puts the register itself into every total: whoever is
left out of one is then known to the kWh.  One that names a register a hundred times, each time with little noise,
averages the noise away.  So what an OBIS code is follows from its groups C and D (IEC 62056-61; DLMS UA 1000-1, clause
7), and each register appears once.

Nor does one stand beside a part of it: 1.8.0 is the sum of its tariffs 1.8.1, 1.8.2 and of its phases 21.8.0, 41.8.0,
61.8.0.  That would be the same quantity once more, with noise of its own; and profiles may name other meters for the
one than for the other, so that the totals' difference is the meter of the one household where they do.
"""

from __future__ import annotations

from protocol.dcnet.setup.schema import Kind, Schema
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis

_ELECTRICITY, _HEAT, _GAS, _WATER = 1, 6, 7, 8
_PHASES = (0, 20, 40, 60)  # all phases together, L1, L2, L3
_ENERGIES = frozenset(phase + quantity for phase in _PHASES for quantity in range(1, 11))
"""Group C of what only counts up: active, reactive by direction and quadrant, apparent.  Not the net sums 15 and 16."""
_SNAPSHOTS = _ENERGIES | frozenset(phase + quantity for phase in _PHASES for quantity in range(11, 17)) | {81}
"""Group C of what is as it is at the moment: powers, current (11), voltage (12), power factor, frequency, net power."""
_VOLUMES = {_HEAT: frozenset({(1, 0), (2, 0)}), _GAS: frozenset({(3, 0), (3, 1), (3, 2)}), _WATER: frozenset({(1, 0)})}
_INSTANTANEOUS, _CUMULATIVE, _CURRENT = 7, 8, 255
_SUMS = {3: (5, 6), 4: (7, 8), 15: (1, 2), 16: (1, 2)}
"""Group C of a phase: reactive by direction are two quadrants, power without direction and net are both directions."""


def kind_of(register: Obis) -> Kind | None:
    """How a sum treats a register: ENERGY for what counts up and is carried, POWER for a snapshot; None: in no sum."""
    if register.f != _CURRENT:
        return None
    if register.a == _ELECTRICITY:
        if register.d == _CUMULATIVE and register.c in _ENERGIES:
            return Kind.ENERGY
        if register.d == _INSTANTANEOUS and register.e == 0 and register.c in _SNAPSHOTS:
            return Kind.POWER
        return None
    return Kind.ENERGY if (register.c, register.d) in _VOLUMES.get(register.a, ()) else None


def check_registers(schema: Schema) -> None:
    """
    Raise RemoteProtocolError unless each register is one that may be summed, as what it is, and once.

    Reasons: `unknown_register`, `wrong_kind`, `register_twice`, also for one that is a part of another.
    """
    seen: list[Obis] = []
    for slot in schema.slots[1:]:
        try:
            register = Obis.parse(slot.obis or "")
        except ValueError as error:
            raise RemoteProtocolError("unknown_register", str(error)) from None
        kind = kind_of(register)
        if kind is None:
            raise RemoteProtocolError("unknown_register", f"{register} is no register that is summed")
        if slot.kind is not kind:
            raise RemoteProtocolError("wrong_kind", f"{register} declared as {slot.kind.value}, it is {kind.value}")
        twice = next((each for each in seen if _overlap(each, register)), None)
        if twice is not None:
            detail = "stands in two slots" if twice == register else f"counts a part of {twice}, in another slot"
            raise RemoteProtocolError("register_twice", f"{register} {detail}")
        seen.append(register)


def _overlap(one: Obis, other: Obis) -> bool:
    """Whether something counts in both registers."""
    if one.a != _ELECTRICITY or other.a != _ELECTRICITY:
        return (one.a, one.c) == (other.a, other.c)  # volumes of gas, measured or converted
    if one.d != other.d or not _quantities(one.c).intersection(_quantities(other.c)):
        return False
    return not (_differ(_phase(one.c), _phase(other.c)) or _differ(one.e, other.e))


def _differ(one: int, other: int) -> bool:
    """Of phases or tariffs, 0 being all together."""
    return one != other and 0 not in {one, other}


def _phase(c: int) -> int:
    return c // 20 if c < _PHASES[-1] + 20 else 0


def _quantities(c: int) -> frozenset[int]:
    own = c - 20 * _phase(c)
    return frozenset(_SUMS.get(own, (own,)))
