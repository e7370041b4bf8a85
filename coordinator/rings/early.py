"""
Whether an area's next epoch is called before the running one ends, and why.

An epoch lasts hours.  Without this an area in which more gateways vanish than its rings bear opens nothing until it is
over, and gateways that came late wait as long.  Three things have the next one called:

- a ring has opened no total for some rounds in a row;
- for some time fewer members of a ring are connected than open a total: the k_min core of those connected, that is who
  is left when members with fewer than k_min neighbours left are taken away, again and again, is below n_min;
- for some time more than a share of the area's enrolled gateways are connected and sit in no ring.

Gateways bound how often that may be, so that nobody lays rings out again and again until they suit
(protocol.dcnet.setup.calendar, .crowd).  A call that they would refuse is not made: an epoch begins 16 intervals after
the last one began; a day's values of the beacon leave enough for the regular epochs and their tries; those connected
must be able to form rings at all.  What a gateway refuses by what it alone knows (an area that has shrunk, unless its
configuration confirms that) comes to nothing without costing a value, and is called again some rounds later.

Without I/O.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from coordinator.epoch_config import EpochConfig
from coordinator.metrics import CoordinatorMetrics
from coordinator.rings.areas import SILENT_S, TRIES, Area, Areas
from coordinator.rings.epochs import AreaEpoch, EpochRing, Phase
from protocol.dcnet.setup.crowd import DAY_S, admit
from protocol.dcnet.setup.epoch import ring_parameters
from protocol.dcnet.setup.rings import RingView, bitmap, positions_of, ring_sizes
from protocol.errors import LocalProtocolError
from protocol.wire import Outcome

log = logging.getLogger(__name__)
_LOOK_S = 5.0  # between two looks; with short periods a quarter of one
_HOLD_S_MIN = 2 * SILENT_S  # gateways say hello every 10 s, and nothing at once after a restart of ours
_AGAIN_ROUNDS = 4  # after a call that may have come to nothing


class Reason(StrEnum):
    """Why an epoch is called early."""

    VOID = "void_rounds"
    TOO_FEW = "too_few_connected"
    WAITING = "many_waiting"


@dataclass(slots=True)
class _Watch:
    """One area: since when each reason holds, what was said of it, and when a call may be made again."""

    epoch: int
    since_s: dict[Reason, float] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)
    again_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Lack:
    """Of a ring's members those connected, and those of them that have enough neighbours."""

    view: RingView
    connected: int
    core: int

    @property
    def members(self) -> int:
        """How many it is short of to open a total; 0 or less: none."""
        return self.view.n_min - self.core

    def __str__(self) -> str:
        """For the log."""
        return (
            f"ring {self.view.ring} has {self.connected} members connected, {self.core} of them with"
            f" k_min = {self.view.k_min} such neighbours, n_min = {self.view.n_min}"
        )


def core(view: RingView, members: int) -> int:
    """The k_min core of `members` (a bitmap): the largest part of which each has k_min neighbours in it."""
    while True:
        left = bitmap(
            [i for i in positions_of(members) if (view.neighbourhoods[i] & members).bit_count() >= view.k_min]
        )
        if left == members:
            return left
        members = left


