"""
Rows of the meters' protocols, the links and the store: what their own benchmarks measure, in the common table.

Each of those runs alone too and shows more (`python -m loadtest.bench.sml`, `.mbus`, `.link`, `.store`).
"""

from __future__ import annotations

import trio

from loadtest.bench import link, mbus, sml, sml_meters
from loadtest.bench.measure import Row, Spread, Target
from loadtest.bench.peers import peer_python

_RATIO_MIN = {"smllib": 3, "pysml": 10}


def sml_rows(*, quick: bool = False) -> list[Row]:
    """SML from bytes to readings, against smllib and pysml; meters that one process asks every second."""
    return [*_sml_frames(quick=quick), _sml_meters(quick=quick)]


def _sml_meters(*, quick: bool) -> Row:
    meters, seconds = (100, 3) if quick else (1000, 10)
    taken = [sml_meters.run(meters, seconds) for _ in range(1 if quick else 3)]
    late_s = max(each["late_s_p50"] for each in taken)
    return Row(
        f"one process asks {meters:,} SML meters each second", "% of a core",
        Spread.of([100 * each["cpu_share"] for each in taken]), target=Target("ours", 100, at_least=False),
        note=f"{min(each['readings'] for each in taken):,} readings in {seconds} s; late by {late_s:.2f} s (median)",
    )  # fmt: skip


def _sml_frames(*, quick: bool) -> list[Row]:
    frames = sml.simulated_frames()
    pairs = 5 if quick else 15
    result = sml.run(frames, pairs=pairs, ours_rounds=3 if quick else 10)
    if not result["peers"]:
        return [Row("SML frames to readings", "frames/s", Spread.of([result["ours_frames_per_s"]]))]
    return [
        Row(
            "SML frames to readings", "frames/s", Spread.of([figures["ours_frames_per_s"]]), name,
            Spread.of([figures["peer_frames_per_s"]]),
            Spread(figures["ratio_median"], figures["ratio_quartiles"][0], figures["ratio_quartiles"][1], pairs),
            target=Target("ratio", _RATIO_MIN[name], at_least=True),
            note="medians of pairs; ours checks every message's CRC too",
        )
        for name, figures in result["peers"].items()
    ]  # fmt: skip


def mbus_rows(*, quick: bool = False) -> list[Row]:
    """M-Bus against pyMeterBus; wireless M-Bus under security mode 5."""
    peer = peer_python("mbus")
    seconds = 0.3 if quick else 1.0
    ours, theirs = [], []
    for _ in range(3 if quick else 5):
        mine, other = mbus.wired(seconds, peer)
        ours.append(mine)
        theirs += [] if other is None else [other]
    radio = [mbus.wireless(seconds) for _ in range(3)]
    ratio = Spread.of([a / b for a, b in zip(ours, theirs, strict=True)]) if theirs else None
    return [
        Row(
            "M-Bus telegrams to JSON", "frames/s", Spread.of(ours), "pyMeterBus", Spread.of(theirs) if theirs else None,
            ratio, target=Target("ratio", mbus.RATIO_MIN, at_least=True),
        ),
        Row(
            "wireless M-Bus, security mode 5, to readings", "telegrams/s", Spread.of(radio),
            target=Target("ours", mbus.WIRELESS_PER_S_MIN, at_least=True),
        ),
    ]  # fmt: skip


def link_rows(*, quick: bool = False) -> list[Row]:
    """Round trips over CURVE on loopback, both ends in one process."""
    trips = 2000 if quick else 10_000
    rows = []
    for clients in (1, 50):
        taken = [trio.run(link.round_trips, clients, trips) for _ in range(3)]
        rows += [
            Row(
                f"CURVE round trips, {clients} client{'s' * (clients > 1)}", "1/s",
                Spread.of([each["per_s"] for each in taken]), clock="wall",
            ),
            Row(
                f"  median latency, {clients} client{'s' * (clients > 1)}", "ms",
                Spread.of([each["ms_p50"] for each in taken]), clock="wall",
            ),
        ]  # fmt: skip
    return rows
