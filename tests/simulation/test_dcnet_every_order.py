"""
Every order of everything a lying head can say to a real member machine, restarts in between: a small model check.

The first half is the member alone.  From its start, every message of a menu is tried in every state that can be reached
(OPEN with every E, ROSTER with every U, confirmations enough and too few, recoveries, results, in two attempts), and
after each the power may fail before any of the instructions is carried out.  States are told apart by all that the
machine remembers, what is durable, and what it has given away; the search ends when there are no new ones, so orders of
any length are covered.  The rules of section 6 are checked at every step.

The second half puts members together.  A member's answers depend on the others only through their MACs, so whatever
each of them can have done by itself, all of them can have done together, if every reveal finds its t_c confirmations.
From these the sums that open follow by arithmetic; no reading may be in two.
"""

import copy
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, product
from typing import Any

import pytest

from loadtest.lying_head import LyingHead
from loadtest.ring import RingSize
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.machines.effects import Attempted, MemberEffect, Persist, Progress, Settled, ToHead
from protocol.dcnet.machines.masks import MaskSchedule
from protocol.dcnet.machines.member import Member
from protocol.dcnet.machines.member_attempt import Resume
from protocol.dcnet.setup.rings import bitmap, positions_of
from protocol.errors import InvariantError, RemoteProtocolError

FOUR = RingSize(n=4, k=3, t=2, t_c=2, k_min=2, n_min=3, rounds=2)
FIVE = RingSize(n=5, k=4, t=3, t_c=3, k_min=3, n_min=4, rounds=2)
# The search of a ring of five takes half an hour: `make acceptance-orders`.
SIZES = {"four": FOUR} | ({"five": FIVE} if "STROMKREIS_EVERY_RING" in os.environ else {})
ATTEMPTS = (0, 1)
# Clocks decide when a timer complains, never what a message does; the rest is the same for ever.
NOT_STATE = {
    "_deadline_s", "_heard_s", "_complained",
    "view", "position", "_place", "events",
}  # fmt: skip

Given = frozenset[tuple[Any, ...]]  # what has been sent: ("share", attempt, E), ("confirm", attempt, E, U), ...


class Broken(AssertionError):
    """A rule does not hold."""


@dataclass(frozen=True)
class Node:
    """One state of the member's world."""

    member: Member
    durable: Resume
    given: Given

    def key(self) -> object:
        kept = [value for name, value in vars(self.member).items() if name not in NOT_STATE]
        process = self.member.incarnation
        return repr(kept), process.last, process.least_settled, self.durable, self.given


def own_process(masks: MaskSchedule) -> MaskSchedule:
    """The same masks for a process that goes on from where this one is; the nonces stay what they are."""
    other = copy.copy(masks)
    other.incarnation = copy.copy(masks.incarnation)
    other.incarnation.history = masks.incarnation.history.copy()
    return other


def copied(member: Member) -> Member:
    """A member that goes on from where this one is, its process and all; what never changes is shared."""
    other = copy.copy(member)
    other._place = copy.copy(member._place)
    object.__setattr__(other._place, "masks", own_process(member._place.masks))
    other._returns = copy.copy(member._returns)
    return other


