"""
When an area gets its next epoch, and the epochs that are under way.

An area's first epoch is called once its gateways have stopped arriving; every later one early enough that its first
round follows the last of the one before without a gap.  Gateways that arrive in between wait for the next.
Without I/O: time and randomness come in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from coordinator.epoch_config import EpochConfig
from coordinator.rings.epochs import AreaEpoch, EpochRing, Phase
from coordinator.rings.numbers import EpochNumbers
from coordinator.rings.part import AreaPart, Windows
from coordinator.status import RingStatus
from protocol import wire
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.setup.crowd import KNOWN_AFTER_S, part_of, split_bits
from protocol.dcnet.setup.schema import Schema
from protocol.metering.interval import QUARTER_HOUR_S, first_index_from, start_of

_NEVER = float("inf")
_FAR_S = 2.0**40  # later than any round
SETTLE_S = 2.0  # no new gateway for so long: the area is complete as far as we can know
SILENT_S = 30.0  # a gateway says hello every 10 s; silent for so long it is not here
JOIN_S, JOIN_PER_GATEWAY_S = 2.0, 0.004  # a signature, a round trip, and a queue of everybody's
JOIN_METERING_S = 60.0  # at least so long in metering time; a window closes as soon as all are there
REVEAL_S, REVEAL_PER_GATEWAY_S = 3.0, 0.004  # a list of 94 bytes a gateway, one durable write, a round trip
REVEAL_USUAL_S = 1.0
REVEAL_METERING_S = 300.0  # who loses the link for a moment must not cost everybody a try
SHARE_FIRST, SHARE_MIN = 0.9, 0.5  # of those called that join, where no epoch is running, and where one is
SHORT_MAX = 2  # epochs that may be called again for SHARE_FIRST; each waits twice as long for joins
TRIES = 3  # for which there is time before the epoch that follows another begins
DEAL_S, DEAL_PER_GATEWAY_S = 2.0, 0.03  # certificates, key agreements, dealing: 20 ms of CPU in a load test


@dataclass(slots=True)
class Area:
    """One grid area: the gateways that are connected, by their last message, and its epochs, at most two."""

    name: str
    present: dict[str, float] = field(default_factory=dict)
    epochs: list[AreaEpoch] = field(default_factory=list)
    bound: dict[str, int] = field(default_factory=dict)  # by gateway, the newest epoch that it had a layout of
    last_arrival_s: float = _NEVER
    arrived_s: dict[str, float] = field(default_factory=dict)  # when each of those present came, or came back
    known: dict[str, int] = field(default_factory=dict)  # by gateway, the newest epoch that it said to be in
    drawn: dict[int, tuple[float, int]] = field(default_factory=dict)  # of each epoch its start and its tries
    withheld: frozenset[str] = frozenset()  # values of the epoch that was refused last
    listed_s: dict[str, float] = field(
        default_factory=dict
    )  # when each gateway's first epoch began; 0: the area's first
    not_before_s: float = 0.0  # after a refusal: do not call again at once
    begun_s: float = -_NEVER  # the start of the newest epoch that had rings
    absent: frozenset[str] = frozenset()  # called into the epoch before the newest, and did not join
    short: int = 0  # epochs in a row that too few joined
    short_since_s: float = 0.0

    def forget(self, identity: str) -> None:
        """A gateway is not here (any more)."""
        for noted in (self.present, self.arrived_s, self.known):
            noted.pop(identity, None)

    def passed(self, corrupt: float) -> int:
        """
        The newest epoch that those present have had, without the highest claims, of a part `corrupt` of them.

        More than the database knows: it was put back to an earlier state.  Whoever claims too much is not heeded.
        """
        claims = sorted(self.bound.get(identity, -1) for identity in self.present)
        heeded = claims[: len(claims) - math.ceil(corrupt * len(claims))]
        return heeded[-1] if heeded else -1


class Areas:
    """All areas of a coordinator."""

    def __init__(
        self,
        suite: Suite,
        config: EpochConfig,
        schema_of: Callable[[str], Schema],
        intermediates: Sequence[bytes],
        names: Sequence[str],
        entropy: Callable[[int], bytes],
        numbers: EpochNumbers,
        sign_list: Callable[[bytes], bytes],
    ) -> None:
        """`schema_of` an area is what calls say, `sign_list` signs with the key that gateways pinned at enrolment."""
        self.areas = {name: Area(name) for name in names}
        self.price_sheets: tuple[bytes, ...] = ()  # the digests of the newest tariffs, for calls
        self._suite = suite
        self._config = config
        self._schema_of = schema_of
        self._intermediates = intermediates
        self._entropy = entropy
        self._numbers = numbers
        self._sign_list = sign_list

    def arrive(self, area: Area, identity: str, now_s: float) -> None:
        """A message of a gateway has come."""
        if identity not in area.present:
            area.last_arrival_s = area.arrived_s[identity] = now_s
        area.present[identity] = now_s

    def forget_silent(self, now_s: float) -> None:
        """
        A gateway that sent nothing for SILENT_S is not connected: it is not counted, and no epoch waits for it.

        What is noted for later than now was noted before the clock was set back, and counts from now.
        """
        for area in self.areas.values():
            for identity, heard_s in list(area.present.items()):
                if now_s - heard_s > SILENT_S:
                    area.forget(identity)
                elif heard_s > now_s:
                    area.present[identity] = now_s
            if area.last_arrival_s != _NEVER:
                area.last_arrival_s = min(area.last_arrival_s, now_s)
            area.not_before_s = min(area.not_before_s, now_s + self._config.period_s)

    def expel(self, identity: str) -> None:
        """A gateway was revoked: it is not here, whatever it says."""
        for area in self.areas.values():
            area.forget(identity)

    def present_gateways(self) -> set[str]:
        """The gateways that are here, in all areas."""
        return {identity for area in self.areas.values() for identity in area.present}

    @property
    def present_count(self) -> int:
        """How many gateways are here, in all areas."""
        return sum(len(each.present) for each in self.areas.values())

    def epoch(self, number: int) -> tuple[Area, AreaEpoch] | None:
        """A living epoch by its number."""
        for area in self.areas.values():
            for each in area.epochs:
                if each.call.epoch == number:
                    return area, each
        return None

    def rings(self) -> list[tuple[AreaEpoch, EpochRing]]:
        """The rings of all living epochs."""
        return [(epoch, ring) for area in self.areas.values() for epoch in area.epochs for ring in epoch.rings]

    def statuses(self) -> tuple[RingStatus, ...]:
        """How the rings of all living epochs stand, for the web."""
        return tuple(ring.status(epoch.call.area) for epoch, ring in self.rings())

    def next_timer_s(self) -> float:
        """When an area wants its next epoch."""
        return min((self._due_s(area) for area in self.areas.values()), default=_NEVER)

    def windows(self, area: Area | None = None) -> Windows:
        """How long an epoch that is called now waits for what; for joins longer in an `area` where too few joined."""
        count, config = self.present_count, self._config
        lapse = config.period_s / config.interval_s
        join_s = max(config.join_s or 0.0, JOIN_S + JOIN_PER_GATEWAY_S * count)
        if area is not None:
            join_s *= 2 ** min(area.short, SHORT_MAX)
        return Windows(
            join_s=max(JOIN_METERING_S * lapse, join_s),
            reveal_s=max(REVEAL_METERING_S * lapse, REVEAL_S + REVEAL_PER_GATEWAY_S * count),
            try_s=join_s + REVEAL_USUAL_S + REVEAL_PER_GATEWAY_S * count,
            deal_s=DEAL_S + DEAL_PER_GATEWAY_S * count,
        )

    def _due_s(self, area: Area) -> float:
        if not area.present or self._numbers.is_used_up:
            return _NEVER
        living = [each for each in area.epochs if each.phase is not Phase.REFUSED]
        windows = self.windows(area)
        if not living:
            # As late as the first round allows: who arrives after the call waits for a whole epoch.
            latest_s = (
                max(self._config.origin_unix_s, self._earliest_s(area)) - windows.lead_s(1) - self._config.period_s
            )
            return max(area.last_arrival_s + SETTLE_S, area.not_before_s, latest_s)
        if len(living) > 1 or living[0].phase is Phase.CALLED:  # a second call would end the first
            return _NEVER
        return living[0].end_s() - self.lead_s() - self._config.period_s

    def _earliest_s(self, area: Area) -> float:
        """The earliest start that gateways take after the newest epoch that they had rings in."""
        config = self._config
        return area.begun_s + min(config.early.epoch_rounds_min, config.rounds) * config.period_s

    def _share_min(self, area: Area, now_s: float) -> float:
        """
        Of those called, how many must join, or the epoch is not held and all are called again.

        Whoever sits out does so until the epoch ends.  Where most never join, for reasons of their own, the others are
        served after as many rounds as an epoch has at least.
        """
        config = self._config
        if not any(each.rings for each in area.epochs) and area.short < SHORT_MAX:
            return SHARE_FIRST
        is_hopeless = area.short and now_s >= area.short_since_s + config.early.epoch_rounds_min * config.period_s
        return 0.0 if is_hopeless else SHARE_MIN

    def lead_s(self) -> float:
        """How long before its first round an epoch that follows another is called."""
        windows, half_s = self.windows(), self._config.rounds * self._config.period_s / 2
        return windows.lead_s(TRIES) if windows.lead_s(TRIES) <= half_s else windows.lead_s(1)

    def call_due(self, now_s: float) -> list[tuple[Area, AreaEpoch]]:
        """Call the epochs that are due."""
        due = [area for area in self.areas.values() if now_s >= self._due_s(area)]
        return [(area, epoch) for area in due if (epoch := self.call(area, now_s)) is not None]

    def call(self, area: Area, now_s: float, start_s: float | None = None) -> AreaEpoch | None:
        """
        Call an area's next epoch, which begins when those before are over: or at `start_s` (Unix, s) at the earliest.

        Once it has its rings those before hold no round from its start on (`end_replaced`).  None while there is no
        number for it.
        """
        config, windows = self._config, self.windows(area)
        for each in area.epochs:
            self.remember(area.name, each.members, each.call.start_ms / 1000)
        after = [*(each.end_s() for each in area.epochs), self._earliest_s(area)] if start_s is None else [start_s]
        earliest_s = max([now_s + windows.lead_s(1), config.origin_unix_s, *after])
        interval = first_index_from(earliest_s, config.origin_unix_s, config.period_s)
        bits = split_bits(len(area.present))
        # Bounded as gateways bound it: whoever claims an epoch of the far future moves it to now at most.
        passed = min(area.passed(config.corrupt), int(now_s / min(config.period_s, QUARTER_HOUR_S)) - 1)
        number = self._numbers.draw(passed + 1)
        if number is None:
            return None
        call = wire.EpochCall(
            epoch=number, try_=0, area=area.name, split_bits=bits, part=0, rejected=(),
            schema=self._schema_of(area.name).to_bytes(), rounds=config.rounds,
            start_ms=round(start_of(interval, config.origin_unix_s, config.period_s) * 1000),
            period_ms=round(config.period_s * 1000),
            interval_start_s=start_of(interval, config.metering_start_unix_s, config.interval_s),
            interval_s=config.interval_s,
            ring_size=config.ring_size, corrupt_ppm=round(config.corrupt * 1_000_000),
            dropout_ppm=round(config.dropout * 1_000_000), fuse_a=config.fuse_a,
            price_sheets=self.price_sheets,
        )  # fmt: skip
        parts = [self._part(area, replace(call, part=part), windows, now_s) for part in range(1 << bits)]
        area.withheld = frozenset()
        area.absent = frozenset().union(*(each.absent for each in area.epochs if each.rings))
        epoch = AreaEpoch(self._suite, parts, self._entropy(32), self._intermediates, windows)
        epoch.called_s = now_s
        area.epochs.append(epoch)
        return epoch

    def _part(self, area: Area, call: wire.EpochCall, windows: Windows, now_s: float) -> AreaPart:
        def here(identities: Iterable[str]) -> list[str]:
            return [each for each in identities if part_of(area.name, each, call.split_bits) == call.part]

        rejected = tuple(sorted(here(area.withheld)))
        known = here(self.known_ids(area, now_s))
        share_min = self._share_min(area, now_s)
        call = replace(call, rejected=rejected)
        return AreaPart(call, here(area.present), windows, self._sign_list, now_s, known, share_min)

    def remember(self, name: str, members: Iterable[str], start_s: float) -> None:
        """The members of an epoch of an area; those of its first are known from the beginning."""
        area = self.areas[name]
        since_s = start_s if area.listed_s else 0.0
        for each in members:
            area.listed_s.setdefault(each, since_s)
            area.begun_s = max(area.begun_s, start_s)

    def known_ids(self, area: Area, now_s: float) -> list[str]:
        """Whom the others know, as gateways count it: 24 hours of metering time after they were listed first."""
        before_s = now_s - KNOWN_AFTER_S * self._config.period_s / self._config.interval_s
        return [identity for identity, listed_s in area.listed_s.items() if listed_s <= before_s]

    def end_replaced(self) -> None:
        """An epoch ends where the next one of its area begins, from the moment in which that has its rings."""
        for area in self.areas.values():
            start_s = _FAR_S
            for each in reversed(area.epochs):
                each.hold_until(start_s)
                if each.phase in {Phase.DEALING, Phase.RUNNING}:
                    start_s = min(start_s, each.call.start_ms / 1000)

    def drop_finished(self, now_s: float, waiting: Collection[int]) -> list[AreaEpoch]:
        """
        Forget epochs in which nothing can happen any more, one period after their end.

        None of `waiting`, in which a round's end is not durable yet: a gateway that asks about that round would hear
        "not included", carry its energy, and have it counted twice once the end is written.
        """
        gone = []
        for area in self.areas.values():
            for each in list(area.epochs):
                self.remember(area.name, each.members, each.call.start_ms / 1000)
                area.drawn[each.call.epoch] = each.call.start_ms / 1000, each.tries
                if each.rings:
                    area.short = 0
                if each.phase is Phase.REFUSED:
                    area.short_since_s = area.short_since_s if area.short else now_s
                    area.short += each.is_short
                    # Too few is mended by waiting for longer, and nothing runs meanwhile; the rest takes a round.
                    area.not_before_s = now_s + (SETTLE_S if each.is_short else self._config.period_s)
                    area.withheld = each.withheld
                    area.epochs.remove(each)
                    gone.append(each)
                elif each.over and now_s > each.end_s() + self._config.period_s and each.call.epoch not in waiting:
                    area.epochs.remove(each)
                    gone.append(each)
        return gone
