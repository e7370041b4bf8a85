"""
A scenario on this machine: which process hosts which gateways, areas, addresses, time, and each configuration file.

Plain computations, so that a test looks at ten thousand gateways without running one.  The gateways of every area are
dealt to the processes in proportion to their groups' shares, so that each ring loses about as much when one dies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from loadtest.config import MetersConfig
from loadtest.scenarios.scenario import Scenario
from node.descriptors import files_needed

INTERVAL_S = 900
METERING_DAY = datetime(2026, 6, 22, 8, 0).astimezone()  # a summer morning: roofs feed in
_START_QUARTER_HOUR = (METERING_DAY.timetuple().tm_yday - 1) * 96 + 8 * 4
_FILES = 19_000  # of the 20,000 that a process may usually open
PER_PROCESS_MAX = (_FILES - files_needed(0, 0)) // (files_needed(1, 1) - files_needed(0, 0))
_METERS_PER_PROCESS = 4_000  # a listening socket and a connection each
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway: its id, its place among all of them, area, and the process that hosts it."""

    id: str
    index: int
    area: str
    process: str


@dataclass(frozen=True, slots=True)
class NodePlan:
    """A process with gateways."""

    name: str
    group: str
    coordinator: int
    gateways: tuple[Gateway, ...]


@dataclass(frozen=True, slots=True)
class MetersPlan:
    """A process with the meters of some gateways, in their order; its seed makes its households its own."""

    name: str
    seed: int
    gateways: tuple[Gateway, ...]
    beside: str
    """The node in whose network namespace it runs, where there are some."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is known before anything starts; areas are those of each coordinator."""

    scenario: Scenario
    areas: tuple[tuple[str, ...], ...]
    nodes: tuple[NodePlan, ...]
    meters: tuple[MetersPlan, ...]

    @property
    def gateways(self) -> list[Gateway]:
        """All of them, in order."""
        return sorted((each for node in self.nodes for each in node.gateways), key=lambda each: each.index)


def make_plan(scenario: Scenario) -> Plan:
    """Deal gateways out to coordinators, areas and processes."""
    count = scenario.coordinators_in_force
    areas: list[tuple[str, ...]] = []
    nodes: list[NodePlan] = []
    first = 0
    for coordinator in range(count):
        gateways = (scenario.gateways - first) // (count - coordinator)
        number = max(1, round(gateways / scenario.area_size))
        mine = tuple(f"Area {coordinator * 1_000 + i + 1}" for i in range(number))
        areas.append(mine)
        nodes += _nodes(scenario, coordinator, mine, range(first, first + gateways))
        first += gateways
    return Plan(scenario, tuple(areas), tuple(nodes), tuple(_meters(nodes, apart=scenario.namespaces)))


