"""
What load tests of several sizes say of sizes that one machine does not hold: a line fitted to each cost.

Every cost is a fixed part (interpreters, libraries, databases) and a part for each gateway, fitted to the runs by least
squares of the relative errors, both not negative.  What is made of it for a country rests on the assumptions that the
table names; nothing here is measured beyond the largest run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from loadtest.scenarios.costs import Costs
from loadtest.scenarios.plan import INTERVAL_S
from loadtest.scenarios.scenario import Scenario
from protocol.errors import StromkreisError

ROUNDS_A_DAY = 86_400 // INTERVAL_S
EPOCHS_A_DAY = 3  # of 32 rounds, the default
GATEWAYS_A_POD, GATEWAYS_A_COORDINATOR = 3_000, 10_000
SIZES = (10_000, 1_000_000, 40_000_000)
_OPENING_S = 600  # in which an epoch of all gateways of a coordinator opens
_CORE_USE = 0.5  # of a core's time, so that a round is over in time and a pod that restarts catches up


@dataclass(frozen=True, slots=True)
class Run:
    """One load test's report as it is in its file."""

    gateways: int
    values: Mapping[str, Any]

    @property
    def costs(self) -> Mapping[str, float]:
        """What `loadtest.scenarios.costs` measured."""
        found: Mapping[str, float] = self.values["costs"]
        return found


@dataclass(frozen=True, slots=True)
class Line:
    """A cost of a number of gateways: `fixed` and `each` in `unit`; `error` is the largest relative one of the fit."""

    what: str
    unit: str
    fixed: float
    each: float
    error: float

    def at(self, gateways: float) -> float:
        """The cost of so many."""
        return self.fixed + self.each * gateways


_COSTS: tuple[tuple[str, str, Callable[[Run], float]], ...] = (
    ("CPU of gateways, a round", "s", lambda r: r.costs["all_nodes_cpu_ms_per_gateway_round"] * r.gateways / 1000),
    ("CPU of coordinators, a round", "s",
     lambda r: r.costs["coordinator_cpu_ms_per_gateway_round"] * r.gateways / 1000),
    ("CPU of set-up, once", "s", lambda r: r.costs["setup_cpu_ms_per_gateway"] * r.gateways / 1000),
    ("memory of gateways", "MB", lambda r: r.costs["memory_kb_per_gateway"] * r.gateways / 1000),
    ("memory of coordinators", "MB", lambda r: r.costs["coordinator_memory_kb_per_gateway"] * r.gateways / 1000),
    ("bytes sent and received by gateways, a round", "KB",
     lambda r: (r.costs["sent_bytes_per_gateway_round"] + r.costs["received_bytes_per_gateway_round"])
     * r.gateways / 1000),
    ("bytes of set-up", "KB",
     lambda r: (r.costs["setup_sent_bytes_per_gateway"] + r.costs["setup_received_bytes_per_gateway"])
     * r.gateways / 1000),
    ("bytes at coordinators, a round", "KB",
     lambda r: r.costs["coordinator_bytes_per_gateway_round"] * r.gateways / 1000),
    ("bytes of set-up at coordinators", "KB",
     lambda r: r.costs["coordinator_setup_bytes_per_gateway"] * r.gateways / 1000),
)  # fmt: skip


def read_run(path: Path) -> Run:
    """A `report.json`, or that of a directory.  Raises StromkreisError where it is none, or an older release's."""
    file = path / "report.json" if path.is_dir() else path
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        run = Run(int(values["gateways"]), values)
        if missing := {each.name for each in fields(Costs)} - run.costs.keys():
            raise KeyError(min(missing))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StromkreisError(f"{file}: no report of a load test ({type(error).__name__})") from None
    return run


def is_of(path: Path, scenario: Scenario) -> bool:
    """Whether a directory has the report of this very scenario, by this version of the program."""
    try:
        values = read_run(path).values
        return bool(
            values["scenario"] == scenario.model_dump(mode="json") and values["version"] == version("stromkreis")
        )
    except (StromkreisError, KeyError):
        return False


def fit(runs: Sequence[Run]) -> list[Line]:
    """The lines of all costs.  Raises StromkreisError for fewer than two sizes."""
    if _sizes(runs) < 2:
        raise StromkreisError("a fit needs load tests of at least two sizes")
    return [_line(what, unit, [(run.gateways, cost(run)) for run in runs]) for what, unit, cost in _COSTS]


