"""
One round of the ring protocol, abstractly: from the rosters that a lying head shows to what it can compute.

The head may show every member i a roster V_i of its own, or none. The members keep the rules; the corrupt ones, the
head and the coordinator pool everything. Who learns which mask then follows, and from that exactly which sums open:

- A member that was shown V_i reveals its masks towards neighbours outside of V_i at once (CONFIRM). Masks towards
  corrupt members are known anyhow.
- It acts (reveals its self mask and helps its neighbours in V_i) if t_c of its neighbours in V_i confirmed the same
  roster; corrupt neighbours confirm anything. A self mask is open if its owner acts, or if at least t neighbours help,
  corrupt ones always.

Which sums are determined? The shares are y_i = x_i + b_i + Σ ±m_ij with independent uniform masks. A combination Σ a_i
y_i is free of unknown masks if and only if a_i = 0 wherever b_i is closed, and a_i = a_j for every honest pair whose
mask nobody revealed: m_ij enters with a_i - a_j. So a is constant on every connected component of the graph of
unrevealed pairs, and 0 on every component that has a closed member. The determined sums are the span of the indicators
of the components all of whose self masks are open, and any other combination is uniformly distributed. The smallest set
that opens is the smallest such component. (The matrix is a graph's, totally unimodular: the same over Z/2^64 as over a
field. `algebra.py` recomputes it by elimination, for the tests.)

Two attempts share only the readings and rule 1: members that act in the first are `absent` from the second, and the
others `may_act` in it only. A mask towards an absent member has no counterpart and closes its owner unless revealed.

The expected set E is everybody for everyone. That is the worst case: if the head shows i an E without j, then m_ij is
missing in y_i as if it were revealed, but stays closed in y_j, and i reveals nothing that would open it there.

Everything works on columns: views have the shape (n, combinations), one bitmask of members per entry.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.uint16]

RING_SIZE_MAX = 16


@dataclass(frozen=True, slots=True)
class Ring:
    """
    A ring of n <= 16 with its thresholds; `corrupt` are positions.

    `help_needs_confirmations` False is the protocol without the second half of rule 3: a member helps its neighbours as
    soon as it has confirmed.
    """

    n: int
    k: int
    t: int
    t_c: int
    k_min: int
    n_min: int
    corrupt: tuple[int, ...] = ()
    help_needs_confirmations: bool = True

    @property
    def everybody(self) -> int:
        """All positions as a bitmask."""
        return (1 << self.n) - 1

    @property
    def corrupt_mask(self) -> int:
        """The corrupt positions as a bitmask."""
        return sum(1 << position for position in self.corrupt)

    @property
    def honest(self) -> tuple[int, ...]:
        """The honest positions."""
        return tuple(i for i in range(self.n) if i not in self.corrupt)

    def neighbours(self, i: int) -> tuple[int, ...]:
        """The k positions next to i; all others if k = n - 1."""
        if self.k == self.n - 1:
            return tuple(j for j in range(self.n) if j != i)
        half = self.k // 2
        return tuple((i + step) % self.n for step in range(-half, half + 1) if step)

    def neighbour_mask(self, i: int) -> int:
        """The neighbours as a bitmask."""
        return sum(1 << j for j in self.neighbours(i))

    def admissible(self, i: int) -> Masks:
        """The rosters that member i accepts (rule 4): with itself, n_min members, k_min of its neighbours."""
        rosters = np.arange(1 << self.n, dtype=np.uint16)
        accepted = (
            (rosters >> i & 1 == 1)
            & (np.bitwise_count(rosters) >= self.n_min)
            & (np.bitwise_count(rosters & self.neighbour_mask(i)) >= self.k_min)
        )
        chosen: Masks = rosters[accepted]
        return chosen

    def without_confirmed_help(self) -> Self:
        """The same ring with the hole that rule 3 closes."""
        return replace(self, help_needs_confirmations=False)


def opened(ring: Ring, views: Masks, *, may_act: int | Masks = 0xFFFF, absent: int | Masks = 0) -> Masks:
    """
    The set with which each member's reading opens, as a bitmask, or 0 where it stays hidden; shape of `views`.

    `views[i]` is the roster shown to member i in each combination, 0 for none; rows of corrupt members are ignored.
    `may_act` and `absent` are bitmasks, one for all combinations or one each; an absent member's view must be 0.
    """
    closed = closed_masks(ring, views, may_act=may_act)
    result = np.zeros_like(views)
    hopeful = np.flatnonzero(closed != ring.everybody & ~ring.corrupt_mask)
    if hopeful.size:
        gone = absent if isinstance(absent, int) else absent[hopeful]
        result[:, hopeful] = _components(ring, views[:, hopeful], closed[hopeful], gone)
    return result


def closed_masks(ring: Ring, views: Masks, *, may_act: int | Masks = 0xFFFF) -> Masks:
    """Whose self masks stay closed, one bitmask for each combination; arguments as for `opened`."""
    confirmed, acts = _confirmations(ring, views, may_act)
    helps = acts if ring.help_needs_confirmations else confirmed & _bits(ring, may_act)
    closed = np.zeros(views.shape[1], np.uint16)
    for i in ring.honest:
        helpers = np.full(views.shape[1], len(set(ring.neighbours(i)) & set(ring.corrupt)), np.uint8)
        for j in ring.neighbours(i):
            if j not in ring.corrupt:
                helpers += (helps[j] & (views[j] >> i & 1 == 1)).view(np.uint8)
        closed |= np.where(acts[i] | (helpers >= ring.t), np.uint16(0), np.uint16(1 << i))
    return closed


def smallest(opened_sets: Masks) -> int:
    """The size of the smallest set among `opened_sets`, 0 if nothing opened."""
    sizes = np.bitwise_count(opened_sets)
    return int(sizes[sizes > 0].min(initial=RING_SIZE_MAX + 1)) % (RING_SIZE_MAX + 1)


def _confirmations(ring: Ring, views: Masks, may_act: int | Masks) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Who confirmed a roster at all, and who may reveal by rule 3."""
    confirmed = views != 0
    acts = np.zeros(views.shape, np.bool_)
    for i in ring.honest:
        count = np.bitwise_count(views[i] & np.uint16(ring.neighbour_mask(i) & ring.corrupt_mask))
        for j in ring.neighbours(i):
            if j not in ring.corrupt:
                count += ((views[j] == views[i]) & (views[i] >> j & 1 == 1)).view(np.uint8)
        acts[i] = confirmed[i] & (count >= ring.t_c)
    return confirmed, acts & _bits(ring, may_act)


