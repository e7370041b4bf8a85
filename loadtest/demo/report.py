"""
The verdict: the durable round book against ground truth, and what the run cost.

It reads the coordinator's database, not what was shown: a total that a person saw but that a crash would lose does not
count.  Only the rounds that were asked for are judged; a demo that stays up goes on beyond them.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sqlalchemy import select

from coordinator.config import EpochConfig
from coordinator.store import Epoch, Store, epoch_of
from coordinator.tables import epochs
from loadtest.demo.plan import Schedule
from loadtest.households import SimulatedMeter
from loadtest.truth import RoundRow, Verdict, check
from protocol.dcnet.book import Ended
from protocol.dcnet.rings import positions_of
from protocol.errors import StromkreisError
from protocol.wire import Outcome

_OPENED_MIN = 0.9


@dataclass(frozen=True, slots=True)
class Book:
    """The first `rounds` durable rounds of each area's first epoch."""

    epochs: tuple[Epoch, ...]
    members: Mapping[tuple[int, int], tuple[str, ...]]
    ended: tuple[Ended, ...]

    rounds: int

    @property
    def expected(self) -> int:
        """How many ring rounds there should be."""
        return self.rounds * len(self.members)

    def roster(self, ended: Ended) -> tuple[str, ...]:
        """The gateways in an opened total."""
        members = self.members[ended.epoch, ended.ring]
        return tuple(members[position] for position in positions_of(ended.roster))


def read_book(url: str, rounds: int) -> Book:
    """Read it from the database.  Raises StromkreisError where no epoch was ever laid out."""
    store = Store(url)
    try:
        with store.read() as connection:
            every = [epoch_of(row) for row in connection.execute(select(epochs).order_by(epochs.c.epoch)).mappings()]
        first = {epoch.area: epoch for epoch in reversed(every)}
        members = {(ring.epoch, ring.ring): ring.members for e in first.values() for ring in store.epoch_rings(e.epoch)}
        ended = [each for epoch in first.values() for each in store.epoch_outcomes(epoch.epoch) if each.round < rounds]
    finally:
        store.close()
    if not first:
        raise StromkreisError("the coordinator laid out no epoch: too few gateways joined")
    return Book(tuple(first.values()), members, tuple(ended), rounds)


@dataclass(frozen=True, slots=True)
class Report:
    """`report.json`; latencies from a round's opening to its end, costs over the processes that host gateways."""

    rounds: int
    rings: int
    opened: int
    void: int
    exact: bool
    conservation_error_wh: float
    round_ms_p50: float
    round_ms_p95: float
    gateways: int
    killed: int
    recovered: int
    cpu_ms_per_gateway_round: float
    memory_kb_per_gateway: float
    processes: int
    opened_of_expected: float
    energy_import_wh: float
    energy_export_wh: float
    difference: str | None

    @property
    def failures(self) -> list[str]:
        """Why the demo failed, in sentences; empty where it did not."""
        found = []
        if not self.exact:
            found.append(f"a total is not what it must be: {self.difference}")
        if self.conservation_error_wh:
            found.append(f"energy is not conserved: {self.conservation_error_wh:g} Wh off")
        if self.opened_of_expected < _OPENED_MIN:
            found.append(f"only {self.opened_of_expected:.0%} of the ring rounds opened, expected {_OPENED_MIN:.0%}")
        return found


@dataclass(frozen=True, slots=True)
class Costs:
    """What the processes with gateways took: CPU seconds from the first round on, memory at the end."""

    cpu_s: float
    memory_kb: int
    processes: int


def judge(book: Book, epoch_config: EpochConfig, meters: Mapping[str, Sequence[SimulatedMeter]]) -> Verdict:
    """Hold every opened total against the meters, by gateway id."""
    by_number = {epoch.epoch: epoch for epoch in book.epochs}
    schemas = {epoch.schema.digest(): epoch.schema for epoch in book.epochs}
    if len(schemas) != 1:
        raise StromkreisError("the areas use different schemas; the demo knows one")
    rows = []
    for ended in book.ended:
        interval = epoch_config.interval_index(by_number[ended.epoch].interval_of(ended.round))
        q = Schedule.quarter_hour(interval)
        opened = ended.outcome is Outcome.OPENED
        roster = book.roster(ended) if opened else ()
        rows.append(RoundRow(ended.epoch, ended.ring, ended.round, q, opened, roster, ended.total))
    return check(next(iter(schemas.values())), meters, rows)


def make_report(
    book: Book, verdict: Verdict, costs: Costs, *, gateways: int, killed: Sequence[str], back_since_s: float | None
) -> Report:
    """Put the figures together; `killed` are gateway ids, back since that Unix time."""
    latencies_ms = sorted((e.ended_s - e.opened_s) * 1000 for e in book.ended if e.outcome is Outcome.OPENED) or [0.0]
    back: set[str] = set()
    if back_since_s is not None:
        for each in book.ended:
            if each.outcome is Outcome.OPENED and each.opened_s > back_since_s:
                back.update(book.roster(each))
    rounds = book.rounds
    return Report(
        rounds=rounds,
        rings=len(book.members),
        opened=verdict.opened,
        void=verdict.void,
        exact=verdict.exact,
        conservation_error_wh=float(verdict.conservation_error_wh),
        round_ms_p50=round(statistics.median(latencies_ms), 1),
        round_ms_p95=round(latencies_ms[min(len(latencies_ms) - 1, int(0.95 * len(latencies_ms)))], 1),
        gateways=gateways,
        killed=len(killed),
        recovered=len(back & set(killed)),
        cpu_ms_per_gateway_round=round(1000 * costs.cpu_s / (gateways * rounds), 3),
        memory_kb_per_gateway=round(costs.memory_kb / gateways, 1),
        processes=costs.processes,
        opened_of_expected=round(verdict.opened / max(1, book.expected), 4),
        energy_import_wh=float(verdict.energy_import_wh),
        energy_export_wh=float(verdict.energy_export_wh),
        difference=str(verdict.differences[0]) if verdict.differences else None,
    )


def write_report(report: Report, path: Path) -> None:
    """Keep it as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def print_report(report: Report, path: Path, console: Console) -> None:
    """The summary for a person."""
    table = Table(title="What the neighbourhood did", title_justify="left", box=None, show_header=False)
    for name, value in (
        ("gateways", f"{report.gateways} in {report.processes} processes, {report.rings} rings"),
        ("rounds", f"{report.rounds} quarter hours; {report.opened} ring rounds opened, {report.void} void"),
        ("energy", f"{report.energy_import_wh:,.1f} Wh taken, {report.energy_export_wh:,.1f} Wh fed in"),
        ("exact", "yes, every slot of every total" if report.exact else "NO"),
        ("energy lost", f"{report.conservation_error_wh:g} Wh"),
        ("killed", f"{report.killed} gateways without warning, {report.recovered} of them back in a total"),
        ("a round took", f"{report.round_ms_p50:g} ms (median), {report.round_ms_p95:g} ms (95 of 100)"),
        (
            "a gateway cost",
            f"{report.cpu_ms_per_gateway_round:g} ms of CPU a round, {report.memory_kb_per_gateway:,.0f} KB of memory",
        ),
        ("report", str(path)),
    ):
        table.add_row(name, value)
    console.print(table, highlight=False)
    for failure in report.failures:
        console.print(f"FAILED: {failure}", style="bold red", highlight=False)
