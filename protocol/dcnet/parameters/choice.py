"""
How many neighbours, how many shares, how few members: k, t, t_c, k_min, n_min from the threat, with the bits reached.

The ring is a Harary graph: k/2 neighbours on either side, in an order that a beacon fixed at random after all keys
were in. At most c = ceil(γ·n) members are corrupt (they tell head and coordinator everything) and at most d =
ceil(δ·n) fall silent. Four things must not happen, each but with a probability below 2^-σ or 2^-η:

1. The honest and alive fall apart. Removed nodes cut a Harary graph only if they contain two disjoint runs of k/2
   consecutive positions. Union over the n(n-k-1)/2 pairs of runs of the probability that all k positions are among the
   c + d:  n(n-k-1)/2 · C(n-k, c+d-k) / C(n, c+d)  <  2^-(σ+1).
2. Somebody's neighbours can open its self mask without leave. With X ~ Hypergeometric(n-1, c, k) corrupt neighbours:
   honest-but-curious breaks at X >= t; with a lying head ("semi-malicious") already at X >= 2t - k, because then two
   disjoint sets of t neighbours share no honest member. Union over n members: n·P[X >= ...] < 2^-(σ+1).
3. Somebody cannot be recovered. With Y ~ Hypergeometric(n-1, d, k) silent neighbours: n·P[Y > k - t] < 2^-η.
4. (model "unsplittable" only) A lying head cuts the ring by runs of corrupt members and members it calls silent. Next
   to such a run a member has k/2 neighbours on its good side, and x corrupt ones in the run confirm anything: rule 3
   is met once x >= t_c - k/2. Two disjoint windows of k/2 positions with that many corrupt members each:
   n(n-k-1)/2 · P[W >= t_c - k/2]^2 < 2^-σ, with W ~ Hypergeometric(n, c, k/2); and impossible if 2·t_c - k > c, which
   is why small rings are safe anyhow. The two windows are negatively correlated, so the square is an upper bound.

Source: Bell, Bonawitz, Gascón, Lepoint, Raykova, CCS 2020 (ePrint 2020/704), section 3: its conditions on connectivity,
corrupt and surviving neighbours; 1 to 3 with σ split evenly over 1 and 2 give the degrees and thresholds known from
Google's own parameter search for that protocol. Event 4 is ours: the paper's guarantee against a lying server is sums
over large parts of the clients, ours shall be no part at all. `split_bits` is reported under every model.

Explicit rules beyond the tails:

- c and d are rounded up: with floor(0.05·19) = 0 a small ring would assume that nobody is corrupt.
- Below `SMALL_RING` members the complete graph is taken: then X <= c and Y <= d for certain and nothing depends on
  luck. It is also the last resort of larger rings.
- k_min = t_c: a member with fewer neighbours in the roster could neither collect t_c confirmations nor be recovered, so
  it refuses at once, before it reveals a mask word. (k_min > k/2 would be the weaker demand.)
- n_min is at least c + `HONEST_MIN`, so that a total is never of one or two readings, and against a lying head over
  (n + c)/2, so that any two rosters share an honest member; it must leave room for d silent members, or the wish is
  refused. It is two thirds of n where the d silent ones allow that: higher hides more, lower gives up fewer rounds.
- A plain circle (k = 2) is never chosen; `plain_circle` gives it by name, with its warning.

`population`: γ is a property of all gateways, and a ring of 64 of 10,000 may by bad luck hold more than its part of the
corrupt ones. With `population` given, the neighbourhoods are drawn from it, the union runs over all its members, and c
and d of a ring are quantiles. Without it, γ and δ are taken to hold in every single ring.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from protocol.dcnet.parameters.hypergeometric import least_safe, sum_bits, tail_bits
from protocol.errors import LocalProtocolError

Model = Literal["honest-but-curious", "semi-malicious", "unsplittable"]

SMALL_RING = 20
RING_SIZE_MAX = 10**8
NEIGHBOUR_COUNT_MAX = 2048
HONEST_MIN = 3

CIRCLE_WARNING = "a plain circle (k = 2) is split by any two corrupt members that are not adjacent"


@dataclass(frozen=True, slots=True)
class Parameters:
    """
    One ring's parameters and what they withstand.

    Counts are members: `n` in the ring, `k` neighbours of each (n - 1: all others), `t` neighbours recover a self mask,
    `t_c` confirmations before anything is revealed, at least `k_min` neighbours and `n_min` members in a roster;
    `corrupt` and `dropped` are what was assumed at most per ring. The bits are minus log2 of bounds on a failure
    anywhere in the ring (or population): `sigma_reached` of privacy, `eta_reached` of a round that cannot finish,
    `split_bits` of a lying head opening a part of the ring alone. inf: cannot happen under the assumptions.
    """

    n: int
    k: int
    t: int
    t_c: int
    k_min: int
    n_min: int
    model: Model
    corrupt: int
    dropped: int
    sigma_reached: float
    eta_reached: float
    split_bits: float
    warnings: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everybody is everybody's neighbour."""
        return self.k == self.n - 1