class Explorer:
    """Searches all that can happen to the member at position 0 of a ring."""

    def __init__(self, size: RingSize, kind: type[Member] = Member) -> None:
        self.size = size
        self.kind = kind
        self.liar = LyingHead(CheapSuite(), size)
        self.started: dict[Resume, Member] = {}
        everybody = range(size.n)
        self.sets = [frozenset(each) for m in (size.n_min, size.n) for each in combinations(everybody, m) if 0 in each]
        wrong = [frozenset(everybody) - {0}, frozenset(range(size.n_min - 1))]  # without it, and too small
        self.fixed: list[wire.RingMessage] = [
            say(attempt, members)
            for attempt, members in product(ATTEMPTS, self.sets + wrong)
            for say in (self.liar.open, self.roster)
        ]  # fmt: skip
        self.fixed += [self.liar.recover({0}, attempt) for attempt in ATTEMPTS]
        self.fixed += [self.liar.result(0), self.liar.result(0, wire.Outcome.VOID)]

    def roster(self, attempt: int, members: frozenset[int]) -> wire.Roster:
        return self.liar.roster(members, attempt)

    def start(self, durable: Resume) -> Member:
        if (member := self.started.get(durable)) is None:
            liar = self.liar
            masks = own_process(liar.masks)  # which has used none of them
            member = self.started[durable] = self.kind(liar.suite, liar.view, liar.secrets[0], masks, durable)
            member.appointed(0, 0.0)
        return member

    def menu(self, member: Member) -> Iterator[wire.RingMessage | None]:
        """All that can be said; None stands for the driver's offer.  Whoever the member would refuse is there too."""
        liar = self.liar
        yield None
        yield from self.fixed
        expected, roster = positions_of(member.current.expected), positions_of(member.current.roster)
        neighbours = [i for i in roster if i]
        for attempt in ATTEMPTS:
            for count in (self.size.t_c - 1, self.size.t_c):
                yield liar.confirmed(neighbours[:count], roster, expected, attempt=attempt)
            yield liar.recover({1}, attempt)
            yield liar.recover(set(neighbours), attempt)

    def explore(self) -> set[Given]:
        """All that the member can be brought to give away; raises Broken where a rule does not hold."""
        first = Node(self.start(Resume()), Resume(), frozenset())
        seen = {first.key()}
        waiting = deque([first])
        given = {first.given}
        while waiting:
            node = waiting.popleft()
            for after in self.successors(node):
                if (key := after.key()) not in seen:
                    seen.add(key)
                    given.add(after.given)
                    waiting.append(after)
        self.states = len(seen)
        return given

    def successors(self, node: Node) -> Iterator[Node]:
        yield replace(node, member=self.start(node.durable))
        for message in self.menu(node.member):
            member = copied(node.member)
            try:
                out = member.receive(message, 0.0) if message else member.offer(0, self.liar.vector(), 0.0)
            except RemoteProtocolError:
                continue  # nothing changes then: that is what the tests of the member show
            except InvariantError as error:
                raise Broken(f"the table: {error}") from error
            for carried_out in range(len(out) + 1):
                durable, given = self.carry_out(node, member, out[:carried_out])
                if carried_out < len(out):
                    yield Node(self.start(durable), durable, given)
                else:
                    yield Node(member, durable, given)

    def carry_out(self, node: Node, member: Member, out: list[MemberEffect]) -> tuple[Resume, Given]:
        durable, given = node.durable, node.given
        for each in out:
            match each:
                case Persist(Settled()):
                    durable = replace(durable, settled=True)
                case Persist(Attempted() as record):
                    durable = Resume(record.round, record.attempt, record.progress, settled=False)
                case ToHead(message):
                    events = list(self.events(member, message))
                    if any(event in given for event in events):
                        raise Broken(f"said twice: {events}")
                    given |= set(events)
                    self.check(message, durable, given)
        return durable, given

    def events(self, member: Member, message: wire.Message) -> Iterator[tuple[Any, ...]]:
        expected, roster = member.current.expected, member.current.roster
        match message:
            case wire.MaskedInput():
                yield "share", message.attempt, expected
            case wire.Confirm():
                gone = expected & ~roster
                words = self.liar.masks.words(0, message.attempt, gone).tobytes() if gone else b""
                if message.dropped != words:
                    raise Broken("rule 2: words towards somebody in the roster")
                yield "confirm", message.attempt, expected, roster
            case wire.Reveal():
                yield "reveal", message.attempt
            case wire.Partial():
                yield "help", message.attempt, message.silent

    def check(self, message: wire.Message, durable: Resume, given: Given) -> None:
        """The rules, over all that was ever given away."""
        shares = [each for each in given if each[0] == "share"]
        confirms = {each[1]: each for each in given if each[0] == "confirm"}
        served = {each[1] for each in given if each[0] in {"reveal", "help"}}
        if len(served) > 1 or any(share[1] > attempt for attempt in served for share in shares):
            raise Broken("rule 1: two attempts of a round")
        for attempt in served:
            if attempt not in confirms or ("reveal", attempt) not in given:
                raise Broken("rule 3: revealed or helped without confirmations")
        for _, attempt, silent in (each for each in given if each[0] == "help"):
            if not confirms[attempt][3] >> silent & 1 or silent == 0:
                raise Broken("rule 2: helped to recover somebody outside the roster")
        if len({share[1] for share in shares}) < len(shares):
            raise Broken("rule 4: two E for one attempt")
        if len(confirms) < len([each for each in given if each[0] == "confirm"]):
            raise Broken("rule 4: two rosters for one attempt")
        for _, _, expected, *roster in (each for each in given if each[0] in {"share", "confirm"}):
            for members in (expected, *roster):
                if not members & 1 or members & ~expected or members.bit_count() < self.size.n_min:
                    raise Broken("rule 4: an E or U that may not be")
        if isinstance(message, wire.MaskedInput) and durable != Resume(
            0, message.attempt, Progress.SHARED, settled=False
        ):
            raise Broken("rule 5: shared before it was durable")
        if isinstance(message, wire.Reveal | wire.Partial) and durable.progress is not Progress.SERVED:
            raise Broken("rule 5: revealed before it was durable")


