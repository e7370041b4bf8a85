"""
Views: what a coalition holds of a transcript.  Attacks receive these and nothing else.

A view has the series that the coalition can compute (`derivation`), each under the name that it knows them by, and
the links whose traffic it sees: who sent to whom and when, without content.  A listener on the WAN sees the traffic of
every link; all links are encrypted, so it reads no payload.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtest.lab.derivation import Opened, derive, parties_of
from loadtest.lab.transcript import GWA, HEAD, STORE, TTP, WAN, Batch, Transcript

ROLES = ("emp", GWA, HEAD, TTP, "authority", STORE, "left", "right", WAN)
ROLE_TITLES = {
    "emp": "market participant (EMP)", GWA: "gateway administrator", HEAD: "head or key aggregator of the ring",
    TTP: "trusted third party", "authority": "key authority", STORE: "storage or aggregation server",
    "left": "left neighbour in the ring", "right": "right neighbour in the ring", WAN: "listener on the WAN",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Series:
    """
    Values over slots that a coalition can compute.

    `households` are those whose sum it is, where the coalition knows them; None with `pseudonym` set otherwise.
    """

    households: tuple[int, ...] | None
    pseudonym: int | None
    slots: NDArray[np.int64]
    values: NDArray[np.int64]
    quantity: str

    @property
    def members(self) -> int:
        """How many households are in it."""
        return 1 if self.households is None else len(self.households)


@dataclass(frozen=True, slots=True)
class Link:
    """When messages went from one party to another; `sender` is a party, a household's number or a pseudonym's."""

    kind: str
    sender: int
    receiver: str
    slots: NDArray[np.int64]
    times_s: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class View:
    """All that a coalition holds."""

    coalition: frozenset[str]
    slot_s: int
    series: tuple[Series, ...] = ()
    links: tuple[Link, ...] = ()

    def best_of(self, household: int, quantity: str = "power_w") -> Series | None:
        """The series of the fewest members that is known to contain the household."""
        known = [
            each for each in self.series
            if each.quantity == quantity and each.households is not None and household in each.households
        ]  # fmt: skip
        return min(known, key=lambda each: len(each.households or ()), default=None)

    def finest(self, slots: int, quantity: str = "power_w") -> list[Series]:
        """Of the series of so many slots those of the fewest members; under a pseudonym there is one."""
        whole = [each for each in self.series if each.quantity == quantity and len(each.slots) == slots]
        fewest = min((each.members for each in whole), default=0)
        return [each for each in whole if each.members == fewest]

    def pseudonymous(self, quantity: str = "power_w") -> list[Series]:
        """The series without a name."""
        return [each for each in self.series if each.pseudonym is not None and each.quantity == quantity]


def view_of(
    transcript: Transcript, coalition: frozenset[str], target: int | None = None, *, traffic: bool = False
) -> View:  # fmt: skip
    """
    What the coalition holds; `target` is the household whose neighbours `left` and `right` are (default: none).

    Links are listed where `traffic` asks for them: with a pseudonym for each message they are as many as messages.

    Raises ValueError where a coalition with neighbours has no target.
    """
    if coalition & {"left", "right"} and target is None:
        raise ValueError("the neighbours of nobody: a coalition with left or right needs a target")
    series: list[Series] = []
    links: list[Link] = []
    for batch in transcript.batches:
        place = np.flatnonzero(batch.group == target) if target is not None else np.array([], np.int64)
        if coalition & {"left", "right"} and not len(place):
            continue
        parties = parties_of(coalition, batch.shape, int(place[0]) if len(place) else 0)
        for opened in derive(batch.shape, parties):
            series.extend(_series(batch, opened))
        if traffic:
            links.extend(_links(batch, parties))
    return View(coalition, transcript.slot_s, tuple(series), tuple(links))


def _series(batch: Batch, opened: Opened) -> list[Series]:
    factors = np.zeros(batch.submitted.shape[1], np.int64)
    positions = list(opened.readings)
    factors[positions] = list(opened.readings.values())
    # A sum of all is taken where the readings are: a copy of a large group takes longer than to add it.
    chosen = slice(None) if len(positions) == len(factors) else positions
    values = np.einsum("tp,p->t", batch.submitted[:, chosen], factors[chosen])
    if opened.alias_of is None or batch.aliases is None:
        members = tuple(int(batch.group[position]) for position in opened.readings)
        return [Series(members, None, batch.slots, values, batch.quantity)]
    aliases = batch.aliases[:, opened.alias_of]
    # With a pseudonym for every message there is nothing to sort by: found once, they are sliced.
    order = np.argsort(aliases, kind="stable")
    cuts = np.flatnonzero(np.diff(aliases[order])) + 1
    return [
        Series(None, int(aliases[part[0]]), batch.slots[part], values[part], batch.quantity)
        for part in np.split(order, cuts)
    ]


def _links(batch: Batch, parties: frozenset[str]) -> list[Link]:
    found = []
    for index, message in enumerate(batch.shape.messages):
        ends = {message.sender, message.receiver} & parties
        if not ends and WAN not in parties:
            continue
        if message.alias and message.receiver in parties and batch.aliases is not None:
            aliases = batch.aliases[:, index]
            for alias in np.unique(aliases):
                chosen = aliases == alias
                found.append(
                    Link("pseudonym", int(alias), message.receiver, batch.slots[chosen], batch.times_s[chosen, index])
                )
        elif message.sender.startswith("meter:") and not message.alias:
            household = int(batch.group[int(message.sender.partition(":")[2])])
            found.append(Link("household", household, message.receiver, batch.slots, batch.times_s[:, index]))
    return found


def exposure(shape_size: int, opened: tuple[Opened, ...], target: int) -> tuple[str, int]:
    """The least that hides the member at `target`: ("named" | "pseudonym" | "sum" | "nothing", members of it)."""
    mine = [each for each in opened if target in each.readings]
    if not mine:
        return "nothing", shape_size
    best = min(mine, key=lambda each: (len(each.readings), each.alias_of is not None))
    if not best.is_single:
        return "sum", len(best.readings)
    return ("named" if best.alias_of is None else "pseudonym"), 1