@dataclass(frozen=True, slots=True)
class _Threat:
    """The assumptions as counts: c and d in one ring, and the urn that the neighbourhoods are drawn from."""

    n: int
    corrupt: int
    dropped: int
    members: int
    urn_corrupt: int
    urn_dropped: int

    @property
    def union_bits(self) -> float:
        return math.log2(self.members)


def choose(
    n: int,
    gamma: float,
    delta: float,
    sigma: float = 40,
    eta: float = 30,
    *,
    model: Model = "semi-malicious",
    population: int | None = None,
) -> Parameters:
    """
    The smallest k, and for it the smallest t, that reach `sigma` and `eta` bits; see the head of the file.

    `gamma` and `delta` are fractions in [0, 1). Raises `LocalProtocolError`, with a reason made for operators, for
    arguments out of range and for what no k up to `NEIGHBOUR_COUNT_MAX` reaches. Under a second for n = 10^8.
    """
    if model not in get_args(Model):
        raise LocalProtocolError(f"the threat model is one of {', '.join(get_args(Model))}")
    threat = _threat(n, gamma, delta, sigma=sigma, eta=eta, population=population)
    corrupt_weight, silent_weight = (1, 1) if model == "honest-but-curious" else (1, 2)
    if corrupt_weight * Fraction(gamma) + silent_weight * Fraction(delta) >= 1:
        raise LocalProtocolError(
            f"impossible: corrupt + {'' if silent_weight == 1 else '2 x '}dropout is 1 or more, so those who must "
            "agree and those who may be silent overlap in every neighbourhood"
        )
    n_min = _least_roster(threat, model)
    corrupt_most = silent_most = 0
    reason = "no admissible number of neighbours"
    for k in _degrees(n):
        silent_most = least_safe(
            threat.members - 1, threat.urn_dropped, k, eta + threat.union_bits, start=min(silent_most, k)
        )
        corrupt_most = least_safe(
            threat.members - 1, threat.urn_corrupt, k, sigma + 1 + threat.union_bits, start=min(corrupt_most, k)
        )
        if _cut_bits(threat, k) <= sigma + 1:
            reason = f"with k = {k} the honest members may fall apart"
            continue
        t = _least_threshold(threat, k, corrupt_most, sigma, model)
        if t > k - silent_most:
            reason = f"with k = {k}, {t} neighbours must agree to be safe, but only {k - silent_most} surely answer"
            continue
        return _parameters(threat, k, t, n_min, model=model)
    raise LocalProtocolError(f"impossible for a ring of {n}: {reason}")


def plain_circle(n: int, gamma: float, delta: float, *, population: int | None = None) -> Parameters:
    """
    The circle with k = 2, t = t_c = k_min = 2, whatever its bits are; the warning says why it is not for daily use.

    Raises `LocalProtocolError` for arguments out of range.
    """
    threat = _threat(n, gamma, delta, sigma=40, eta=30, population=population)
    return _parameters(threat, 2, 2, _least_roster(threat, "semi-malicious"), warnings=(CIRCLE_WARNING,))