@cache
def explored(size: RingSize) -> frozenset[Given]:
    return frozenset(Explorer(size).explore())


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_no_order_of_messages_and_restarts_breaks_a_rule(size: RingSize) -> None:
    given = explored(size)
    # The search reached everything there is to reach: every roster confirmed, every attempt served.
    rosters = {each[1:] for history in given for each in history if each[0] == "confirm"}
    large = [bitmap(list(each)) for each in Explorer(size).sets]
    assert rosters == {(a, e, u) for a in ATTEMPTS for e in large for u in large if not u & ~e}
    assert {each[1] for history in given for each in history if each[0] == "reveal"} == set(ATTEMPTS)


class ForgetsItServed(Member):
    """Rule 1 gone: a served attempt does not end the round for it."""

    def _on_confirmed(self, message: wire.Confirmed, now_s: float) -> list[MemberEffect]:
        out = super()._on_confirmed(message, now_s)
        self._round_closed = False
        return out


class SharesFirst(Member):
    """Rule 5 gone: what leaves, leaves before it is durable."""

    def _on_open(self, message: wire.Open, now_s: float) -> list[MemberEffect]:
        return super()._on_open(message, now_s)[::-1]


class HelpsAnybody(Member):
    """Rule 2 gone: everybody is in its roster when it is asked for help."""

    def _on_recover(self, message: wire.Recover, now_s: float) -> list[MemberEffect]:
        roster = self.current.roster
        self.current = replace(self.current, roster=self.view.everybody)
        out = super()._on_recover(message, now_s)
        self.current = replace(self.current, roster=roster)
        return out


class ConfirmsAgain(Member):
    """Rule 4 gone: it forgets which roster it confirmed."""

    def _on_roster(self, message: wire.Roster, now_s: float) -> list[MemberEffect]:
        self.state = type(self.state).SHARED
        return super()._on_roster(message, now_s)


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (ForgetsItServed, "the table: a Open led to shared"),
        (SharesFirst, "rule 5"),
        (HelpsAnybody, "rule 2"),
        (ConfirmsAgain, "rule 4|twice"),
    ],
)
def test_a_missing_rule_is_noticed(kind: type[Member], rule: str) -> None:
    with pytest.raises(Broken, match=rule):
        Explorer(FOUR, kind).explore()


# --- together -------------------------------------------------------------------------------------------------------

View = tuple[int, int] | None  # (E, U) of one member in one attempt, U = 0 before it confirmed; None: it did not share