class EarlyCalls:
    """`enrolled` counts the active gateways of each area."""

    def __init__(
        self, areas: Areas, config: EpochConfig, enrolled: Callable[[], Mapping[str, int]], metrics: CoordinatorMetrics
    ) -> None:
        self._areas = areas
        self._config = config
        self._enrolled = enrolled
        self._metrics = metrics
        self._look_s = min(_LOOK_S, config.period_s / 4)
        self._next_look_s = 0.0
        self._watches: dict[str, _Watch] = {}

    def next_timer_s(self) -> float:
        """When the areas are looked at next."""
        return self._next_look_s

    def call_due(self, now_s: float) -> list[tuple[Area, AreaEpoch]]:
        """Call the epochs that are due, having looked how the areas stand."""
        if now_s < self._next_look_s <= now_s + self._look_s:
            return []
        self._next_look_s = now_s + self._look_s
        called, short, missing, waiting = [], 0, 0, 0
        for area in self._areas.areas.values():
            epoch = next((each for each in reversed(area.epochs) if each.phase is Phase.RUNNING), None)
            if epoch is None:
                continue
            lacks = [lack for ring in epoch.rings if (lack := _lack(area, epoch, ring)).members > 0]
            left_out = self._waiting(area, epoch, now_s)
            short, missing, waiting = (
                short + len(lacks),
                missing + sum(each.members for each in lacks),
                waiting + len(left_out),
            )
            reasons = dict(self._reasons(area, epoch, lacks, left_out))
            if (early := self._on_reasons(area, epoch, reasons, now_s)) is not None:
                called.append((area, early))
        self._metrics.standing(rings_short=short, members_missing=missing, waiting=waiting)
        return called

    def _reasons(
        self, area: Area, epoch: AreaEpoch, lacks: list[_Lack], waiting: frozenset[str]
    ) -> Iterator[tuple[Reason, str]]:
        config = self._config.early
        void = max((_void_rounds(ring) for ring in epoch.rings), default=0)
        if 0 < config.void_rounds <= void:
            yield Reason.VOID, f"a ring has opened none of its last {void} rounds"
        if lacks:
            worst = max(lacks, key=lambda each: each.members)
            yield Reason.TOO_FEW, f"{len(lacks)} of {len(epoch.rings)} rings cannot open: {worst}"
        enrolled = self._enrolled().get(area.name, 0) or len(area.present)
        if waiting and config.waiting < 1 and len(waiting) > config.waiting * enrolled:
            yield Reason.WAITING, f"{len(waiting)} of {enrolled} enrolled gateways are connected and in no ring"

    def _on_reasons(
        self, area: Area, epoch: AreaEpoch, reasons: Mapping[Reason, str], now_s: float
    ) -> AreaEpoch | None:  # fmt: skip
        watch = self._watches.get(area.name)
        if watch is None or watch.epoch != epoch.call.epoch:
            again_s = 0.0 if watch is None else watch.again_s
            watch = self._watches[area.name] = _Watch(epoch.call.epoch, again_s=again_s)
        watch.again_s = min(watch.again_s, now_s + self._again_s)  # the clock may have been set back
        watch.since_s = {each: min(watch.since_s.get(each, now_s), now_s) for each in reasons}
        if not reasons:
            watch.said.clear()
            return None
        hold_s = max(_HOLD_S_MIN, self._config.early.hold_rounds * self._config.period_s)
        standing = [each for each in reasons if each is Reason.VOID or now_s >= watch.since_s[each] + hold_s]
        if not standing or area.epochs[-1] is not epoch or len(area.epochs) > 1:
            return None
        reason = standing[0]
        start_s = self._start_s(epoch, now_s)
        if start_s >= epoch.end_s() or now_s < watch.again_s:
            return None
        if (obstacle := self._obstacle(area, epoch, now_s)) is not None:
            self._say(watch, area, reasons[reason], "is not called early: " + obstacle)
            return None
        if now_s < start_s - self._areas.lead_s() - self._config.period_s:
            self._say(watch, area, reasons[reason], f"begins early, in {start_s - now_s:.0f} s at the earliest")
            return None
        called = self._areas.call(area, now_s, start_s)
        if called is None:
            return None
        watch.again_s = now_s + self._again_s
        self._metrics.epoch_called_early(reason)
        log.warning(
            "epoch %d of area %s is called before epoch %d ends: %s",
            called.call.epoch, area.name, epoch.call.epoch, reasons[reason],
        )  # fmt: skip
        return called

    @property
    def _again_s(self) -> float:
        return _AGAIN_ROUNDS * self._config.period_s

    @staticmethod
    def _say(watch: _Watch, area: Area, reason: str, what: str) -> None:
        """Once while reasons last, whatever the numbers in them."""
        kind = what.split(" ", maxsplit=1)[0]
        if kind not in watch.said:
            watch.said.add(kind)
            log.warning("area %s: %s; the next epoch %s", area.name, reason, what)

    def _start_s(self, epoch: AreaEpoch, now_s: float) -> float:
        """The earliest start that gateways take: so many intervals after that of the epoch whose layout they have."""
        least_s = epoch.call.start_ms / 1000 + self._config.early.epoch_rounds_min * self._config.period_s
        return max(least_s, now_s + self._areas.lead_s())

    def _obstacle(self, area: Area, epoch: AreaEpoch, now_s: float) -> str | None:
        """Why gateways would refuse, or no rings come about, as far as we can know."""
        config = self._config
        day_s = DAY_S * config.period_s / config.interval_s
        area.drawn = {number: drawn for number, drawn in area.drawn.items() if drawn[0] > now_s - day_s}
        drawn = area.drawn | {epoch.call.epoch: (epoch.call.start_ms / 1000, epoch.tries)}
        shown = sum(tries for _, tries in drawn.values())
        if shown > config.early.reveals_max - TRIES:
            return f"{shown} of {config.early.reveals_max} values of the beacon are shown in 24 h"
        count = len(area.present)
        try:
            for size in set(ring_sizes(count, config.ring_size)):
                ring_parameters(size, count, round(config.corrupt * 1_000_000), round(config.dropout * 1_000_000))
        except LocalProtocolError as error:
            return f"{count} gateways are connected, which cannot form rings ({error})"
        return None

    def _waiting(self, area: Area, epoch: AreaEpoch, now_s: float) -> frozenset[str]:
        """
        Who is connected, in no ring, and would be let in by the next epoch.

        A gateway that was called and did not join is counted once, and no more where it missed the epoch before as
        well: another call will not help.  A member that was started without its keys says that it is in no epoch.
        """
        number = epoch.call.epoch
        outside = {
            each
            for each, arrived_s in area.arrived_s.items()
            if (
                area.known.get(each, number) < number
                if each in epoch.members
                else arrived_s > epoch.called_s or each not in area.absent
            )
        }
        if not outside:
            return frozenset()
        known = area.present.keys() & self._areas.known_ids(area, now_s)
        return frozenset(outside).intersection(admit(sorted(known), sorted(area.present.keys() - known)))


def _lack(area: Area, epoch: AreaEpoch, ring: EpochRing) -> _Lack:
    number = epoch.call.epoch
    here = bitmap(
        [at for each, at in ring.positions.items() if each in area.present and area.known.get(each, number) >= number]
    )
    here &= ~ring.expelled & ~ring.left_out
    return _Lack(ring.view, here.bit_count(), core(ring.view, here).bit_count())


def _void_rounds(ring: EpochRing) -> int:
    """How many rounds in a row, up to the last that ended, opened no total while we were there to hear of one."""
    if ring.ledger is None or not ring.ledger.ended:
        return 0
    ended, round_, count = ring.ledger.ended, max(ring.ledger.ended), 0
    while (last := ended.get(round_ - count)) is not None:
        if last.outcome is not Outcome.VOID or last.opened_s < ring.since_s:
            break
        count += 1
    return count
