r"""
One epoch of one area, from the call to the last round: who joins, which rings come out, who deals what to whom.

Without I/O: gateways' messages and the time go in, messages to gateways come out.  Everything that a gateway would
need again after a restart (call, layout, deals) is kept and handed out again when it asks.

    CALLED --all parts drawn (part.py)--> DEALING --all dealt, or deal_until--> RUNNING --last round ended--> OVER
       \--no part drawn--> REFUSED <--layout not durable--/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field
from enum import Enum

import msgpack

from coordinator.events import Joined, To
from coordinator.rings.part import AreaPart, Stage, Windows
from coordinator.status import Member, RingStatus
from protocol import wire
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.machines.ledger import RoundLedger
from protocol.dcnet.setup.crowd import part_of
from protocol.dcnet.setup.epoch import make_view, registration_grid
from protocol.dcnet.setup.ledger_keys import LedgerSecrets
from protocol.dcnet.setup.rings import RingView, bitmap, positions_of, ring_number
from protocol.dcnet.setup.statements import deal_text
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.link import LinkLimits

_NEVER = float("inf")
SPOT_CHECKS_MAX = 8  # answers to one gateway in an epoch: once, and after each restart
_LAYOUT_SIZE_MAX = LinkLimits().message_bytes_max


class Phase(Enum):
    """Where an area's epoch stands."""

    CALLED = "called"
    DEALING = "dealing"
    RUNNING = "running"
    REFUSED = "refused"


@dataclass(slots=True)
class EpochRing:
    """One ring: its view, its ledger once it runs, and the deals that went through here, sealed."""

    view: RingView
    positions: dict[str, int]
    deals: dict[int, wire.Deal] = field(default_factory=dict)
    ledger: RoundLedger | None = None
    since_s: float = 0.0  # when the ledger began here, or went on after a restart
    head_at: wire.HeadAt | None = None
    head_at_sent_s: float = 0.0
    expelled: int = 0
    left_out: int = 0  # who owes a range proof

    def status(self, area: str) -> RingStatus:
        """How the ring stands, for the web."""
        members, ledger = tuple(self.positions), self.ledger
        last = ledger.ended[max(ledger.ended)] if ledger is not None and ledger.ended else None
        missing = positions_of(self.view.everybody & ~last.roster) if last is not None else []
        head = None if ledger is None else self.view.head_of(ledger.term)
        return RingStatus(
            epoch=self.view.epoch, ring=self.view.ring, area=area, size=len(members),
            honest_min=self.view.honest_min, members=members,
            missing=tuple(Member(position=each, gateway=members[each]) for each in missing),
            head=None if head is None else Member(position=head, gateway=members[head]),
            last_round=None if last is None else last.round,
            last_outcome=None if last is None else last.outcome.name.lower(),
            last_latency_ms=None if last is None else round((last.ended_s - last.opened_s) * 1000, 3),
        )  # fmt: skip

    @property
    def out(self) -> int:
        """Whom the head leaves out of E: who owes a range proof, and whom the ledger says."""
        return self.left_out | (0 if self.ledger is None else self.ledger.excluded)

    def out_notice(self) -> wire.LeftOut:
        """The same as a message."""
        return wire.LeftOut(self.view.epoch, self.view.ring, self.view.to_wire(self.out))

    def appointment(self, identity: str) -> list[To]:
        """What the present head is told: that it is, and whom to leave out."""
        view, ledger = self.view, self.ledger
        if ledger is None or view.head_of(ledger.term) != self.positions[identity]:
            return []
        out = [To(identity, wire.Appoint(view.epoch, view.ring, ledger.term))]
        return [*out, To(identity, self.out_notice())] if self.out else out

    def absence_notices(self, identity: str) -> list[To]:
        """What a member must know of those who were revoked, and of those who are left out."""
        view, out = self.view, []
        if self.expelled:
            out.append(To(identity, wire.Expelled(view.epoch, view.ring, view.to_wire(self.expelled))))
        if self.out:
            out.append(To(identity, self.out_notice()))
        return out