def views_of(given: Given) -> tuple[View, ...]:
    """What one history comes to, attempt by attempt."""
    views: dict[int, View] = {}
    for each in sorted(given, key=lambda event: event[0] == "confirm"):
        if each[0] in {"share", "confirm"}:
            views[each[1]] = (each[2], each[3] if each[0] == "confirm" else 0)
    return tuple(views.get(attempt) for attempt in ATTEMPTS)


def turned(view: View, position: int, n: int) -> View:
    """The view that the member at `position` has where the one at 0 has `view`: everybody is everybody's neighbour."""
    if view is None:
        return None
    turn = [sum(1 << (i + position) % n for i in positions_of(members)) for members in view]
    return turn[0], turn[1]


def opened(size: RingSize, views: tuple[View, ...], served: int) -> set[int]:
    """The members whose sum the head can open in one attempt, if those in `served` reveal and help all they may."""
    known = served
    for i, view in enumerate(views):
        helpers = sum(1 for s in positions_of(served) if s != i and (views[s] or (0, 0))[1] >> i & 1)
        if view is not None and helpers >= size.t:
            known |= 1 << i
    sums = set()
    for members in range(1, 1 << size.n):
        if members & ~known:
            continue
        inside = positions_of(members)
        # The words towards others than U may be taken off or not; towards those outside the sum none may be left.
        choices = [[edges & ~(1 << i) for edges in set(views[i] or ()) if edges] for i in inside]
        for edges in product(*choices):
            towards = dict(zip(inside, edges, strict=True))
            if all(
                not each & ~members and all(towards[j] >> i & 1 for j in positions_of(each))
                for i, each in towards.items()
            ):
                sums.add(members)
                break
    return sums


@dataclass
class Openable:
    """What can be opened in one attempt, over all views that members can be brought to."""

    smallest: int
    by_served: dict[int, int]  # those who served -> all readings that are in some sum then
    by_shared: dict[int, int]  # the same by those who shared


def openable(size: RingSize, kinds: set[View]) -> Openable:
    found = Openable(size.n, {}, {})
    choices = [[turned(view, position, size.n) for view in kinds] for position in range(size.n)]
    for views in product(*choices):
        able, shared = 0, 0
        for i, view in enumerate(views):
            if view is not None:
                same = [j for j in positions_of(view[1]) if j != i and views[j] == view]
                able |= (view[1] > 0 and len(same) >= size.t_c) << i
                shared |= 1 << i
        served = able
        while served:
            for members in opened(size, views, served):
                found.smallest = min(found.smallest, members.bit_count())
                found.by_served[served] = found.by_served.get(served, 0) | members
                found.by_shared[shared] = found.by_shared.get(shared, 0) | members
            served = (served - 1) & able
    return found


def reading_twice(found: Openable) -> bool:
    """Whether some reading can be in a sum of either attempt: who served in the first does not share in the second."""
    pairs = product(found.by_served.items(), found.by_shared.items())
    return any(first & second for (served, first), (shared, second) in pairs if not served & shared)


def kinds_of(size: RingSize) -> set[View]:
    """All views that a real member can be brought to; those of five are shown only the full E, to keep it short."""
    kinds: set[View] = set()
    for given in explored(size):
        views = views_of(given)
        kinds |= set(views)
        served = {each[1] for each in given if each[0] in {"reveal", "help"}}
        assert all(views[later] is None for attempt in served for later in ATTEMPTS if later > attempt)
    everybody = (1 << size.n) - 1
    return kinds if size.n == 4 else {view for view in kinds if view is None or view[0] == everybody}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_no_small_sum_opens_and_no_reading_is_in_two(size: RingSize) -> None:
    found = openable(size, kinds_of(size))
    assert found.smallest >= size.n_min
    assert not reading_twice(found)


def test_lower_thresholds_would_be_noticed() -> None:
    """With t and t_c at half of the neighbours, a reading may be in two sums."""
    assert reading_twice(openable(replace(FOUR, t=1, t_c=1), kinds_of(FOUR)))
