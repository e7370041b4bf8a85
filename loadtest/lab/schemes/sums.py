"""Schemes in which cryptography adds: the EMP gets the sum of a group and nobody need read the parts."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.random import Generator

from loadtest.lab.schemes.base import Local, Readings, Scheme
from loadtest.lab.transcript import AUTHORITY, EMP, GWA, HEAD, STORE, TTP, Form, Message, Shape, meter
from protocol.dcnet.parameters.choice import SMALL_RING, choose

FIELD64 = 2**64 - 2**32 + 1  # Field64 of Prio3Sum (draft-irtf-cfrg-vdaf)
CORRUPT, DROPOUT = 0.05, 0.05
SENSITIVITY_W = 15_000  # 3 x 25 A at 230 V, rounded down: 3.75 kWh in a quarter hour
EPSILON = 1.0


def _everybody(n: int) -> dict[int, int]:
    return dict.fromkeys(range(n), 1)


@lru_cache(maxsize=64)
def paillier_shape(n: int) -> Shape:
    """Ciphertexts under the EMP's key to a store, which multiplies them; 512 bytes each, before packing."""
    sealed = frozenset({EMP})
    up = tuple(Message(meter(i), STORE, Form({i: 1}), sealed_for=sealed, size_bytes=512) for i in range(n))
    total = Message(STORE, EMP, Form(_everybody(n)), sealed_for=sealed, after=tuple(range(n)), size_bytes=512)
    return Shape(n, (*up, total))


@lru_cache(maxsize=64)
def vetter_shape(n: int) -> Shape:
    """Vetter et al.: an authority deals keys, a store adds ciphertexts, the authority releases the sum of the keys."""
    keys = [f"key:{i}" for i in range(n)]
    deals = tuple(Message(AUTHORITY, meter(i), Form({}, {keys[i]: 1}), size_bytes=8) for i in range(n))
    up = tuple(Message(meter(i), STORE, Form({i: 1}, {keys[i]: 1}), after=(i,)) for i in range(n))
    total = Message(STORE, EMP, Form(_everybody(n), dict.fromkeys(keys, 1)), after=tuple(range(n, 2 * n)))
    key = Message(AUTHORITY, EMP, Form({}, dict.fromkeys(keys, 1)))
    holders = {keys[i]: frozenset({AUTHORITY, meter(i)}) for i in range(n)}
    return Shape(n, (*deals, *up, total, key), holders)


def _marmol(n: int, *, rotated: bool) -> Shape:
    """
    Mármol et al.: encrypted readings to the EMP over an anonymous channel; one member adds the first keys.

    Rotation: each member passes a secret offset to its successor and takes it from its own key, so the keys change and
    their sum does not.
    """
    keys = [f"key:{i}" for i in range(n)]
    steps = [f"offset:{i}" for i in range(n)] if rotated else []
    first = tuple(Message(meter(i), HEAD, Form({}, {keys[i]: 1})) for i in range(n))
    total = Message(HEAD, EMP, Form({}, dict.fromkeys(keys, 1)), after=tuple(range(n)))
    passed = tuple(Message(meter(i), meter((i + 1) % n), Form({}, {steps[i]: 1})) for i in range(n) if rotated)

    def key_of(i: int) -> dict[str, int]:
        return {keys[i]: 1} | ({steps[i - 1]: 1, steps[i]: -1} if rotated else {})

    sent = tuple(Message(meter(i), EMP, Form({i: 1}, key_of(i)), alias=True) for i in range(n))
    holders = {keys[i]: frozenset({meter(i)}) for i in range(n)}
    holders |= {name: frozenset({meter(i), meter((i + 1) % n)}) for i, name in enumerate(steps)}
    return Shape(n, (*first, total, *passed, *sent), holders, played_by={HEAD: meter(0)})


@lru_cache(maxsize=64)
def marmol_shape(n: int) -> Shape:
    """Without rotation."""
    return _marmol(n, rotated=False)


@lru_cache(maxsize=64)
def marmol_rotated_shape(n: int) -> Shape:
    """With rotation."""
    return _marmol(n, rotated=True)


