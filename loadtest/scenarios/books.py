"""
The durable round ledgers of a run, and whether they are right: every total against the meters' own registers.

It reads the coordinators' databases, also while they run.  A gateway's account begins with its first reading: in a
quarter hour in which the meters still stood, or later where it was late; its store says with which registers, and
those must be registers that its meter had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from threading import Lock

from sqlalchemy.exc import SQLAlchemyError

from coordinator.config import CoordinatorConfig
from coordinator.storage.store import Store
from loadtest.account import accounts_of, flown
from loadtest.config import MetersConfig
from loadtest.households import SimulatedMeter, households
from loadtest.scenarios.plan import Calendar, Plan, meters_config
from loadtest.truth import RoundRow, Verdict, check, zeros_of
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.rings import positions_of
from protocol.dcnet.setup.schema import Schema
from protocol.errors import StromkreisError
from protocol.wire import Outcome

_COMPLETE = 0.9  # the others came too late, and wait for the next epoch


@dataclass(frozen=True, slots=True)
class RingRound:
    """How a ring's round ended; `interval` counts from the origin, `members` and `present` are gateway ids."""

    coordinator: int
    area: str
    interval: int
    ended: Ended
    members: tuple[str, ...]
    present: tuple[str, ...]

    @property
    def is_opened(self) -> bool:
        """Whether there is a total."""
        return self.ended.outcome is Outcome.OPENED


@dataclass(slots=True)
class Books:
    """
    All ring rounds so far, also those that a restore has taken out of a database; `read` adds what is new.

    `area_sizes` are the gateways of each area; `first` the first interval of each in rings of `_COMPLETE` of them.
    """

    configs: Sequence[CoordinatorConfig]
    area_sizes: Mapping[str, int]
    rounds: dict[tuple[int, int, int, int], RingRound] = field(default_factory=dict)
    schema: Schema | None = None
    first: dict[str, int] = field(default_factory=dict)
    _open: dict[int, tuple[int, Store]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def read(self) -> None:
        """Look into every database; one that cannot be read just now is left out.  Any thread may call it."""
        with self._lock:
            for index, config in enumerate(self.configs):
                try:
                    self._read(index, config, self._store(index, config))
                except (SQLAlchemyError, StromkreisError, OSError):
                    continue  # it is being made, or restored

    def close(self) -> None:
        """Let go of the databases."""
        for _, store in self._open.values():
            store.close()
        self._open.clear()

    def _store(self, index: int, config: CoordinatorConfig) -> Store:
        """The database, opened anew where its file is another one."""
        file = (config.data_dir / "coordinator.sqlite").stat().st_ino
        if index in self._open and self._open[index][0] != file:
            self._open.pop(index)[1].close()
        if index not in self._open:
            self._open[index] = file, Store(config.database_url)
        return self._open[index][1]

    def _read(self, index: int, config: CoordinatorConfig, store: Store) -> None:
        for epoch in store.epochs.all():
            self.schema = epoch.schema
            members = {ring.ring: ring.members for ring in store.epochs.layout(epoch.epoch)}
            if sum(map(len, members.values())) >= _COMPLETE * self.area_sizes[epoch.area]:
                self.first.setdefault(epoch.area, config.epoch.interval_index(epoch.interval_start_s))
            for ended in store.rounds.of_epoch(epoch.epoch):
                key = index, ended.epoch, ended.ring, ended.round
                if key in self.rounds:
                    continue
                mine = members[ended.ring]
                is_opened = ended.outcome is Outcome.OPENED
                present = tuple(mine[each] for each in positions_of(ended.roster)) if is_opened else ()
                interval = config.epoch.interval_index(epoch.interval_of(ended.round))
                self.rounds[key] = RingRound(index, epoch.area, interval, ended, mine, present)

    @property
    def first_interval(self) -> int | None:
        """The first in which all areas are in rings, None before they are."""
        return max(self.first.values()) if len(self.first) == len(self.area_sizes) else None

    def by_interval(self, count: int) -> dict[int, list[RingRound]]:
        """The ring rounds of `count` intervals, oldest first, from the one on in which all areas are in rings."""
        found: dict[int, list[RingRound]] = {}
        first = self.first_interval
        for each in sorted(self.rounds.values(), key=lambda each: each.interval):
            if first is not None and first <= each.interval < first + count:
                found.setdefault(each.interval, []).append(each)
        return found

    def rows(self) -> list[RoundRow]:
        """For `loadtest.truth`; epochs of several coordinators are told apart by their numbers' thousands."""
        return [
            RoundRow(
                each.coordinator * 1_000_000 + each.ended.epoch, each.ended.ring, each.ended.round,
                Calendar.quarter_hour(each.interval), each.is_opened, each.present, each.ended.total,
            )
            for each in self.rounds.values()
        ]  # fmt: skip


def households_of(plan: Plan, calendar: Calendar) -> dict[str, list[SimulatedMeter]]:
    """The meters of every gateway."""
    found: dict[str, list[SimulatedMeter]] = {}
    for each in plan.meters:
        config: MetersConfig = meters_config(each, calendar, Path(), "127.0.0.1")
        homes = households(config)
        found |= {gateway.id: [home] for gateway, home in zip(each.gateways, homes, strict=True)}
    return found


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the books of a stopped run are worth."""

    verdict: Verdict
    is_conserved_by_accounts: bool | None
    """Whether totals add up to what the gateways' own accounts have moved; None where a store was lost on purpose."""

    @property
    def failures(self) -> list[str]:
        """What is wrong, in sentences."""
        found = []
        if self.verdict.differences:
            first = self.verdict.differences[0]
            found.append(f"{len(self.verdict.differences)} slots of totals are not what they must be: {first}")
        if self.verdict.conservation_error_wh != Decimal(0):
            found.append(f"energy is not conserved: {float(self.verdict.conservation_error_wh):g} Wh off")
        if self.is_conserved_by_accounts is False:
            found.append("the totals do not add up to what the gateways' accounts have moved")
        return found


def judge(
    books: Books,
    meters: Mapping[str, Sequence[SimulatedMeter]],
    stores: Sequence[tuple[int, Path]],
    lost: Mapping[str, Sequence[Sequence[int]]],
) -> Judgement:
    """
    Hold the books of a stopped run against the meters and the gateways' stores (coordinator and directory of each).

    `lost` are the registers with which accounts began whose stores were deleted, by gateway, oldest first.
    Raises StromkreisError where there is no round, or an account begins with registers that its meter never had.
    """
    schema = books.schema
    if schema is None or not books.rounds:
        raise StromkreisError("no round was held: too few gateways joined an epoch; the logs say why")
    rows = books.rows()
    firsts = [
        (gateway, first)
        for _, directory in stores
        for gateway, account in accounts_of(directory).items()
        for first in (*lost.get(gateway, ()), account.first)
    ]
    zeros = zeros_of(schema, meters, firsts, max(row.q for row in rows) + 2)
    verdict = check(schema, meters, rows, zeros=zeros)
    if lost:
        return Judgement(verdict, None)
    balances = []
    for coordinator in {index for index, _ in stores}:
        mine = [each for each in books.rounds.values() if each.coordinator == coordinator]
        members = {(each.ended.epoch, each.ended.ring): each.members for each in mine}
        directories = [directory for index, directory in stores if index == coordinator]
        balances.append(flown(schema, [each.ended for each in mine], members, directories))
    return Judgement(verdict, all(each.is_conserved for each in balances))
