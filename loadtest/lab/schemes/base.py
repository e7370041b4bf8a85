"""A scheme: what a device makes of its readings, and the messages that are sent about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from loadtest.lab.households import DAY_S, Households
from loadtest.lab.transcript import Batch, Shape, Transcript, send_times

Readings = NDArray[np.int64]
Local = Callable[[Readings, int, Generator], Readings]
"""Readings of a group in W, shape (members, slots), seconds of a slot, randomness -> what the members submit."""


def unchanged(readings_w: Readings, _slot_s: int, _rng: Generator) -> Readings:
    """The readings as they are."""
    return readings_w


@dataclass(frozen=True)
class Scheme:
    """
    `shape(n)` gives the messages of a slot in a group of n meters, with `local` applied before.

    `alias_days` is how long a pseudonym lives (0: one message). `bill` adds the messages of a bill for each period of
    `bill_days`. `needs` names the party that must keep to the rules for the scheme to hide anything.
    """

    name: str
    title: str
    source: str
    needs: str
    shape: Callable[[int], Shape]
    local: Local = unchanged
    alias_days: float = 7.0
    exact_sum: bool = False
    bill: Callable[[int], Shape] | None = None
    bill_days: int = 28
    is_optional: bool = False
    note: str = ""
    tags: frozenset[str] = field(default_factory=frozenset)


def groups_of(count: int, size: int, rng: Generator) -> list[NDArray[np.int64]]:
    """Households in groups of `size` or a few more, drawn at random, as an area is cut into rings."""
    return [np.sort(part) for part in np.array_split(rng.permutation(count), max(1, count // size))]


def play(
    scheme: Scheme, households: Households, group_size: int, seed: int, tariff: NDArray[np.int64] | None = None
) -> Transcript:
    """
    The transcript of a scheme over all households, in the ideal model.

    `tariff[t]` is the price of slot t in thousandths of a cent for each kWh (default: 30 ct, flat); with bills alone.
    The groups depend on seed, number and group size, not on the scheme: all schemes run on the same groups.
    """
    groups = groups_of(households.count, group_size, np.random.default_rng((seed, 1)))
    rng = np.random.default_rng((seed, 2))
    slots = np.arange(households.slots)
    ends_s = np.asarray((slots + 1.0) * households.slot_s, np.float64)
    owners: dict[int, int] = {}
    batches = []
    for group in groups:
        shape = scheme.shape(len(group))
        submitted = scheme.local(households.power_w[group], households.slot_s, rng).T
        times_s = send_times(shape, ends_s, rng)
        aliases = _aliases(scheme, shape, group, slots, households.slot_s, owners, rng)
        if shape.messages:
            batches.append(Batch(shape, group, slots, submitted, times_s, aliases))
        if scheme.bill is not None:
            batches.append(_bills(scheme, households, group, tariff, rng))
    return Transcript(scheme.name, households.slot_s, households.count, batches, owners)


def play_group(scheme: Scheme, readings_w: Readings, slot_s: int, rng: Generator) -> Transcript:
    """
    The transcript of one group as it is given, shape (members, slots), W; households are named by their place in it.

    Every message leaves at the end of its slot: it says nothing by its time.
    """
    members, slots = readings_w.shape
    shape, group, owners = scheme.shape(members), np.arange(members), dict[int, int]()
    submitted = scheme.local(readings_w, slot_s, rng).T
    aliases = _aliases(scheme, shape, group, np.arange(slots), slot_s, owners, rng)
    batch = Batch(shape, group, np.arange(slots), submitted, slot_ends(shape, np.arange(slots), slot_s), aliases)
    return Transcript(scheme.name, slot_s, members, [batch], owners)


def slot_ends(shape: Shape, slots: NDArray[np.int64], slot_s: int) -> NDArray[np.float64]:
    """Times of messages that leave together when their slot ends, shape (slots, messages), s."""
    return np.broadcast_to(((slots + 1.0) * slot_s)[:, None], (len(slots), len(shape.messages)))


def _aliases(
    scheme: Scheme, shape: Shape, group: NDArray[np.int64], slots: NDArray[np.int64], slot_s: int,
    owners: dict[int, int], rng: Generator,
) -> NDArray[np.int64] | None:  # fmt: skip
    """Pseudonyms drawn at random for each household and period, shape (slots, messages); -1 where there is none."""
    if not any(message.alias for message in shape.messages):
        return None
    lifetime = max(1, round(scheme.alias_days * DAY_S / slot_s))
    periods = slots // lifetime
    aliases = np.full((len(slots), len(shape.messages)), -1, np.int64)
    for index, message in enumerate(shape.messages):
        if not message.alias:
            continue
        (position,) = message.form.readings
        drawn = rng.integers(0, 2**62, periods[-1] + 1)
        aliases[:, index] = drawn[periods]
        owners.update(dict.fromkeys(map(int, drawn), int(group[position])))
    return aliases


def bill_amounts(
    power_w: Readings, slot_s: int, tariff: NDArray[np.int64] | None, periods: int
) -> Readings:  # fmt: skip
    """Amounts by household and period in thousandths of a cent, rounded down once at the end; integers throughout."""
    slots = power_w.shape[1] // periods * periods
    prices = np.full(slots, 30_000, np.int64) if tariff is None else tariff[:slots]
    # W * s * (ct/1000 per kWh) / 3.6e6; the largest product is 5e4 W * 900 s * 1e6 * 672 slots < 2^63.
    spent = (power_w[:, :slots] * prices).reshape(len(power_w), periods, -1).sum(axis=2) * slot_s
    return np.asarray(spent // 3_600_000, np.int64)


def _bills(
    scheme: Scheme, households: Households, group: NDArray[np.int64], tariff: NDArray[np.int64] | None, rng: Generator
) -> Batch:
    if scheme.bill is None:
        raise ValueError(f"{scheme.name} has no bills")
    shape = scheme.bill(len(group))
    periods = max(1, households.days // scheme.bill_days)
    amounts = bill_amounts(households.power_w[group], households.slot_s, tariff, periods)
    ends_s = (np.arange(periods) + 1.0) * households.slots * households.slot_s / periods
    return Batch(
        shape, group, np.arange(periods), amounts.T, send_times(shape, ends_s, rng), quantity="bill",
    )  # fmt: skip