def _line(what: str, unit: str, points: Sequence[tuple[int, float]]) -> Line:
    sizes = np.array([size for size, _ in points], dtype=float)
    values = np.array([max(1e-9, value) for _, value in points])
    candidates = [(0.0, float(np.mean(values / sizes))), (float(np.exp(np.mean(np.log(values)))), 0.0)]
    columns = np.stack([1 / values, sizes / values], axis=1)
    fixed, each = np.linalg.lstsq(columns, np.ones(len(points)), rcond=None)[0]
    if fixed >= 0 and each >= 0:
        candidates = [(float(fixed), float(each))]

    def errors(candidate: tuple[float, float]) -> Any:
        return np.abs((candidate[0] + candidate[1] * sizes) / values - 1)

    best = min(candidates, key=lambda candidate: float(np.sum(errors(candidate) ** 2)))
    return Line(what, unit, *best, float(np.max(errors(best))))


def page(runs: Sequence[Run], failed: Mapping[int, str] = MappingProxyType({})) -> str:
    """
    `docs/scale.md`: how it was measured, what was measured, what follows, and what that rests on.

    `failed` are sizes that could not be played, or whose run failed, with the reason.
    """
    largest = max(runs, key=lambda run: run.gateways)
    values = largest.values
    when = ", ".join(sorted({str(run.values["started_at"])[:10] for run in runs}))
    assumptions = (
        f"a round is a quarter hour, an epoch {ROUNDS_A_DAY // EPOCHS_A_DAY} rounds; each epoch costs its gateways what"
        " the set-up of a run did, enrolment included, which is more than an epoch takes",
        f"a pod has {GATEWAYS_A_POD:,} gateways and a coordinator {GATEWAYS_A_COORDINATOR:,}, in rings of"
        f" {values['scenario']['ring_size']} and areas that are independent: the fixed part of each line is counted for"
        " every pod and every coordinator",
        f"cores are used to {_CORE_USE:.0%} of their time on average; gateways of the field have a processor of their"
        " own, and are in the table as what a load test or a data centre would need",
        "a row a day is a ring's round; totals of areas, logs and deliveries come on top",
        "every size was measured on one machine, over loopback: bytes are payload, without CURVE, TCP and IP, and rings"
        " call their heads directly: with `link.mode = relay` a ring's messages pass the coordinator as well",
    )
    failures = [f"- {size:,} gateways failed: {reason}." for size, reason in sorted(failed.items())]
    return "\n".join((
        "# Scale", "",
        f"Measured on {when}: the scenario `{values['scenario']['name']}` at several sizes"
        f" ({values['scenario']['churn']:.0%} of the gateways killed in every round, rings of"
        f" {values['scenario']['ring_size']}), on {values['cpu_count']} cores, {values['machine']}, Python"
        f" {values['python']}.", "",
        "To measure it anew, on a machine that does nothing else meanwhile: `make loadtest-scale`, or"
        ' `make loadtest-scale SIZES="100 1000"`. A size that passed (`out/scale/`) is not played again, so a'
        " series that was stopped goes on (`stromkreis loadtest series --help`), and this page is written after each"
        " size. [Load tests](howto/loadtest.md) says how each figure is taken.", "",
        *tables(runs), *(["", *failures] if failures else []), "",
        *(("The model rests on these assumptions:", "", *(f"- {each}." for each in assumptions), "")
          if _sizes(_held(runs)) > 1 else ()),
    ))  # fmt: skip


