"""Pseudonyms: re-identified by habits over days, by a bill, by the time of messages."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from loadtest.lab import metrics
from loadtest.lab.attacks import linkage
from loadtest.lab.schemes import Scheme, play
from loadtest.lab.settings import Lab, Row
from loadtest.lab.views import view_of

BILL_RESOLUTIONS_WH = (1000, 100, 1)
TIMING_HOUSEHOLDS = 300
EMP_ALONE = frozenset({"emp"})


def _score(guesses: Mapping[int, int], owners: Mapping[int, int]) -> metrics.Estimate:
    return metrics.proportion(sum(owners[alias] == guess for alias, guess in guesses.items()), len(guesses))


def _chance(households: int, trials: int) -> metrics.Estimate:
    """A blind guess; by design, not by drawing: its expectation has no need of luck."""
    return metrics.Estimate(1 / households, 1 / households, 1 / households, trials)


def by_habits(lab: Lab, scheme: Scheme) -> list[Row]:
    """Top-1 of everybody in the area, with as many days known by name as under the pseudonym."""
    slot_s = lab.meter_slot_s
    area = lab.at(slot_s)[0]
    rows = []
    for days in lab.day_counts((1, 3, 7, 14)):
        slots = days * area.slots_a_day
        part = area.only(slice(None), slice(0, slots))
        transcript = play(scheme, part, lab.settings.group_size, lab.settings.seed)
        view = view_of(transcript, EMP_ALONE)
        known = lab.history.power_w[:, :slots].astype(np.float64)
        reference = lab.reference_history.power_w[:, :slots].astype(np.float64)
        guesses = linkage.by_habits(known, view.pseudonymous(), slot_s, reference)
        # Without the households: pseudonyms of others, whom the attacker takes for its own.
        rng = lab.rng("links", days)
        shuffled = dict(zip(guesses, rng.permutation(list(guesses.values())).tolist(), strict=True))
        rows.append(
            Row(
                scheme.name, "emp", "linkage", "top1", _score(guesses, transcript.owners),
                _chance(area.count, len(guesses)), _score(shuffled, transcript.owners),
                {"households": area.count, "days": days, "slot_s": slot_s},
            )
        )  # fmt: skip
    return rows


def by_bills(lab: Lab, scheme: Scheme) -> list[Row]:
    """Top-1 by the energy of a bill over the attacked days, at several resolutions of the bill."""
    slot_s = lab.meter_slot_s
    area = lab.at(slot_s)[0]
    transcript = lab.transcript(scheme, slot_s, lab.settings.group_size)
    pseudonyms = view_of(transcript, EMP_ALONE).pseudonymous()
    energies_wh = (area.power_w.sum(axis=1) * slot_s // 3600).tolist()
    rng = lab.rng("bills")
    rows = []
    for resolution_wh in BILL_RESOLUTIONS_WH:
        billed = [each // resolution_wh * resolution_wh for each in energies_wh]
        guesses = linkage.by_bills(billed, pseudonyms, slot_s, resolution_wh)
        wrong = linkage.by_bills(rng.permutation(billed).tolist(), pseudonyms, slot_s, resolution_wh)
        rows.append(
            Row(
                scheme.name, "emp", "bills", "top1", _score(guesses, transcript.owners),
                _chance(area.count, len(guesses)), _score(wrong, transcript.owners),
                {"households": area.count, "days": area.days, "resolution_wh": resolution_wh},
            )
        )  # fmt: skip
        counts = np.unique(billed, return_counts=True)[1]
        rows.append(
            Row(
                scheme.name, "emp", "bills", "unique", metrics.proportion(int((counts == 1).sum()), area.count),
                parameters={"households": area.count, "days": area.days, "resolution_wh": resolution_wh},
            )
        )  # fmt: skip
    return rows


def by_timing(lab: Lab, scheme: Scheme) -> list[Row]:
    """Top-1 of the EMP with a listener on the meters' links, from one slot and from a day of them."""
    slot_s = lab.meter_slot_s
    area = lab.at(slot_s)[0]
    households = np.arange(min(TIMING_HOUSEHOLDS, area.count))
    rows = []
    for slots in (1, min(area.slots_a_day, 96)):
        part = area.only(households, slice(0, slots))
        transcript = play(scheme, part, len(households), lab.settings.seed)
        found = linkage.by_timing(view_of(transcript, frozenset({"emp", "wan"}), traffic=True).links)
        blind = _chance(len(households), len(households))
        rng = lab.rng("timing", slots)
        shuffled = dict(zip(found, rng.permutation(list(found.values())).tolist(), strict=True))
        rows.append(
            Row(
                scheme.name, "emp+wan", "timing", "top1", _score(found, transcript.owners), blind,
                _score(shuffled, transcript.owners), {"households": len(households), "slots": slots},
            )
        )  # fmt: skip
    return rows
