r"""
One part of an area on its way to an epoch: who joins, the list, the values, and another try where one is withheld.

Without I/O.  A list is used with all its values or not at all: whoever has shown none when the window closes is left
out of the next try, for which everybody else commits afresh (protocol.dcnet.setup.beacon says why).

    JOINING --all joined, or window over--> REVEALING --all values--> DRAWN
       ^                                        |
       +---window over, a value is missing------+--no time for another try--> REFUSED
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from enum import StrEnum
from typing import Any

from coordinator.events import Joined, To
from protocol import wire
from protocol.dcnet.setup.beacon import ListEntry, ValueCollector, beacon, list_digest
from protocol.dcnet.setup.crowd import admit
from protocol.dcnet.setup.epoch import call_digest, list_text
from protocol.dcnet.setup.rings import cut_rings
from protocol.errors import RemoteProtocolError

_NEVER = float("inf")


class Stage(StrEnum):
    """Where a part stands."""

    JOINING = "joining"
    REVEALING = "revealing"
    DRAWN = "drawn"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Windows:
    """
    How long joins and values are waited for, and what dealing takes, in seconds.

    The first two end as soon as all are there; `try_s` is what a try takes in which nothing is missing.
    """

    join_s: float
    reveal_s: float
    try_s: float
    deal_s: float

    def lead_s(self, tries: int) -> float:
        """How long before its first round an epoch is called that may take so many tries."""
        return (tries - 1) * (self.join_s + self.reveal_s) + self.try_s + self.deal_s


class AreaPart:
    """The part that `call` calls; `sign_list` signs with the key that gateways pinned at enrolment."""

    def __init__(
        self, call: wire.EpochCall, invited: Iterable[str], windows: Windows, sign_list: Callable[[bytes], bytes],
        now_s: float, known: Iterable[str] = (), share_min: float = 0.0,
    ) -> None:  # fmt: skip
        """
        Of gateways that are not `known` to the others so many are listed as these bear; all where none is known.

        Where less than `share_min` of the `invited` join in time the part is refused.
        """
        self.call = call
        self.stage = Stage.JOINING
        self.joined: dict[str, Joined] = {}
        self.refusal = ""
        self.list_digest = b""
        self.withheld = frozenset(call.rejected)  # whom the next try, or the next epoch, is called without
        self._invited = set(invited).difference(call.rejected)
        self._known = frozenset(known)
        self._windows = windows
        self._share_min = share_min
        self.is_short = False  # refused because too few joined
        self._sign_list = sign_list
        self._list: wire.EpochList | None = None
        self._collector: ValueCollector | None = None
        self._until_s = now_s + windows.join_s

    @property
    def until_s(self) -> float:
        """When the present window closes."""
        return self._until_s if self.stage in {Stage.JOINING, Stage.REVEALING} else _NEVER

    @property
    def is_settled(self) -> bool:
        """Whether it is known what becomes of the part."""
        return self.stage in {Stage.DRAWN, Stage.REFUSED}

    @property
    def absent(self) -> frozenset[str]:
        """The gateways that were called and have not joined."""
        return frozenset(self._invited - self.joined.keys())

    @property
    def values(self) -> tuple[bytes, ...]:
        """All values in the order of the list, once it is DRAWN."""
        return () if self._collector is None else self._collector.values

    def rings(self) -> list[list[str]]:
        """The rings that follow, once it is DRAWN: ids in position order."""
        return cut_rings(beacon(self.list_digest, self.values), list(self.joined), self.call.ring_size)

    def rows(self, identities: Iterable[str]) -> tuple[wire.MemberRow, ...]:
        """The joins of these gateways as a layout has them."""
        return tuple(
            (each, its.public_key, its.curve_key, its.verify_key, its.nonce, its.signature, its.certificate)
            for each, its in ((each, self.joined[each]) for each in identities)
        )

    def greeting(self, identity: str) -> list[To]:
        """What a gateway of this part that is here (again) needs to take part."""
        if self.stage is Stage.JOINING:
            if identity not in self.call.rejected:
                self._invited.add(identity)
            return [To(identity, self.call)]
        if self._list is not None and identity in self.joined:
            return [To(identity, self.call), To(identity, self._list)]
        return []

    def join(self, identity: str, joined: Joined, now_s: float) -> list[To]:
        """A gateway's fresh key and commitment; the first one of a try stands."""
        if self.stage is not Stage.JOINING or joined.try_ != self.call.try_ or identity in self.call.rejected:
            return []
        self.joined.setdefault(identity, joined)
        return self._close_joins(now_s) if self._invited <= self.joined.keys() else []

    def _close_joins(self, now_s: float) -> list[To]:
        if not self.joined:
            self.withheld = frozenset()  # or nobody would ever be called again
            return self.refuse(f"no gateway of area {self.call.area} joined")
        if len(self.joined) < self._share_min * len(self._invited):
            self.withheld, self.is_short = frozenset(), True
            return self.refuse(
                f"{len(self.joined)} of {len(self._invited)} gateways that are connected joined in time: too few to sit"
                " in these rings until the epoch ends, all are called again"
            )
        if len(self.joined) > wire.MAX_LIST:
            return self.refuse(
                f"area {self.call.area} has {len(self.joined)} gateways in a part, of at most {wire.MAX_LIST}"
            )
        fresh = [each for each in self.joined if each not in self._known]
        listed = admit([each for each in self.joined if each in self._known], fresh)
        waiting = self.joined.keys() - listed
        self.joined = {each: self.joined[each] for each in listed}
        self._make_list(now_s)
        refused = wire.Refused(self.call.epoch, "too many gateways are new here today, you come in with a later epoch")
        return [*self._list_to(self.joined), *(To(each, refused) for each in sorted(waiting))]

    def _make_list(self, now_s: float) -> None:
        self.joined = dict(sorted(self.joined.items()))
        entries = [ListEntry(each, join.commitment, join.join_digest) for each, join in self.joined.items()]
        self.list_digest = list_digest(call_digest(self.call), entries)
        self._list = wire.EpochList(
            self.call.epoch, self.call.try_, tuple((e.identity, e.commitment, e.join_digest) for e in entries),
            self._sign_list(list_text(self.list_digest)),
        )  # fmt: skip
        self._collector = ValueCollector(entries, self.call.epoch, self.call.try_, self.list_digest)
        self.stage = Stage.REVEALING
        self._until_s = self._reveal_until_s(now_s)

    def _reveal_until_s(self, now_s: float) -> float:
        """At least the window; as long as the epoch's start allows where it leaves no time for another try."""
        window_s = now_s + self._windows.reveal_s
        return window_s if self._may_try_again(window_s) else max(window_s, self._deal_from_s)

    @property
    def _deal_from_s(self) -> float:
        return self.call.start_ms / 1000 - self._windows.deal_s

    def _may_try_again(self, now_s: float) -> bool:
        return now_s + self._windows.try_s <= self._deal_from_s and self.call.try_ + 1 < wire.MAX_TRIES

    def _list_to(self, identities: Iterable[str]) -> list[To]:
        return [] if self._list is None else [To(each, self._list) for each in identities]

    def reveal(self, identity: str, message: wire.BeaconReveal) -> bool:
        """A gateway's value; True where it completes the list.  Raises RemoteProtocolError as `ValueCollector.take`."""
        if self.stage is not Stage.REVEALING or message.try_ != self.call.try_ or self._collector is None:
            return False
        if not self._collector.take(identity, message.list_digest, message.value):
            return False
        self.stage = Stage.DRAWN
        return True

    def on_window_over(self, now_s: float) -> list[To]:
        """The window has closed: list who joined, or try again without who has shown nothing."""
        if self.stage is Stage.JOINING:
            return self._close_joins(now_s)
        missing = () if self._collector is None else self._collector.missing
        if 2 * len(missing) <= len(self.joined):  # where most are missing it is our network: nobody is left out for it
            self.withheld = frozenset((*self.call.rejected, *missing))
        if not self._may_try_again(now_s):
            return self.refuse(
                f"{len(missing)} of {len(self.joined)} gateways of area {self.call.area} showed no value in time,"
                f" {missing[0]} among them"
            )
        self.call = replace(self.call, try_=self.call.try_ + 1, rejected=tuple(sorted(self.withheld)))
        called, self._invited = self._invited, self.joined.keys() - missing  # nobody waits for who was not here
        self.stage, self.joined, self._list, self._collector = Stage.JOINING, {}, None, None
        self._until_s = now_s + self._windows.join_s
        return [To(each, self.call) for each in sorted(called)]

    def refuse(self, reason: str) -> list[To]:
        """The part comes into no ring of this epoch: whoever joined gets the reason."""
        self.stage, self.refusal = Stage.REFUSED, reason
        return [To(each, wire.Refused(self.call.epoch, reason[:200])) for each in self.joined]

    # --- a restart of the coordinator ------------------------------------------------------------------------------

    def to_state(self) -> tuple[Any, ...]:
        """What a restart needs, for MessagePack."""
        joined = [(identity, *astuple(each)) for identity, each in self.joined.items()]
        values = self.values if self.stage is Stage.DRAWN else ()
        called = sorted(self._invited), sorted(self._known)
        return wire.encode(self.call), self.stage.value, called, joined, values, self.refusal

    @classmethod
    def from_state(
        cls, state: Sequence[Any], windows: Windows, sign_list: Callable[[bytes], bytes], now_s: float
    ) -> AreaPart:
        """
        Go on with the try as it was, its windows open anew: who has joined or shown a value does so again when it is
        greeted, with the very same commitment and value.

        Raises RemoteProtocolError for a state of another release.
        """
        call_bytes, stage, (invited, known), joined, values, refusal = state
        call = wire.decode(call_bytes, frozenset({wire.EpochCall}))
        if not isinstance(call, wire.EpochCall):
            raise RemoteProtocolError("malformed_message", "expected a call")
        part = cls(call, invited, windows, sign_list, now_s, known)
        part.joined = {identity: Joined(*rest) for identity, *rest in joined}
        if stage in {Stage.REVEALING, Stage.DRAWN}:
            part._make_list(now_s)
            for identity, value in zip(part.joined, values, strict=False):
                part.reveal(identity, wire.BeaconReveal(call.epoch, call.try_, part.list_digest, value))
        part.stage, part.refusal = Stage(stage), refusal
        return part