def _nodes(scenario: Scenario, coordinator: int, areas: Sequence[str], indices: range) -> list[NodePlan]:
    places: list[tuple[str, str, float]] = []  # name, group, share of this coordinator's gateways
    for group in scenario.all_groups():
        processes = max(group.processes, math.ceil(group.share * len(indices) / PER_PROCESS_MAX))
        first = coordinator * processes
        places += [(f"{group.name}-{first + i + 1}", group.name, group.share / processes) for i in range(processes)]
    hosted: dict[str, list[Gateway]] = {name: [] for name, _, _ in places}
    total = sum(share for _, _, share in places)
    owed = dict.fromkeys(hosted, 0.0)
    for place, index in enumerate(indices):
        for name, _, share in places:
            owed[name] += share / total
        name = max(owed, key=lambda each: owed[each])
        owed[name] -= 1
        area = areas[place * len(areas) // len(indices)]
        hosted[name].append(Gateway(f"ESTK00{index:08d}", index, area, name))
    return [NodePlan(name, group, coordinator, tuple(hosted[name])) for name, group, _ in places if hosted[name]]


def _meters(nodes: Sequence[NodePlan], *, apart: bool) -> list[MetersPlan]:
    bins: list[list[NodePlan]] = []
    for node in nodes:
        held = sum(len(each.gateways) for each in bins[-1]) if bins else _METERS_PER_PROCESS
        if apart or held + len(node.gateways) > _METERS_PER_PROCESS:
            bins.append([])
        bins[-1].append(node)
    return [
        MetersPlan(f"meters-{i + 1}", i + 1, tuple(g for node in each for g in node.gateways), each[0].name)
        for i, each in enumerate(bins)
    ]


@dataclass(frozen=True, slots=True)
class Calendar:
    """When rounds begin: interval w of the coordinators is quarter hour w + 1 of the meters."""

    origin_unix_s: int
    period_s: float

    @property
    def meters_origin_unix_s(self) -> float:
        """The meters start one quarter hour early, so that the first round already has energy to tell."""
        return self.origin_unix_s - self.period_s

    @staticmethod
    def quarter_hour(interval: int) -> int:
        """The meters' quarter hour during the coordinators' interval."""
        return interval + 1


def setup_s(gateways: int, cores: int) -> float:
    """Time until the first round: processes, certificates, links, keys and deals; 0.12 s of one core a gateway."""
    return 12.0 + 0.12 * gateways / max(1, cores)


def meters_config(plan: MetersPlan, calendar: Calendar, work: Path, host: str) -> MetersConfig:
    """The neighbourhood of one process of meters."""
    return MetersConfig(
        count=len(plan.gateways), seed=plan.seed, first_port=0, host=host, origin_unix_s=calendar.meters_origin_unix_s,
        period_s=calendar.period_s, start_quarter_hour=_START_QUARTER_HOUR, meter_list=work / f"{plan.name}.json",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a coordinator listens, and where gateways find it (a relay of an emulated line, else the same)."""

    links: str
    web: str
    monitoring: str
    public_links: str | None = None
    public_web: str | None = None


def coordinator_section(
    scenario: Scenario, areas: Sequence[str], calendar: Calendar, data_dir: Path, addresses: Addresses
) -> dict[str, Any]:
    """`[coordinator]` of one of them; one that stands by differs in `web`."""
    section = {
        "listen": addresses.links,
        "public_endpoint": addresses.public_links,
        "data_dir": str(data_dir),
        # Where a restore of the data does not reach, as operators are told to have it.
        "log_dir": str(data_dir.with_name(f"{data_dir.name}-log")),
        "irrevocable": str(data_dir.with_name(f"{data_dir.name}-log") / "irrevocable.jsonl"),
        "areas": list(areas),
        "standby": scenario.standby,
        "web": {"listen": [addresses.web, addresses.monitoring]},
        "epoch": {
            "rounds": scenario.epoch_rounds,
            "period_s": calendar.period_s,
            "interval_s": INTERVAL_S,
            "origin_unix_s": calendar.origin_unix_s,
            "metering_origin_unix_s": int(METERING_DAY.timestamp()),
            "ring_size": scenario.ring_size,
            "corrupt": scenario.corrupt,
            "dropout": scenario.dropout,
        },
    }
    return {name: value for name, value in section.items() if value is not None}


def node_section(
    plan: NodePlan, meter_urls: Mapping[str, str], tokens: Mapping[str, str], *, data_dir: Path, addresses: Addresses,
    root_certificate: Path, metrics: str, host: str, scenario: Scenario,
) -> dict[str, Any]:  # fmt: skip
    """
    `[node]` of one process; `meter_urls` by gateway id, `tokens` by area.

    The policy is the default one, the limit of returns included, but for what a time lapse needs, and without profiles.
    """
    return {
        "policy": {
            "time_lapse": True,
            "epoch_rounds_min": min(16, scenario.epoch_rounds),
            "epoch_hours_max": 168,
            "contribute_without_profile": True,
        },
        "data_dir": str(data_dir),
        "coordinator": addresses.public_web or addresses.web,
        "root_certificate": str(root_certificate),
        "metrics": metrics,
        "link": {"mode": "direct" if scenario.lines is None else "relay", "listen": f"tcp://{host}:*"},
        "gateways": [
            {"id": each.id, "meters": [meter_urls[each.id]], "area": each.area, "token": tokens[each.area]}
            for each in plan.gateways
        ],
    }