def masked_forms(
    n: int, pairs: Iterable[tuple[int, int]], *, self_masks: bool
) -> tuple[list[Form], dict[str, frozenset[str]]]:
    """Each member's reading under its pairwise masks (+ towards higher positions), and who holds which mask."""
    pairs = tuple(pairs)
    holders = {f"mask:{low}:{high}": frozenset({meter(low), meter(high)}) for low, high in pairs}
    secrets: list[dict[str, int]] = [{} for _ in range(n)]
    for low, high in pairs:
        secrets[low][f"mask:{low}:{high}"] = 1
        secrets[high][f"mask:{low}:{high}"] = -1
    if self_masks:
        for i in range(n):
            secrets[i][f"self:{i}"] = 1
            holders[f"self:{i}"] = frozenset({meter(i)})
    return [Form({i: 1}, secrets[i]) for i in range(n)], holders


@lru_cache(maxsize=64)
def kursawe_shape(n: int) -> Shape:
    """Pairwise masks of everybody with everybody; no self mask, so who is missing spoils the sum."""
    forms, holders = masked_forms(n, {(i, j) for i in range(n) for j in range(i + 1, n)}, self_masks=False)
    up = tuple(Message(meter(i), STORE, form) for i, form in enumerate(forms))
    total = Message(STORE, EMP, Form(_everybody(n)), after=tuple(range(n)))
    return Shape(n, (*up, total), holders)


