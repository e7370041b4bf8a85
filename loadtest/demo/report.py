"""
The verdict: the durable round recorded against ground truth, and what the run cost.

It reads the coordinator's database, not what was shown: a total that a person saw but that a crash would lose does not
count.  Only the rounds that were asked for are judged; a demo that stays up goes on beyond them.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from coordinator.epoch_config import EpochConfig
from coordinator.storage.epochs import EpochRecord
from coordinator.storage.store import Store
from loadtest.demo.costs import Costs, Counts, Phase, Sample, Spent, phases
from loadtest.demo.plan import INTERVAL_S, DemoSettings, Schedule
from loadtest.demo.processes import cpu_count
from loadtest.households import SimulatedMeter
from loadtest.truth import RoundRow, Verdict, check, zeros_of
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.rings import positions_of
from protocol.errors import StromkreisError
from protocol.wire import Outcome

_OPENED_MIN = 0.9


@dataclass(frozen=True, slots=True)
class RecordedRounds:
    """The durable rounds of a run's first `rounds` quarter hours; `rings` are those of each area's first epoch."""

    epochs: tuple[EpochRecord, ...]
    members: Mapping[tuple[int, int], tuple[str, ...]]
    ended: tuple[Ended, ...]
    rounds: int
    rings: int

    @property
    def expected(self) -> int:
        """How many ring rounds there should be."""
        return self.rounds * self.rings

    def roster(self, ended: Ended) -> tuple[str, ...]:
        """The gateways in an opened total."""
        members = self.members[ended.epoch, ended.ring]
        return tuple(members[position] for position in positions_of(ended.roster))


def read_rounds(url: str, rounds: int) -> RecordedRounds:
    """Read it from the database.  Raises StromkreisError where no epoch was ever laid out."""
    store = Store(url)
    try:
        epochs = sorted(store.epochs.all(), key=lambda each: each.epoch)
        layouts = {each.epoch: store.epochs.layout(each.epoch) for each in epochs}
        ended = [(each.interval_of(row.round), row) for each in epochs for row in store.rounds.of_epoch(each.epoch)]
    finally:
        store.close()
    if not epochs:
        raise StromkreisError("the coordinator laid out no epoch: too few gateways joined")
    # An epoch that cannot open ends early, and the next goes on with the quarter hours.
    end_s = min((start_s for start_s, _ in ended), default=0) + rounds * INTERVAL_S
    first = {each.area: each.epoch for each in reversed(epochs)}
    return RecordedRounds(
        epochs=tuple(epochs),
        members={(ring.epoch, ring.ring): ring.members for each in layouts.values() for ring in each},
        ended=tuple(row for start_s, row in ended if start_s < end_s),
        rounds=rounds,
        rings=sum(len(layouts[number]) for number in first.values()),
    )


@dataclass(frozen=True, slots=True)
class RingRound:
    """How a ring's round ended; times in seconds since the first round of all."""

    area: str
    epoch: int
    ring: int
    round: int
    opened: bool
    attempt: int
    members: int
    present: int
    opened_at_s: float
    latency_ms: float
    reason: str


