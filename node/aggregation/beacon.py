"""
One gateway's part in drawing the rings: its values, each durable before it is promised and before it is shown.

What a gateway checks, in this order: before JOIN that it may show a value at all (else its absence would cost everybody
a try); on the LIST the pinned signature, the ids, the size of the area; then the value leaves, for this list and for no
other.  The size of an area is remembered once a layout of it has held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from node.storage.repositories.beacon import BeaconRepository
from protocol import wire
from protocol.dcnet.setup.beacon import RANDOM_SIZE, ListEntry, Try
from protocol.dcnet.setup.crowd import AREA_DAYS, DAY_S, KNOWN_AFTER_S, REVEALS_MAX, Pins, check_budget
from protocol.dcnet.setup.epoch import check_epoch_list, entries_of
from protocol.errors import RemoteProtocolError

_MS = 1000
_KEEP_LISTED = 4 * wire.MAX_LIST  # ids; those of the newest list first


@dataclass(frozen=True, slots=True)
class CrowdPolicy:
    """
    What a node's configuration says of the crowd: `area_size_confirmed` is the size to which an area has really shrunk.

    The largest area of the last 90 days then counts as no more than that.  Raising `reveals_max` lets more epochs be
    drawn in a day, and whoever withholds values choose among more orders.
    """

    area_size_confirmed: int | None = None
    reveals_max: int = REVEALS_MAX


@dataclass(slots=True)
class Beacon:
    """One gateway's; `verify(text, signature)` knows the list key that was pinned at enrolment."""

    identity: str
    repository: BeaconRepository
    policy: CrowdPolicy
    verify: Callable[[bytes, bytes], bool]
    random: Callable[[int], bytes]
    clock: Callable[[], float]
    is_spent: bool = False
    """Whether the newest call was refused because no value is left to show for some hours."""

    async def join(self, call: wire.EpochCall) -> Try:
        """Our try for a call: begun, or as it was left.  Raises StoreError, and RemoteProtocolError `reveals_spent`."""
        known = self.repository.load(self.identity, call.epoch, call.try_)
        if known is None:
            self._check_budget(call)
            known = Try(call.epoch, call.try_, self.random(RANDOM_SIZE))
            await self.repository.add(self.identity, known, self._now_ms())
        return known

    async def reveal(
        self, call: wire.EpochCall, message: wire.EpochList
    ) -> tuple[wire.BeaconReveal, tuple[ListEntry, ...]]:
        """
        Check a list and show our value for it; also the lines of the list.

        Raises StoreError, and RemoteProtocolError: `uncalled_list`, what `check_epoch_list`, `Try.show_for`,
        `Pins.check` and `check_budget` raise.
        """
        mine = self.repository.load(self.identity, call.epoch, call.try_)
        if mine is None:
            raise RemoteProtocolError("uncalled_list", "a list of a try that we did not join")
        digest = check_epoch_list(call, message, self.verify)
        entries = entries_of(message)
        shown = mine.show_for(self.identity, digest, entries)
        if mine.shown_for is None:
            known = await self._note_listed(call, entries)
            self._pins(call).check(len(entries), call.split_bits, known)
            self._check_budget(call)
            await self.repository.show(self.identity, shown, self._now_ms())
        return wire.BeaconReveal(call.epoch, call.try_, digest, shown.value), entries

    async def layout_held(self, call: wire.EpochCall, entries: Sequence[ListEntry]) -> None:
        """
        A layout of a list has held: remember the area's size.  Raises StoreError.

        All of the first such list are known at once: there is nothing that they could be compared with.
        """
        day, oldest = self._days(call)
        if self.repository.largest_area(self.identity, oldest) == 0:
            await self.repository.put_listed(self.identity, dict.fromkeys((each.identity for each in entries), 0))
        await self.repository.note_area(self.identity, day, len(entries) << call.split_bits, oldest)

    async def _note_listed(self, call: wire.EpochCall, entries: Sequence[ListEntry]) -> int:
        """
        How many of a list are known, 24 hours of metering time after they were listed first.

        That counts for lists that we refuse, too: or an area that grew while we were away would be refused for ever.
        """
        listed_ms, now_ms = self.repository.listed_ms(self.identity), self._now_ms()
        lapse = call.interval_s / (call.period_ms / _MS)
        names = [each.identity for each in entries]
        before_ms = now_ms - KNOWN_AFTER_S * _MS / lapse
        known = sum(listed_ms.get(name, now_ms) <= before_ms for name in names)
        if any(name not in listed_ms for name in names):
            kept = {name: listed_ms.get(name, now_ms) for name in names}
            rest = {name: listed for name, listed in listed_ms.items() if name not in kept}
            await self.repository.put_listed(
                self.identity, dict(islice(chain(kept.items(), rest.items()), _KEEP_LISTED))
            )
        return known

    def _check_budget(self, call: wire.EpochCall) -> None:
        """In metering time: under a time lapse what lies an hour back there is less than an hour old."""
        since, now_s = self.repository.since(self.identity), self.clock()
        lapse = call.interval_s / (call.period_ms / _MS)
        old_key = since is None or (not since.is_first and (now_s - since.since_ms / _MS) * lapse < DAY_S)
        shown_s = [(each / _MS - now_s) * lapse for each in self.repository.shown_ms(self.identity)]
        self.is_spent = True
        check_budget(shown_s, 0, old_key=old_key, reveals_max=self.policy.reveals_max)
        self.is_spent = False

    def _pins(self, call: wire.EpochCall) -> Pins:
        _, oldest = self._days(call)
        largest = self.repository.largest_area(self.identity, oldest)
        confirmed = self.policy.area_size_confirmed
        return Pins(largest if confirmed is None else min(largest, confirmed))

    @staticmethod
    def _days(call: wire.EpochCall) -> tuple[int, int]:
        """The day of an epoch's first interval in metering time, and the oldest that counts."""
        day = call.interval_start_s // DAY_S
        return day, day - AREA_DAYS

    def _now_ms(self) -> int:
        return round(self.clock() * _MS)
