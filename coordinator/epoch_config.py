"""The configuration of epochs and rings, `[coordinator.epoch]`: how time is cut, and the aggregate schema."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from coordinator.config_section import ConfigSection
from protocol.dcnet.setup.ranges import FUSE_A, FUSE_A_MAX, FUSE_A_MIN
from protocol.dcnet.setup.schema import (
    DEFAULT_SCHEMA,
    GAS_SCHEMA,
    HEAT_SCHEMA,
    VERIFIED_SCHEMA,
    WATER_SCHEMA,
    Kind,
    Noise,
    Schema,
    Slot,
)
from protocol.metering.interval import QUARTER_HOUR_S, index_at

_HOUR_S = 3600
_BY_THE_HOUR = {"gas": GAS_SCHEMA, "heat": HEAT_SCHEMA, "water": WATER_SCHEMA}


class EarlyEpochConfig(ConfigSection):
    """
    When an area's next epoch is called before the running one ends.

    Each early epoch costs what any epoch does: new keys, one of the values that gateways show in a day, and one more
    layout that tells who was there.
    """

    void_rounds: Annotated[int, Field(ge=0, le=1_000)] = 4
    """Rounds in a row in which a ring opened no total. Lowering it ends an outage earlier and spends an epoch on a
    passing disturbance. 0: never for this reason."""

    waiting: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of an area's enrolled gateways that are connected and in no ring: new ones, those that were away when the
    epoch was called, those whose process lost its keys. Lowering it lets them in earlier, up to six times a day. 1:
    never for this reason."""

    hold_rounds: Annotated[float, Field(ge=0, le=1_000)] = 1.0
    """Rounds' time, and a minute at least, for which too few members of a ring must be connected to open a total, or
    too many gateways wait: restarts and roll-outs are over by then. Raising it delays the call by as much."""

    epoch_rounds_min: Annotated[int, Field(ge=1, le=100_000)] = 16
    """Intervals from the start of one epoch to that of the next at least, as gateways demand it
    (`node.policy.epoch_rounds_min`): a call that is earlier they refuse, so lower it only with theirs. An epoch of no
    more rounds never ends early."""

    reveals_max: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Values that a gateway shows in 24 hours (`node.policy.reveals_max`). No epoch is called early that would leave
    fewer than three of them for the next regular one."""


class EpochConfig(ConfigSection):
    """How rings are formed and how time is cut."""

    rounds: Annotated[int, Field(ge=1, le=100_000)] = 32
    """Rounds of one epoch, that is of one ring layout and one set of keys. 32 quarter hours = 8 hours: a gateway that
    comes late waits so long at most, and three of its eight values a day draw rings, which leaves five. Raising it
    saves set-up work (k key agreements and one share distribution a gateway) and makes one stolen key worth more
    rounds; memory for masks made ahead grows as rounds·slots·8 bytes."""

    period_s: Annotated[float, Field(gt=0, le=86_400)] = 900.0
    """Wall-clock seconds from one round to the next; the time lapse is interval_s / period_s, and a round's waits are
    parts of it. Lowering it leaves less time for stragglers: keep it over 20 times the slowest meter's answer."""

    interval_s: Annotated[int, Field(ge=1, le=86_400)] = 900
    """Seconds of metering time that one round stands for (a quarter hour)."""

    origin_unix_s: float = 0.0
    """Start of metering interval 0 as Unix time in seconds: interval q runs over [origin + q·period_s, origin +
    (q+1)·period_s). 0 aligns the rounds with the hour. No round is held before it. A time lapse needs one of its own,
    or its metering time would run away from 1970."""

    metering_origin_unix_s: int | None = None
    """What metering time is at the origin, as Unix time in seconds: interval q is recorded as starting at this plus
    q·interval_s. None: the origin itself, as it must be outside of a time lapse."""

    ring_size: Annotated[int, Field(ge=3, le=512)] = 64
    """Members of a ring at least: an area of N gateways makes N // ring_size rings of nearly equal size, or one.
    Raising it hides a reading among more members and costs neighbours, CPU and latency. Gateways refuse totals of fewer
    than 30 honest members, unless their own configuration says otherwise: an area of 49 reaches that, rings of 24 do
    not."""

    corrupt: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """γ: share of gateways that may collude with head and coordinator. Raising it raises neighbours and threshold."""

    dropout: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """δ: share of gateways that may vanish in any phase. Raising it lowers n_min, the smallest set that is ever
    opened."""

    medium: Literal["electricity", "gas", "heat", "water"] = "electricity"
    """What totals are of. gas (7-0:3.0.0) and water (8-0:1.0.0): volume; heat (6-0:1.0.0): energy in Wh; each by the
    hour. A medium has a ring service and areas of its own, beside others on one database."""

    power: bool = True
    """Whether totals hold power beside energy. Gateways whose configuration admits totals of fewer than 30 honest
    members refuse power: set it to false there."""

    verified: bool = False
    """Whether the gateways commit to their energies, so that a ring's total is checked against the commitments and a
    member that lies in one slot cannot spoil a verified total. Costs each gateway some 0.3 ms and 128 bytes a round,
    and the coordinator 0.1 ms a gateway and round."""

    fuse_a: Annotated[int, Field(ge=FUSE_A_MIN, le=FUSE_A_MAX)] = FUSE_A
    """Largest fuse of a household's connection, in ampere (three phases): with `verified` it bounds what a gateway can
    commit to in an interval, three times what the fuse carries. A gateway behind a larger one refuses the epochs.
    Raising it lets a member that lies add more before anybody sees it."""

    noise_epsilon: Annotated[float, Field(ge=0.001, le=50)] | None = None
    """ε: every gateway adds its part of a noise that hides one household in each ring's total (distributed differential
    privacy; power, and the energies unless `verified`). Lowering it hides better and blurs more: a ring's total is off
    by some 1.4·noise_power_w/ε. None: totals are exact."""

    noise_power_w: Annotated[int, Field(ge=1, le=1_000_000)] = 24_000
    """Change of a ring's power by one household that the noise hides, in watts: 24 kW are 3 x 35 A. Raising it blurs
    totals more."""

    noise_energy_wh: Annotated[int, Field(ge=1, le=1_000_000)] = 6_000
    """The same for the energy of an interval, in watt hours: 24 kW for a quarter hour. Energy that was carried over
    several intervals is hidden less."""

    join_s: Annotated[float, Field(gt=0, le=3_600)] | None = None
    """Seconds at least for which gateways may join an epoch that is called; the wait ends as soon as all have. None: a
    minute of metering time, and 2 s and 4 ms a gateway. Raising it waits for slow links and busy machines, and calls
    epochs earlier by as much. Too few is seen in any case: less than nine of ten at an area's first epoch, than half
    at a later one, and all are called again."""

    early: EarlyEpochConfig = EarlyEpochConfig()

    @model_validator(mode="after")
    def _a_time_lapse_begins_somewhere(self) -> Self:
        if self.period_s != self.interval_s and self.origin_unix_s <= 0:
            raise ValueError(
                "an origin_unix_s of about now, because period_s differs from interval_s (a time lapse): counted from"
                " 1970, metering time would run away from the calendar"
            )
        if self.period_s == self.interval_s and (
            self.origin_unix_s % self.interval_s
            or self.interval_s % QUARTER_HOUR_S
            or self.metering_start_unix_s != self.origin_unix_s
        ):
            raise ValueError(
                f"an interval_s of whole quarter hours (multiples of {QUARTER_HOUR_S}), an origin_unix_s that is a"
                " multiple of it and no metering_origin_unix_s, because without a time lapse gateways take part in no"
                " intervals but those that are counted from midnight UTC"
            )
        return self

    @model_validator(mode="after")
    def _other_media_are_by_the_hour(self) -> Self:
        if self.medium != "electricity" and (
            self.interval_s % _HOUR_S or self.verified or self.noise_epsilon is not None
        ):
            raise ValueError(
                f"an interval_s of whole hours (multiples of {_HOUR_S}), and neither verified nor noise_epsilon,"
                f" because medium is {self.medium}"
            )
        return self

    @property
    def metering_start_unix_s(self) -> int:
        """Metering time at the start of interval 0."""
        return int(self.origin_unix_s) if self.metering_origin_unix_s is None else self.metering_origin_unix_s

    @property
    def aggregate_schema(self) -> Schema:
        """The aggregate schema that these settings ask for."""
        if self.medium != "electricity":
            return _BY_THE_HOUR[self.medium]
        base = VERIFIED_SCHEMA if self.verified else DEFAULT_SCHEMA
        if not self.power:
            base = base.without_power()
        return base if self.noise_epsilon is None else Schema(tuple(map(self._noisy, base.slots)))

    def _noisy(self, slot: Slot) -> Slot:
        if slot.committed or slot.kind is Kind.COUNT or self.noise_epsilon is None:
            return slot
        change = self.noise_power_w if slot.kind is Kind.POWER else self.noise_energy_wh
        sensitivity = math.ceil(change / Fraction(10) ** slot.scaler)
        return replace(slot, noise=Noise(round(self.noise_epsilon * 1_000_000), sensitivity))

    def interval_index(self, interval_start_unix_s: int) -> int:
        """Which interval starts at this metering time."""
        return index_at(interval_start_unix_s, self.metering_start_unix_s, self.interval_s)