def _bits(ring: Ring, members: int | Masks) -> NDArray[np.bool_]:
    positions = np.arange(ring.n, dtype=np.uint16)[:, None]
    bits: NDArray[np.bool_] = np.asarray(members, np.uint16)[None, ...] >> positions & 1 == 1
    return bits


def _components(ring: Ring, views: Masks, closed: Masks, absent: int | Masks) -> Masks:
    kept = np.where(views != 0, views, np.uint16(ring.everybody))
    present = ~np.asarray(absent, np.uint16)
    reach = np.zeros_like(views)
    for i in ring.honest:
        honest_neighbours = np.uint16(ring.neighbour_mask(i) & ~ring.corrupt_mask)
        lonely = kept[i] & honest_neighbours & ~present != 0
        closed = closed | np.where(lonely, np.uint16(1 << i), np.uint16(0))
        reach[i] = 1 << i
        for j in ring.neighbours(i):
            if j not in ring.corrupt:
                reach[i] |= (kept[i] >> j & kept[j] >> i & present >> j & 1) << j
    for via in ring.honest:
        for i in ring.honest:
            reach[i] |= np.where(reach[i] >> via & 1, reach[via], np.uint16(0))
    visible = _bits(ring, present) & (reach & closed == 0)
    return np.where(visible, reach, np.uint16(0))