def tables(runs: Sequence[Run]) -> list[str]:
    """Markdown: the runs, the fitted lines, and what they give for `SIZES`."""
    ordered = sorted(runs, key=lambda run: run.gateways)
    lines = [
        "| gateways | rings | round, all rings | CPU a gateway and round | its machines alone | coordinator's"
        " | KB a gateway | KB at the coordinator | bytes a round | set-up | ring rounds opened, void | exact |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in ordered:
        costs, values = run.costs, run.values
        exact = "yes" if values["is_exact"] and not values["conservation_error_wh"] else "NO"
        exact = exact if values["opened"] else "no total"
        lines.append(
            f"| {run.gateways:,} | {values['rings']:,} | {costs['round_wall_s']:.2f} s"
            f" | {costs['gateway_cpu_ms_per_round']:.2f} ms | {costs['machine_cpu_ms_per_gateway_round']:.2f} ms"
            f" | {costs['coordinator_cpu_ms_per_gateway_round']:.2f} ms | {costs['memory_kb_per_gateway']:,.0f}"
            f" | {costs['coordinator_memory_kb_per_gateway']:,.0f}"
            f" | {costs['sent_bytes_per_gateway_round'] + costs['received_bytes_per_gateway_round']:,.0f}"
            f" | {costs['setup_s']:,.0f} s, {costs['setup_cpu_ms_per_gateway']:,.0f} ms CPU each"
            f" | {values['opened']:,}, {values['void']:,} | {exact} |"
        )
    if _sizes(_held(runs)) < 2:
        return lines
    fitted = fit(_held(runs))
    lines += ["", "| cost | fixed | each gateway | largest error of the fit |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {line.what} | {_short(line.fixed)} {line.unit} | {_short(1000 * line.each)} {_thousandth(line.unit)}"
        f" | {100 * line.error:.0f} % |"
        for line in fitted
    ]
    return [*lines, "", *_country(fitted, ordered[-1].values["scenario"]["ring_size"])]


def _held(runs: Sequence[Run]) -> list[Run]:
    """Those that opened totals: what rounds cost that open nothing says nothing of those that do."""
    return [run for run in runs if run.values["opened"]]


def _sizes(runs: Sequence[Run]) -> int:
    return len({run.gateways for run in runs})


def _thousandth(unit: str) -> str:
    return {"s": "ms", "MB": "KB", "KB": "bytes"}[unit]


def _country(fitted: Sequence[Line], ring_size: int) -> list[str]:
    """The fixed part of a run is that of its processes: it is taken for each pod and each coordinator."""
    by_name = {line.what: line for line in fitted}
    nodes, coordinators = by_name["CPU of gateways, a round"], by_name["CPU of coordinators, a round"]
    setup, memory = by_name["CPU of set-up, once"], by_name["memory of gateways"]
    at_coordinators = by_name["memory of coordinators"]
    traffic = by_name["bytes sent and received by gateways, a round"]
    rounds, openings = by_name["bytes at coordinators, a round"], by_name["bytes of set-up at coordinators"]
    lines = [
        f"| gateways | pods of {GATEWAYS_A_POD:,} | cores for them | memory | coordinators of"
        f" {GATEWAYS_A_COORDINATOR:,} | cores | memory | bandwidth of all coordinators, on average | rows a day |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for size in SIZES:
        pods, hubs = math.ceil(size / GATEWAYS_A_POD), math.ceil(size / GATEWAYS_A_COORDINATOR)
        daily_s = ROUNDS_A_DAY * (nodes.each * size + pods * nodes.fixed) + EPOCHS_A_DAY * setup.each * size
        hub_daily_s = ROUNDS_A_DAY * (coordinators.each * size + hubs * coordinators.fixed)
        hub_daily_kb = ROUNDS_A_DAY * (rounds.each * size + hubs * rounds.fixed) + EPOCHS_A_DAY * (
            openings.each * size + hubs * openings.fixed
        )
        lines.append(
            f"| {size:,} | {pods:,} | {_cores(daily_s)} | {_gb(memory.each * size + pods * memory.fixed)}"
            f" | {hubs:,} | {_cores(hub_daily_s)} | {_gb(at_coordinators.each * size + hubs * at_coordinators.fixed)}"
            f" | {_mbit_s(hub_daily_kb, 86_400)} | {ROUNDS_A_DAY * size / ring_size:,.0f} |"
        )
    opening = _mbit_s(openings.at(GATEWAYS_A_COORDINATOR), _OPENING_S)
    return [
        *lines, "",
        f"A gateway sends and receives {1000 * traffic.each:,.0f} bytes a round:"
        f" {1000 * traffic.each * 8 / INTERVAL_S:,.0f} bit/s of payload on average. A coordinator of"
        f" {GATEWAYS_A_COORDINATOR:,} passes {opening} while an epoch opens within {_OPENING_S // 60} minutes.",
    ]  # fmt: skip


def _mbit_s(kilobytes: float, seconds: float) -> str:
    return f"{_short(8 * kilobytes / 1000 / seconds)} Mbit/s"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _cores(cpu_s_a_day: float) -> str:
    return f"{max(1, math.ceil(cpu_s_a_day / 86_400 / _CORE_USE)):,}"


def _gb(megabytes: float) -> str:
    return f"{megabytes / 1000:,.1f} GB"
