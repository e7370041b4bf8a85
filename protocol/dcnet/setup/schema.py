"""
The aggregate schema: what the slots of a ring's vector mean.

A ring adds 64-bit words and knows nothing of OBIS; the schema's digest in every key derivation is what keeps two
gateways from adding different things.  Slot 0 is always the constant 1, so its sum is the participant count: any
mask that did not cancel makes it wrong (with probability 1 - 2^-64), which makes the count a check sum for free.

Each slot names the market participants that get its total.  So a call says to whom totals go, in the digest that every
key follows from, and each gateway holds that against its signed profiles (node.profiles.contribution_rule).
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from fractions import Fraction
from typing import Any

from protocol.dcnet.crypto.noise import EXPONENT_MAX, EXPONENT_MIN
from protocol.dcnet.crypto.suite import digest
from protocol.errors import RemoteProtocolError

WORD_MODULUS = 1 << 64
SCALER_MAX = 18
EPSILON_PPM_MAX = 50_000_000  # beyond, a total is as good as bare
RECIPIENTS_MAX = 16  # of one slot
_PARTICIPANT = re.compile(r"[A-Za-z0-9._:-]{1,64}")  # as profiles name one (protocol.profiles.base.Identifier)


class Kind(StrEnum):
    """How a slot treats rounds that did not open: energy is carried into the next, snapshots are not."""

    COUNT = "count"
    ENERGY = "energy"
    POWER = "power"


@dataclass(frozen=True, slots=True)
class Noise:
    """
    Distributed noise of a slot (protocol.dcnet.crypto.noise): privacy loss ε of one total in parts in a million,
    and sensitivity.

    `sensitivity` is the most by which one household changes the total, an integer at the slot's scaler.
    """

    epsilon_ppm: int
    sensitivity: int


@dataclass(frozen=True, slots=True)
class Slot:
    """
    One 64-bit word: a quantity value·10^scaler in `unit`; `committed` ones carry Pedersen commitments.

    A slot with `noise` has a total that is the truth plus noise that nobody knows; a committed one has none.
    `recipients` are the market participants that get the total, by rising name.
    """

    name: str
    obis: str | None
    unit: str
    scaler: int
    kind: Kind
    committed: bool = False
    noise: Noise | None = None
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Schema:
    """The slots of the vector, slot 0 being the count."""

    slots: tuple[Slot, ...]

    def __post_init__(self) -> None:
        if not self.slots or self.slots[0].kind is not Kind.COUNT or self.slots[0].committed:
            raise ValueError("slot 0 of an aggregate schema is the uncommitted participant count")
        if any(slot.kind is Kind.COUNT for slot in self.slots[1:]):
            raise ValueError("an aggregate schema has one count, in slot 0")
        if any(slot.obis is None for slot in self.slots[1:]):
            raise ValueError("every slot but the count names its OBIS code")
        if any(slot.noise is not None and (slot.committed or slot.kind is Kind.COUNT) for slot in self.slots):
            raise ValueError("neither the count nor a committed slot has noise")
        if self.slots[0].recipients or any(not _is_list_of_names(slot.recipients) for slot in self.slots):
            raise ValueError("recipients are names of participants, each once, in order; the count has none of its own")

    @property
    def committed(self) -> tuple[int, ...]:
        """The indices of the committed slots."""
        return tuple(index for index, slot in enumerate(self.slots) if slot.committed)

    @property
    def noise(self) -> tuple[tuple[int, Noise], ...]:
        """The indices of the slots whose totals are noisy, with their noise."""
        return tuple((index, slot.noise) for index, slot in enumerate(self.slots) if slot.noise is not None)

    def without_noise(self) -> Schema:
        """The same registers, exact."""
        return Schema(tuple(replace(slot, noise=None) for slot in self.slots))

    def restricted_to(self, participant: str | None = None) -> Schema:
        """
        The same totals with this recipient at most, None: for nobody.

        Only totals of one such schema can be added up.
        """
        kept = () if participant is None else (participant,)
        return Schema(
            tuple(replace(slot, recipients=kept if participant in slot.recipients else ()) for slot in self.slots)
        )

    def slots_for(self, participant: str) -> tuple[int, ...]:
        """The indices of the slots whose totals a market participant gets; the count is none of them."""
        return tuple(index for index, slot in enumerate(self.slots) if participant in slot.recipients)

    def without_power(self) -> Schema:
        """The count and the energies alone."""
        return Schema(tuple(slot for slot in self.slots if slot.kind is not Kind.POWER))

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, neither noise nor recipients where there are none; it is hashed."""
        rows = [asdict(slot) for slot in self.slots]
        for row in rows:
            if row["noise"] is None:
                del row["noise"]
            if not row["recipients"]:
                del row["recipients"]
        return json.dumps(rows, sort_keys=True, separators=(",", ":")).encode()

    def digest(self) -> bytes:
        """32 bytes that bind everything above."""
        return digest("schema", self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Schema:
        """Read canonical JSON.  Raises RemoteProtocolError where it is anything else."""
        try:
            schema = cls(tuple(map(_slot, json.loads(data))))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise RemoteProtocolError("bad_schema", "expected an aggregate schema in canonical JSON") from error
        if schema.to_bytes() != data:
            raise RemoteProtocolError("bad_schema", "the aggregate schema is not in canonical form")
        return schema


def _is_list_of_names(names: tuple[str, ...]) -> bool:
    return (
        len(names) <= RECIPIENTS_MAX
        and all(isinstance(each, str) and _PARTICIPANT.fullmatch(each) for each in names)
        and list(names) == sorted(set(names))
    )


def _slot(row: dict[str, Any]) -> Slot:
    noise = None if "noise" not in row else Noise(**row["noise"])
    slot = Slot(**{**row, "kind": Kind(row["kind"]), "noise": noise, "recipients": tuple(row.get("recipients", ()))})
    if noise is not None and not (
        type(noise.epsilon_ppm) is type(noise.sensitivity) is int
        and 0 < noise.epsilon_ppm <= EPSILON_PPM_MAX
        and 0 < noise.sensitivity < WORD_MODULUS // 2
        and EXPONENT_MIN <= Fraction(noise.epsilon_ppm, 1_000_000 * noise.sensitivity) <= EXPONENT_MAX
    ):
        raise ValueError("noise has an epsilon and a sensitivity that are positive and in range")
    if (
        not isinstance(slot.name, str)
        or not isinstance(slot.obis, str | None)
        or not isinstance(slot.unit, str)
        or type(slot.scaler) is not int
        or not -SCALER_MAX <= slot.scaler <= SCALER_MAX
        or not isinstance(slot.committed, bool)
    ):
        raise TypeError("a slot has a name, an OBIS code, a unit, a whole scaler, and is committed or not")
    return slot


def signed(word: int) -> int:
    """A word read as two's complement."""
    return word - WORD_MODULUS if word >> 63 else word


DEFAULT_SCHEMA = Schema(
    (
        Slot("gateways", None, "1", 0, Kind.COUNT),
        Slot("energy_import", "1-0:1.8.0*255", "Wh", -1, Kind.ENERGY),
        Slot("energy_export", "1-0:2.8.0*255", "Wh", -1, Kind.ENERGY),
        Slot("active_power", "1-0:16.7.0*255", "W", 0, Kind.POWER),
    )
)

# The same with commitments to the energies: a ring's total is then checked against what its members committed to.
VERIFIED_SCHEMA = Schema(tuple(replace(slot, committed=slot.kind is Kind.ENERGY) for slot in DEFAULT_SCHEMA.slots))

# Meters of other media are read by the hour, and have a ring service of their own: one register each, exact.
_COUNT = DEFAULT_SCHEMA.slots[0]
GAS_SCHEMA = Schema((_COUNT, Slot("gas_volume", "7-0:3.0.0*255", "m³", -3, Kind.ENERGY)))
HEAT_SCHEMA = Schema((_COUNT, Slot("heat", "6-0:1.0.0*255", "Wh", 0, Kind.ENERGY)))
WATER_SCHEMA = Schema((_COUNT, Slot("water_volume", "8-0:1.0.0*255", "m³", -3, Kind.ENERGY)))

OWN_REGISTERS = frozenset(
    slot.obis
    for schema in (DEFAULT_SCHEMA, GAS_SCHEMA, HEAT_SCHEMA, WATER_SCHEMA)
    for slot in schema.slots
    if slot.obis is not None
)
"""OBIS codes of what this release's coordinators sum."""