class AreaEpoch:
    """One epoch of one area."""

    def __init__(
        self,
        suite: Suite,
        parts: Sequence[AreaPart],
        seed: bytes,
        intermediates: Sequence[bytes],
        windows: Windows,
    ) -> None:
        """The parts' calls share number, calendar and schema."""
        self.call = parts[0].call
        self.phase = Phase.CALLED
        self.rounds = self.call.rounds  # that it holds: fewer than it was called for where the next one begins earlier
        self.called_s = -_NEVER  # where we have called it since our start
        self.rings: list[EpochRing] = []
        self.refusal = ""
        self._suite = suite
        self._parts = tuple(parts)
        self._seed = seed
        self._secrets = LedgerSecrets(suite, seed)
        self._intermediates = tuple(intermediates)
        self._windows = windows
        self._place: dict[str, tuple[EpochRing, int]] = {}
        self._layouts: dict[int, wire.EpochLayout] = {}
        self._spot_checks: Counter[str] = Counter()
        self._deal_until_s = _NEVER

    @property
    def joined(self) -> int:
        """How many gateways have joined."""
        return sum(len(part.joined) for part in self._parts)

    @property
    def tries(self) -> int:
        """For how many lists its gateways have shown values, at most."""
        return max(part.call.try_ + (part.list_digest != b"") for part in self._parts)

    @property
    def withheld(self) -> frozenset[str]:
        """The gateways that withheld their values."""
        return frozenset().union(*(part.withheld for part in self._parts))

    @property
    def is_short(self) -> bool:
        """Whether too few gateways joined for the epoch, or a part of it, to be held."""
        return any(part.is_short for part in self._parts)

    @property
    def absent(self) -> frozenset[str]:
        """The gateways that were called and have not joined."""
        return frozenset().union(*(part.absent for part in self._parts))

    @property
    def members(self) -> frozenset[str]:
        """The gateways that sit in a ring."""
        return frozenset(self._place)

    @property
    def over(self) -> bool:
        """Whether nothing can happen any more."""
        if self.phase is Phase.REFUSED:
            return True
        return self.phase is Phase.RUNNING and all(self.has_ended(ring) for ring in self.rings)

    def has_ended(self, ring: EpochRing) -> bool:
        """Whether all rounds of a ring that are held have ended."""
        return ring.ledger is not None and len(ring.ledger.ended) >= self.rounds

    def end_s(self) -> float:
        """When the last round's time is over."""
        return registration_grid(self.call).time_s(self.rounds)

    def hold_until(self, start_s: float) -> None:
        """Hold no round that begins at `start_s` (Unix, s) or later: it is the next epoch's."""
        self.rounds = min(self.call.rounds, max(0, registration_grid(self.call).index_at(start_s)))

    def place_of(self, identity: str) -> tuple[EpochRing, int] | None:
        """A gateway's ring and position."""
        return self._place.get(identity)

    # --- joining -------------------------------------------------------------------------------------------------

    def part_for(self, identity: str) -> AreaPart:
        """The part of the area in which a gateway stands."""
        return self._parts[part_of(self.call.area, identity, self.call.split_bits)]

    def invite(self, identity: str) -> list[To]:
        """A gateway is here (again): whatever it needs to take part."""
        part = self.part_for(identity)
        if self.phase is Phase.CALLED:
            return part.greeting(identity)
        place = self._place.get(identity)
        if place is None or self.phase is Phase.REFUSED:
            return []
        ring, position = place
        out = [*part.greeting(identity), To(identity, self._layouts[ring.view.ring]), *ring.absence_notices(identity)]
        if self.phase is Phase.RUNNING:
            out.append(To(identity, self._deals_for(ring, position)))
            if ring.head_at is not None:
                out.append(To(identity, ring.head_at))
            out += ring.appointment(identity)
        return out

    def join(self, identity: str, joined: Joined, now_s: float) -> list[To]:
        """A gateway's fresh key and commitment; the first one of a try stands."""
        if self.phase is not Phase.CALLED:
            return []
        return [*self.part_for(identity).join(identity, joined, now_s), *self._cut_if_settled(now_s)]

    def reveal(self, identity: str, message: wire.BeaconReveal, now_s: float) -> list[To]:
        """A gateway's value.  Raises RemoteProtocolError for one that was not committed to."""
        if self.phase is not Phase.CALLED or not self.part_for(identity).reveal(identity, message):
            return []
        return self._cut_if_settled(now_s)

    def _cut_if_settled(self, now_s: float) -> list[To]:
        """Once it is known what becomes of every part: cut the rings, send each gateway its own."""
        if not all(part.is_settled for part in self._parts):
            return []
        out = [to for part in self._parts if part.stage is Stage.DRAWN for to in self._cut(part)]
        if not self.rings:
            self.phase = Phase.REFUSED
            self.refusal = "; ".join(part.refusal for part in self._parts)
            return out
        for ring in self.rings:
            layout = self._layouts[ring.view.ring]
            for identity, position in ring.positions.items():
                self._place[identity] = ring, position
                out.append(To(identity, layout))
        self.phase = Phase.DEALING
        self._deal_until_s = now_s + max(1.0, self.call.start_ms / 1000 - now_s) * 0.75
        return out

    def _cut(self, part: AreaPart) -> list[To]:
        """Make the rings of a part and their layouts; returns the refusals where they cannot be."""
        made = []
        result_key = self._secrets.result_key
        try:
            for index, identities in enumerate(part.rings()):
                joined = ((each, part.joined[each]) for each in identities)
                members = [(each, its.public_key, its.curve_key, its.verify_key, its.nonce) for each, its in joined]
                number = ring_number(index, part.call.split_bits, part.call.part)
                area_size = len(part.joined) << part.call.split_bits
                view = make_view(part.call, number, members, area_size, part.list_digest, result_key)
                made.append(EpochRing(view, {each: position for position, each in enumerate(identities)}))
        except LocalProtocolError as error:
            return part.refuse(f"area {self.call.area} cannot form rings: {error}")
        for ring in made:
            layout = self._layouts[ring.view.ring] = self._layout(part, ring)
            if (size := len(wire.encode(layout))) > _LAYOUT_SIZE_MAX:
                return part.refuse(
                    f"area {self.call.area} is too large for its rings: a layout of {size} bytes, of at most"
                    f" {_LAYOUT_SIZE_MAX}"
                )
        self.rings += made
        return []

    def _layout(self, part: AreaPart, ring: EpochRing) -> wire.EpochLayout:
        return wire.EpochLayout(
            self.call.epoch, part.call.try_, part.values, ring.view.ring, part.rows(ring.positions),
            self._intermediates, self._secrets.result_key,
        )  # fmt: skip

    def spot_check(self, identity: str, message: wire.SpotCheck) -> list[To]:
        """The joins that a gateway asks for, a few times in an epoch: they are the largest answer that it can get."""
        part = self.part_for(identity)
        self._spot_checks[identity] += 1
        is_too_often = self._spot_checks[identity] > SPOT_CHECKS_MAX
        if is_too_often or message.try_ != part.call.try_ or identity not in part.joined:
            return []
        rows = part.rows(each for each in message.members if each in part.joined)
        return [To(identity, wire.SpotCheckAnswer(self.call.epoch, message.try_, rows))]

    def give_up(self, reason: str) -> list[To]:
        """The epoch will not come about: whoever joined gets the reason."""
        self.phase = Phase.REFUSED
        self.refusal = reason
        self.rings.clear()
        self._place.clear()
        return [to for part in self._parts for to in part.refuse(reason)]

    # --- dealing -------------------------------------------------------------------------------------------------

    def deal(self, identity: str, message: wire.Deal, now_s: float) -> list[To]:
        """Sealed shares for the sender's neighbours; late ones are passed on at once."""
        ring, position = self._require(identity)
        view = ring.view
        targets = [other for other, _ in message.sealed]
        if targets != positions_of(view.neighbourhoods[position]) or len(message.commitments) != view.t:
            raise RemoteProtocolError("bad_deal", f"expected {view.t} commitments and one share for each neighbour")
        if position in ring.deals:
            return []
        text = deal_text(view, position, message.commitments, message.sealed)
        if not self._suite.verify(view.members[position].verify_key, text, message.signature):
            raise RemoteProtocolError("bad_signature", "a deal that its gateway did not sign")
        ring.deals[position] = message
        if self.phase is Phase.RUNNING:
            return [
                To(view.members[other].identity, wire.Deals(view.epoch, ((position, message.commitments, sealed),)))
                for other, sealed in message.sealed
            ]
        if all(len(each.deals) == each.view.size for each in self.rings):
            return self._run(now_s)
        return []

    def _deals_for(self, ring: EpochRing, position: int) -> wire.Deals:
        dealt = []
        for dealer, deal in ring.deals.items():
            if (sealed := dict(deal.sealed).get(position)) is not None:
                dealt.append((dealer, deal.commitments, sealed))
        return wire.Deals(self.call.epoch, tuple(dealt))

    def _run(self, now_s: float) -> list[To]:
        self.phase = Phase.RUNNING
        out: list[To] = []
        for ring in self.rings:
            out += [To(each, self._deals_for(ring, position)) for each, position in ring.positions.items()]
            ring.since_s = now_s
            ledger = ring.ledger = RoundLedger(self._suite, ring.view, self._secrets, now_s, deals=ring.deals)
            ledger.expel(ring.expelled, now_s)
            head = ring.view.members[ring.view.head_of(ledger.term)].identity
            out += ring.appointment(head)
        return out

    def _require(self, identity: str) -> tuple[EpochRing, int]:
        place = self._place.get(identity)
        if place is None:
            raise RemoteProtocolError("not_a_member", "a gateway that sits in no ring of this epoch")
        return place

    def expel(self, identities: frozenset[str]) -> list[tuple[EpochRing, list[To]]]:
        """Gateways that were revoked: for each ring that has new ones among its members, what the others get."""
        out = []
        for ring in self.rings:
            gone = bitmap([ring.positions[each] for each in identities & ring.positions.keys()])
            if gone & ~ring.expelled:
                ring.expelled |= gone
                others = ring.positions.keys() - identities
                out.append((ring, [to for each in others for to in ring.absence_notices(each)]))
        return out

    # --- time ----------------------------------------------------------------------------------------------------

    def next_timer_s(self) -> float:
        """When a window closes or deals must be in; the ledgers keep their own time."""
        if self.phase is Phase.CALLED:
            return min(part.until_s for part in self._parts)
        return self._deal_until_s if self.phase is Phase.DEALING else _NEVER

    def on_timer(self, now_s: float) -> list[To]:
        """A window has closed."""
        if now_s < self.next_timer_s():
            return []
        if self.phase is Phase.DEALING:
            return self._run(now_s)
        out = [to for part in self._parts if now_s >= part.until_s for to in part.on_window_over(now_s)]
        return [*out, *self._cut_if_settled(now_s)]

    # --- a restart of the coordinator ------------------------------------------------------------------------------

    def to_state(self) -> bytes:
        """Everything that the rings and their ledgers follow from; holds the seed of its keys, so keep it close."""
        deals = [
            (ring.view.ring, dealer, wire.encode(deal)) for ring in self.rings for dealer, deal in ring.deals.items()
        ]
        windows = astuple(self._windows)
        parts = [part.to_state() for part in self._parts]
        state: bytes = msgpack.packb((parts, self._seed, self._intermediates, windows, bool(self.rings), deals))
        return state

    @classmethod
    def from_state(
        cls, suite: Suite, state: bytes, ended: Sequence[Ended], now_s: float, sign_list: Callable[[bytes], bytes]
    ) -> AreaEpoch:
        """
        The epoch as it was; rounds that ended stay ended, a try goes on.

        Terms go on one full turn of the ring after the last one recorded: the same head, and above every term that a
        member may know of in the meantime.  Raises RemoteProtocolError for a state that another release kept.
        """
        try:
            parts, seed, intermediates, numbers, is_laid_out, deals = msgpack.unpackb(state, use_list=False)
            windows = Windows(*numbers)
            made = [AreaPart.from_state(part, windows, sign_list, now_s) for part in parts]
        except (ValueError, TypeError) as error:
            raise RemoteProtocolError("malformed_message", "expected an epoch that this release kept") from error
        epoch = cls(suite, made, seed, intermediates, windows)
        if not is_laid_out:
            return epoch
        epoch._cut_if_settled(now_s)
        rings = {ring.view.ring: ring for ring in epoch.rings}
        for number, dealer, data in deals:
            deal = wire.decode(data, frozenset({wire.Deal}))
            if isinstance(deal, wire.Deal):
                rings[number].deals[dealer] = deal
        if epoch.phase is Phase.DEALING:
            epoch.phase = Phase.RUNNING
            for ring in epoch.rings:
                mine = {each.round: each for each in ended if each.ring == ring.view.ring}
                term = max((each.term for each in mine.values()), default=0) + ring.view.size
                ring.since_s = now_s
                ring.ledger = RoundLedger(suite, ring.view, epoch._secrets, now_s, mine, term, ring.deals)
        return epoch

    def greet_again(self, identity: str) -> list[To]:
        """A gateway that knows this epoch is still there: who is its head?"""
        place = self._place.get(identity)
        if place is None or place[0].ledger is None:
            return []
        ring, position = place
        out: list[To] = []
        if position not in ring.deals:  # it may have dealt just before we were restarted: it deals the same again
            out.append(To(identity, self._layouts[ring.view.ring]))
        out += ring.absence_notices(identity)
        if ring.head_at is not None:
            out.append(To(identity, ring.head_at))
        else:
            out += ring.appointment(identity)
        return out
