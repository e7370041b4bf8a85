"""Utility: error of totals, cost of the real cryptography, energy through a battery."""

from __future__ import annotations

import hashlib

import numpy as np

from loadtest.lab import metrics
from loadtest.lab.metrics import Estimate
from loadtest.lab.real import REAL, Inputs
from loadtest.lab.schemes import SCHEMES, Scheme
from loadtest.lab.schemes.battery import CONTROLS, hide
from loadtest.lab.settings import Lab, Row

_DROPOUT_MEMBERS = 12


def _exact(value: float, count: int) -> Estimate:
    return Estimate(value, value, value, count)


def real_rows(lab: Lab, scheme: Scheme) -> list[Row]:
    """
    One group and day through the scheme's real cryptography: error of the totals, CPU, bytes, rounds.

    CPU and bytes are those of all parties, for each meter and slot. Raises StromkreisError where a peer is missing.
    """
    slot_s = lab.meter_slot_s
    area = lab.at(slot_s)[0]
    members, slots = min(lab.settings.real_households, area.count), min(lab.settings.real_slots, area.slots)
    inputs = Inputs(area.power_w[:members, :slots].T.copy(), hashlib.sha256(b"lab real").digest(), is_recorded=False)
    run = REAL[scheme.name](inputs)
    readings = members * slots
    found = {"cpu_ms": 1000 * run.cpu_s / readings, "sent_bytes": run.sent_bytes / readings, "rounds": run.rounds}
    if scheme.exact_sum:
        found["total_error_w"] = float(np.abs(run.sums - inputs.readings_w.sum(axis=1)).max())
    parameters = {"members": members, "slots": slots}
    return [
        Row(scheme.name, "all", "utility", name, _exact(float(value), readings), parameters=parameters)
        for name, value in found.items()
    ]


def dropout_rows(lab: Lab, scheme: Scheme) -> list[Row]:
    """Whether the sum of the others comes out where one meter falls silent (1: yes), by the real cryptography."""
    area = lab.at(lab.meter_slot_s)[0]
    members, slots = min(_DROPOUT_MEMBERS, area.count), min(2, area.slots)
    readings_w = area.power_w[:members, :slots].T.copy()
    inputs = Inputs(readings_w, hashlib.sha256(b"lab dropout").digest(), members // 2, is_recorded=False)
    sums = REAL[scheme.name](inputs).sums
    is_right = bool(np.abs(sums - readings_w[:, inputs.present].sum(axis=1)).max() <= 1.0)
    parameters = {"members": members, "slots": slots}
    score = _exact(float(is_right), slots)
    return [Row(scheme.name, "all", "utility", "opens_with_one_missing", score, parameters=parameters)]


def battery_rows(lab: Lab) -> list[Row]:
    """Energy through the battery for each household and day, and the largest error of a day's total by its charge."""
    rows = []
    area = lab.at(lab.slot_s)[0].only(lab.targets)
    rng = lab.rng("battery")
    for name, scheme in SCHEMES.items():
        if not name.startswith("battery-"):
            continue
        control = next(each for each in CONTROLS if f"battery-{each}-" in name)
        capacity_kwh = int(name.removesuffix("kwh").rpartition("-")[2])
        metered, through = hide(control, capacity_kwh, area.power_w, area.slot_s, rng)
        parameters = {"capacity_kwh": capacity_kwh, "slot_s": area.slot_s}
        error = np.abs(metered - area.power_w).mean(axis=1) / np.maximum(area.power_w.mean(axis=1), 1.0)
        rows += [
            Row(scheme.name, "emp", "utility", "battery_kwh_a_day", metrics.mean(through, rng), parameters=parameters),
            Row(scheme.name, "emp", "utility", "reading_error_share", metrics.mean(error, rng), parameters=parameters),
        ]
    return rows