def circulant(n: int, k: int) -> set[tuple[int, int]]:
    """Pairs of a ring in which each member has the k / 2 nearest on both sides as neighbours."""
    return {(min(i, j), max(i, j)) for i in range(n) for j in ((i + d) % n for d in range(1, k // 2 + 1)) if i != j}


def ring_pairs(n: int) -> set[tuple[int, int]]:
    """The pairs of one ring at the default rates: everybody with everybody in small rings."""
    # Below SMALL_RING everybody is everybody's neighbour, also where no thresholds exist for a ring that small.
    k = choose(n, CORRUPT, DROPOUT).k if n >= SMALL_RING else n - 1
    return circulant(n, k) if k < n - 1 else {(i, j) for i in range(n) for j in range(i + 1, n)}


@lru_cache(maxsize=64)
def secagg_shape(n: int) -> Shape:
    """SecAgg+: masked vectors to a server that opens the self masks of who stayed and adds."""
    forms, holders = masked_forms(n, ring_pairs(n), self_masks=True)
    up = tuple(Message(meter(i), STORE, form) for i, form in enumerate(forms))
    reveal = tuple(
        Message(meter(i), STORE, Form({}, {f"self:{i}": 1}), after=tuple(range(n)), size_bytes=32) for i in range(n)
    )
    total = Message(STORE, EMP, Form(_everybody(n)), after=tuple(range(n, 2 * n)))
    return Shape(n, (*up, *reveal, total), holders)


@lru_cache(maxsize=64)
def two_servers_shape(n: int) -> Shape:
    """Prio3 with two aggregators: a share to each, each sends the sum of its shares; the store leads, the TTP helps."""
    shares = [f"share:{i}" for i in range(n)]
    leader = tuple(Message(meter(i), STORE, Form({i: 1}, {shares[i]: -1})) for i in range(n))
    helper = tuple(Message(meter(i), TTP, Form({}, {shares[i]: 1})) for i in range(n))
    sums = (
        Message(STORE, EMP, Form(_everybody(n), dict.fromkeys(shares, -1)), after=tuple(range(n))),
        Message(TTP, EMP, Form({}, dict.fromkeys(shares, 1)), after=tuple(range(n, 2 * n))),
    )
    return Shape(n, leader + helper + sums, {shares[i]: frozenset({meter(i)}) for i in range(n)}, modulus=FIELD64)


def ring_shape(n: int) -> Shape:
    """The project's ring at the default rates."""
    return ring_shape_of(n, frozenset(ring_pairs(n)))


@lru_cache(maxsize=64)
def ring_shape_of(n: int, pairs: frozenset[tuple[int, int]]) -> Shape:
    """Masked vectors and reveals to the head, a member itself; the ledger at the administrator gets the total."""
    forms, holders = masked_forms(n, pairs, self_masks=True)
    up = tuple(Message(meter(i), HEAD, form) for i, form in enumerate(forms))
    reveal = tuple(
        Message(meter(i), HEAD, Form({}, {f"self:{i}": 1}), after=tuple(range(n)), size_bytes=32) for i in range(n)
    )
    total = (
        Message(HEAD, GWA, Form(_everybody(n)), after=tuple(range(n, 2 * n))),
        Message(GWA, EMP, Form(_everybody(n)), after=(2 * n,)),
    )
    return Shape(n, up + reveal + total, holders, played_by={HEAD: meter(0)})


def ring_noise(readings_w: Readings, _slot_s: int, rng: Generator) -> Readings:
    """
    Each member adds its share of a discrete Laplace variable of scale `SENSITIVITY_W` / `EPSILON` to every slot.

    The shares are differences of Pólya variables (`protocol.dcnet.crypto.noise` draws them exactly; here numpy does).
    """
    return noisy(readings_w, EPSILON, rng)


def noisy(readings_w: Readings, epsilon: float, rng: Generator) -> Readings:
    """Readings with every member's share of noise; epsilon is that of one total."""
    n, slots = readings_w.shape
    shares = rng.negative_binomial(1.0 / _honest(n), _success(epsilon), (2, n, slots))
    return np.asarray(readings_w + shares[0] - shares[1], np.int64)


def noise_of_total(n: int, slots: int, epsilon: float, rng: Generator) -> Readings:
    """The sum of n members' shares, shape (slots,), drawn at once: Pólya variables add their shapes."""
    both = rng.negative_binomial(n / _honest(n), _success(epsilon), (2, slots))
    return np.asarray(both[0] - both[1], np.int64)


def noise_at_once(epsilon: float) -> Local:
    """
    What members submit where all of the noise lies on the first of them: for totals the same as a share of each.

    Of parts of a group it says nothing.
    """

    def add(readings_w: Readings, _slot_s: int, rng: Generator) -> Readings:
        noisy_w = readings_w.copy()
        noisy_w[0] += noise_of_total(len(readings_w), readings_w.shape[1], epsilon, rng)
        return noisy_w

    return add


def _honest(n: int) -> int:
    """The members that are counted on to add noise."""
    return max(1, n - int(np.ceil(CORRUPT * n)))


def _success(epsilon: float) -> float:
    return float(-np.expm1(-epsilon / SENSITIVITY_W))


SCHEMES = (
    Scheme(
        "paillier", "Paillier ciphertexts, added by a store", "Paillier 1999; Garcia, Jacobs 2010", "store or EMP",
        paillier_shape, exact_sum=True,
    ),
    Scheme(
        "vetter", "Bihomomorphic keys of an authority", "Vetter et al. 2012", "store or authority", vetter_shape,
        exact_sum=True,
    ),
    Scheme(
        "marmol", "Keys summed in a ring, never rotated", "Mármol et al. 2012", "key aggregator or EMP", marmol_shape,
        alias_days=0.0, exact_sum=True, note="US patent 8,832,429 covers the key aggregator",
    ),
    Scheme(
        "marmol-rotated", "Keys summed and rotated in a ring", "Mármol et al. 2012", "one ring neighbour",
        marmol_rotated_shape, alias_days=0.0, exact_sum=True, note="US patent 8,832,429 covers the key aggregator",
    ),
    Scheme(
        "kursawe", "Pairwise masks", "Kursawe, Danezis, Kohlweiss 2011", "one other meter", kursawe_shape,
        exact_sum=True, note="a missing meter spoils the sum",
    ),
    Scheme(
        "secagg", "SecAgg+ (Flower)", "Bell et al. 2020", "one neighbour", secagg_shape, exact_sum=True,
    ),
    Scheme(
        "two-servers", "Shares for two servers", "Corrigan-Gibbs, Boneh 2017; draft-ietf-ppm-dap", "one server",
        two_servers_shape, exact_sum=True, note="without Prio3's proof of range",
    ),
    Scheme("ring", "This project's ring", "docs/explanation/protocol.md", "one neighbour", ring_shape, exact_sum=True),
    Scheme(
        "ring-noise", "This project's ring with noise", "docs/explanation/protocol.md; Goryczka 2017", "one neighbour",
        ring_shape, local=ring_noise, note=f"epsilon {EPSILON:g} a total, sensitivity {SENSITIVITY_W / 1000:g} kW",
    ),
)  # fmt: skip