@dataclass(frozen=True, slots=True)
class Outage:
    """The process that was killed, its gateways, and when; seconds since the first round."""

    process: str
    gateways: tuple[str, ...]
    killed_at_s: float
    back_at_s: float | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What was played, on what: with the same seed and sizes the households and their order are the same."""

    started_at: str
    version: str
    seed: int
    period_s: float
    interval_s: int
    areas: int
    ring_size: int
    corrupt: float
    dropout: float
    recorded_meters: bool
    python: str
    machine: str
    cpu_count: int


@dataclass(frozen=True, slots=True)
class Report:
    """
    `report.json`: the verdict, what it cost, and everything that a figure is drawn from.

    Latencies go from a round's opening to its end.  Costs are those of the processes that host gateways, from the
    first round on, all lives of a killed one; bytes are payload on ZeroMQ links, without CURVE, TCP and IP.
    """

    rounds: int
    rings: int
    opened: int
    void: int
    retries: int
    exact: bool
    conservation_error_wh: float
    round_ms_p50: float
    round_ms_p95: float
    round_ms_max: float
    phases: Mapping[str, Phase]
    gateways: int
    killed: int
    recovered: int
    cpu_ms_per_gateway_round: float
    memory_kb_per_gateway: float
    sent_bytes_per_gateway_round: float
    received_bytes_per_gateway_round: float
    setup_sent_bytes_per_gateway: float
    setup_received_bytes_per_gateway: float
    coordinator_cpu_ms_per_gateway_round: float
    coordinator_memory_kb: int
    processes: int
    opened_of_expected: float
    energy_import_wh: float
    energy_export_wh: float
    carrying: int
    carried_wh: float
    difference: str | None
    settings: Settings
    outage: Outage | None
    ring_rounds: tuple[RingRound, ...]
    samples: tuple[Sample, ...]

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


def judge(
    recorded: RecordedRounds,
    epoch_config: EpochConfig,
    meters: Mapping[str, Sequence[SimulatedMeter]],
    firsts: Iterable[tuple[str, Sequence[int]]] = (),
) -> Verdict:
    """
    Hold every opened total against the meters, by gateway id.

    `firsts` are the registers with which the gateways' accounts began, by slot: on a busy machine that is a quarter
    hour or two late.  One that began later than the gateway's first total is no such beginning: it would have lost
    what came before, and the totals show that.
    """
    by_number = {epoch.epoch: epoch for epoch in recorded.epochs}
    schemas = {epoch.schema.digest(): epoch.schema for epoch in recorded.epochs}
    if len(schemas) != 1:
        raise StromkreisError("the areas use different schemas; the demo knows one")
    rows = []
    for ended in recorded.ended:
        interval = epoch_config.interval_index(by_number[ended.epoch].interval_of(ended.round))
        q = Schedule.quarter_hour(interval)
        opened = ended.outcome is Outcome.OPENED
        roster = recorded.roster(ended) if opened else ()
        rows.append(RoundRow(ended.epoch, ended.ring, ended.round, q, opened, roster, ended.total))
    (schema,) = schemas.values()
    zeros = zeros_of(schema, meters, firsts, max((row.q for row in rows), default=0))
    shown_q = {name: row.q for row in sorted(rows, key=lambda row: -row.q) for name in row.roster}
    zeros = {name: each for name, each in zeros.items() if each[0] <= shown_q.get(name, each[0])}
    return check(schema, meters, rows, zeros=zeros)


def make_report(
    settings: DemoSettings,
    recorded: RecordedRounds,
    verdict: Verdict,
    costs: Costs,
    *,
    origin_unix_s: float,
    outage: Outage | None,
) -> Report:
    """Put the figures together; the first round was opened at `origin_unix_s`."""
    ring_rounds = tuple(_ring_round(recorded, each, origin_unix_s) for each in recorded.ended)
    latencies_ms = sorted(each.latency_ms for each in ring_rounds if each.opened) or [0.0]
    coordinator = costs.spent.get("coordinator", Spent())
    nodes = [spent for name, spent in costs.spent.items() if name != "coordinator"]
    counts, setup = _sum(spent.counts for spent in nodes), _sum(spent.setup for spent in nodes)
    gateways, rounds = settings.gateways, recorded.rounds
    return Report(
        rounds=rounds,
        rings=recorded.rings,
        opened=verdict.opened,
        void=verdict.void,
        retries=sum(each.attempt for each in ring_rounds),
        exact=verdict.exact,
        conservation_error_wh=float(verdict.conservation_error_wh),
        round_ms_p50=round(statistics.median(latencies_ms), 1),
        round_ms_p95=round(latencies_ms[min(len(latencies_ms) - 1, int(0.95 * len(latencies_ms)))], 1),
        round_ms_max=latencies_ms[-1],
        phases=phases(counts),
        gateways=gateways,
        killed=len(outage.gateways) if outage is not None else 0,
        recovered=len(_back(recorded, outage, origin_unix_s)) if outage is not None else 0,
        cpu_ms_per_gateway_round=round(1000 * sum(spent.cpu_s for spent in nodes) / (gateways * rounds), 3),
        memory_kb_per_gateway=round(sum(spent.memory_kb for spent in nodes) / gateways, 1),
        sent_bytes_per_gateway_round=round(counts["sent", 0.0] / (gateways * rounds), 1),
        received_bytes_per_gateway_round=round(counts["received", 0.0] / (gateways * rounds), 1),
        setup_sent_bytes_per_gateway=round(setup["sent", 0.0] / gateways, 1),
        setup_received_bytes_per_gateway=round(setup["received", 0.0] / gateways, 1),
        coordinator_cpu_ms_per_gateway_round=round(1000 * coordinator.cpu_s / (gateways * rounds), 3),
        coordinator_memory_kb=coordinator.memory_kb,
        processes=len(nodes),
        opened_of_expected=round(verdict.opened / max(1, recorded.expected), 4),
        energy_import_wh=float(verdict.energy_import_wh),
        energy_export_wh=float(verdict.energy_export_wh),
        carrying=verdict.carried,
        carried_wh=float(verdict.carried_wh),
        difference=str(verdict.differences[0]) if verdict.differences else None,
        settings=_settings(settings, origin_unix_s),
        outage=outage,
        ring_rounds=ring_rounds,
        samples=tuple(costs.samples),
    )


def _sum(counts: Iterable[Counts]) -> Counts:
    total: Counts = Counter()
    for each in counts:
        total.update(each)  # `+` would drop the buckets that nobody was in, and they say where the others begin
    return total


def _ring_round(recorded: RecordedRounds, ended: Ended, origin_unix_s: float) -> RingRound:
    area = next(epoch.area for epoch in recorded.epochs if epoch.epoch == ended.epoch)
    return RingRound(
        area, ended.epoch, ended.ring, ended.round, ended.outcome is Outcome.OPENED, ended.attempt,
        len(recorded.members[ended.epoch, ended.ring]), ended.roster.bit_count(),
        round(ended.opened_s - origin_unix_s, 3),
        round(1000 * (ended.ended_s - ended.opened_s), 1), ended.reason,
    )  # fmt: skip


def _back(recorded: RecordedRounds, outage: Outage, origin_unix_s: float) -> set[str]:
    """The killed gateways that were in a total of a round after their process was there again."""
    if outage.back_at_s is None:
        return set()
    back_since_s = origin_unix_s + outage.back_at_s
    late = [each for each in recorded.ended if each.outcome is Outcome.OPENED and each.opened_s > back_since_s]
    return {name for each in late for name in recorded.roster(each)} & set(outage.gateways)


def _settings(settings: DemoSettings, origin_unix_s: float) -> Settings:
    return Settings(
        started_at=datetime.fromtimestamp(origin_unix_s, UTC).isoformat(),
        version=importlib.metadata.version("stromkreis"),
        seed=settings.seed,
        period_s=settings.period_in_force_s,
        interval_s=INTERVAL_S,
        areas=len(settings.areas),
        ring_size=settings.ring_size_in_force,
        corrupt=EpochConfig().corrupt,
        dropout=settings.dropout,
        recorded_meters=settings.replay is not None,
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}",
        cpu_count=cpu_count(),
    )


def write_report(report: Report, path: Path) -> None:
    """Keep it as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def print_report(report: Report, path: Path, console: Console) -> None:
    """The summary for a person; `path` is the report to look at."""
    table = Table(title="What the neighbourhood did", title_justify="left", box=None, show_header=False)
    for name, value in (
        ("gateways", f"{report.gateways} in {report.processes} processes, {report.rings} rings"),
        ("rounds", f"{report.rounds} quarter hours; {report.opened} ring rounds opened, {report.void} void"),
        ("energy", f"{report.energy_import_wh:,.1f} Wh taken, {report.energy_export_wh:,.1f} Wh fed in"),
        ("exact", "yes, every slot of every total" if report.exact else "NO"),
        ("energy lost", f"{report.conservation_error_wh:g} Wh"),
        (
            "still carried",
            f"{report.carried_wh:,.1f} Wh of missed rounds, which {report.carrying} gateways release slowly",
        ),
        ("killed", f"{report.killed} gateways without warning, {report.recovered} of them back in a total"),
        ("a round took", f"{report.round_ms_p50:g} ms (median), {report.round_ms_p95:g} ms (95 of 100)"),
        (
            "a gateway cost",
            f"{report.cpu_ms_per_gateway_round:g} ms of CPU and"
            f" {report.sent_bytes_per_gateway_round + report.received_bytes_per_gateway_round:,.0f} bytes a round,"
            f" {report.memory_kb_per_gateway:,.0f} KB of memory",
        ),
        ("report", f"{path}, figures in {path.with_suffix('.json').name}"),
    ):
        table.add_row(name, value)
    console.print(table, highlight=False)
    for failure in report.failures:
        console.print(f"FAILED: {failure}", style="bold red", highlight=False)
