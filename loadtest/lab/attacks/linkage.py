"""
Linkage: which pseudonym is which household?  By habits over days, by a bill, by the time of messages.

Habits after Jawurek, Johns, Rieck (ACSAC 2011) and Buchmann et al. (2013): the shape of the day and the distribution of
values; a bill by the energy that it charges; times by the delay between a meter's message and the one that comes out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loadtest.lab.households import DAY_S
from loadtest.lab.views import Link, Series

Floats = NDArray[np.float64]
_PARTS_A_DAY = 24


def profile(values_w: Floats, slot_s: int) -> Floats:
    """
    One household's habits as numbers: mean by hour, and quantiles of values and of changes, all logarithmic.

    A load of whole days from midnight; a part of a day at the end is dropped.
    """
    slots_a_day = DAY_S // slot_s
    whole = values_w[: max(1, len(values_w) // slots_a_day) * slots_a_day].astype(np.float64)
    days = whole.reshape(-1, slots_a_day) if len(whole) >= slots_a_day else whole[None]
    hours = np.array([part.mean() for part in np.array_split(days.mean(axis=0), _PARTS_A_DAY)])
    levels = np.quantile(whole, (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98))
    changes = np.quantile(np.abs(np.diff(whole)) if len(whole) > 1 else np.zeros(1), (0.3, 0.5, 0.7, 0.9, 0.97))
    return np.asarray(np.log1p(np.maximum(np.concatenate((hours, levels, levels[:4], changes)), 0.0)), np.float64)


def match(known: Floats, seen: Floats, noise: Floats | None = None) -> NDArray[np.int64]:
    """
    For each seen profile the index of the nearest known one; shapes (households, features), (pseudonyms, features).

    `noise` is how much a feature changes in one household from period to period: what changes little weighs much.
    """
    spread = np.concatenate((known, seen)).std(axis=0) if noise is None else noise
    a, b = known / np.maximum(spread, 1e-6), seen / np.maximum(spread, 1e-6)
    distances = (b**2).sum(axis=1)[:, None] + (a**2).sum(axis=1)[None] - 2.0 * b @ a.T
    return np.asarray(np.argmin(distances, axis=1), np.int64)


def by_habits(known_w: Floats, pseudonyms: Sequence[Series], slot_s: int, reference_w: Floats) -> dict[int, int]:
    """
    Pseudonym to household, from an earlier period known by name, shape (households, slots).

    `reference_w` are other households over the same time as `known_w`: between its halves an attacker learns which
    features stay.
    """
    half = reference_w.shape[1] // 2 // (DAY_S // slot_s) * (DAY_S // slot_s)
    noise = None
    if half:
        first, second = (
            np.array([profile(each, slot_s) for each in part])
            for part in (reference_w[:, :half], reference_w[:, half : 2 * half])
        )
        noise = (first - second).std(axis=0)
    known = np.array([profile(each, slot_s) for each in known_w])
    seen = np.array([profile(each.values.astype(np.float64), slot_s) for each in pseudonyms])
    return {
        int(series.pseudonym or 0): int(best)
        for series, best in zip(pseudonyms, match(known, seen, noise) if len(seen) else [], strict=True)
    }


def by_bills(bills_wh: Sequence[int], pseudonyms: Sequence[Series], slot_s: int, resolution_wh: int) -> dict[int, int]:
    """
    Pseudonym to household, from energies billed by name over the same time, rounded down to the resolution.

    Several pseudonyms may be given the same household; where several bills fit equally, the first is taken.
    """
    energies_wh = np.array([int(each.values.sum()) * slot_s // 3600 for each in pseudonyms], np.int64)
    rounded = energies_wh // resolution_wh * resolution_wh
    order = np.argsort(bills_wh, kind="stable")
    ordered = np.asarray(bills_wh, np.int64)[order]
    places = np.clip(np.searchsorted(ordered, rounded), 0, len(ordered) - 1)
    before = np.maximum(places - 1, 0)
    nearer = np.where(np.abs(ordered[before] - rounded) < np.abs(ordered[places] - rounded), before, places)
    return {
        int(series.pseudonym or 0): int(order[place]) for series, place in zip(pseudonyms, nearer, strict=True)
    }  # fmt: skip


def by_timing(links: Sequence[Link]) -> dict[int, int]:
    """
    Pseudonym to household, from when meters sent and when something arrived under each pseudonym.

    The household is taken whose messages are the nearest before the arrivals, in the median over the slots.
    """
    senders = [each for each in links if each.kind == "household"]
    arrivals = [each for each in links if each.kind == "pseudonym"]
    if not senders or not arrivals:
        return {}
    sent = {int(slot): index for index, slot in enumerate(senders[0].slots)}
    times_s = np.stack([each.times_s for each in senders])
    found = {}
    for arrival in arrivals:
        columns = [sent[int(slot)] for slot in arrival.slots if int(slot) in sent]
        delays_s = arrival.times_s[None, : len(columns)] - times_s[:, columns]
        # What arrives before it was sent was sent by somebody else.
        late = np.where(delays_s < 0, np.inf, delays_s)
        found[arrival.sender] = senders[int(np.argmin(np.median(late, axis=1)))].sender
    return found