def _threat(n: int, gamma: float, delta: float, *, sigma: float, eta: float, population: int | None) -> _Threat:
    members = n if population is None else population
    if not 3 <= n <= members <= RING_SIZE_MAX:
        raise LocalProtocolError(f"3 <= ring size <= population <= {RING_SIZE_MAX} does not hold")
    if not (0 <= gamma < 1 and 0 <= delta < 1):
        raise LocalProtocolError("the corrupt and the dropout fraction lie in [0, 1)")
    urn_corrupt, urn_dropped = _part(members, gamma), _part(members, delta)
    if members == n:
        return _Threat(n, urn_corrupt, urn_dropped, members, urn_corrupt, urn_dropped)
    ring_bits = math.log2(members / n)
    return _Threat(
        n,
        least_safe(members, urn_corrupt, n, sigma + 1 + ring_bits),
        least_safe(members, urn_dropped, n, eta + ring_bits),
        members,
        urn_corrupt,
        urn_dropped,
    )


def _part(members: int, fraction: float) -> int:
    # A decimal fraction such as 0.29 is meant exactly; as a double times 100 it may come out below or above 29.
    return math.ceil(Fraction(fraction).limit_denominator(10**9) * members)


def _degrees(n: int) -> Iterator[int]:
    if n >= SMALL_RING:
        yield from range(4, min(n - 2, NEIGHBOUR_COUNT_MAX) + 1, 2)
    if n - 1 <= NEIGHBOUR_COUNT_MAX:
        yield n - 1


def _least_roster(threat: _Threat, model: Model) -> int:
    alive = threat.n - threat.dropped
    needed = threat.corrupt + HONEST_MIN
    if model != "honest-but-curious":
        needed = max(needed, (threat.n + threat.corrupt) // 2 + 1)
    if needed > alive:
        raise LocalProtocolError(
            f"impossible for a ring of {threat.n}: a roster needs {needed} members ({threat.corrupt} of the ring may "
            f"be corrupt), but {threat.dropped} may be silent"
        )
    return max(needed, min(-(-2 * threat.n // 3), alive))


def _least_threshold(threat: _Threat, k: int, corrupt_most: int, sigma: float, model: Model) -> int:
    if model == "honest-but-curious":
        return max(corrupt_most + 1, 2)
    t = (k + corrupt_most) // 2 + 1
    if model == "unsplittable":
        while t <= k and _split_bits(threat, k, t) < sigma + 1:
            t += 1
    return t


def _cut_bits(threat: _Threat, k: int) -> float:
    """Bits against event 1, over all rings of the population."""
    if k == threat.n - 1:
        return math.inf
    all_bad = tail_bits(threat.members, min(threat.urn_corrupt + threat.urn_dropped, threat.members), k, k)
    return max(0.0, all_bad - _pair_bits(threat, k))


def _split_bits(threat: _Threat, k: int, t_c: int) -> float:
    """Bits against event 4, over all rings of the population."""
    needed = 2 * t_c - k
    if needed > threat.corrupt or k == threat.n - 1:
        return math.inf if needed > threat.corrupt else 0.0
    return max(0.0, 2 * tail_bits(threat.members, threat.urn_corrupt, k // 2, needed // 2) - _pair_bits(threat, k))


def _pair_bits(threat: _Threat, k: int) -> float:
    return math.log2(threat.n * (threat.n - k - 1) / 2) + math.log2(threat.members / threat.n)


def _parameters(
    threat: _Threat, k: int, t: int, n_min: int, *, model: Model = "semi-malicious", warnings: tuple[str, ...] = ()
) -> Parameters:
    breaking = t if model == "honest-but-curious" else 2 * t - k
    opened = max(0.0, tail_bits(threat.members - 1, threat.urn_corrupt, k, breaking) - threat.union_bits)
    stuck = max(0.0, tail_bits(threat.members - 1, threat.urn_dropped, k, k - t + 1) - threat.union_bits)
    return Parameters(
        n=threat.n,
        k=k,
        t=t,
        t_c=t,
        k_min=t,
        n_min=n_min,
        model=model,
        corrupt=threat.corrupt,
        dropped=threat.dropped,
        sigma_reached=sum_bits(_cut_bits(threat, k), opened),
        eta_reached=stuck,
        split_bits=_split_bits(threat, k, t),
        warnings=warnings,
    )
