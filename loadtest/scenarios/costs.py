"""What a gateway costs in a run, beside what its cryptography and machines cost alone on the same machine."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from loadtest.bench.rounds import play, ring_size
from loadtest.demo.costs import Counts
from loadtest.scenarios.plan import Plan
from loadtest.scenarios.recovery import Interval
from loadtest.scenarios.samples import Samples

_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Costs:
    """
    Of the processes of one run, from the first round on unless it says set-up.

    CPU is by gateway and round, over all rounds of the run and its restarts; `gateway_cpu_ms_per_round` is that of the
    processes with gateways that nobody killed.  Memory is proportional (PSS) at the end, the interpreter of each
    process included.  Bytes are payload on ZeroMQ links, without CURVE, TCP and IP; those at the
    coordinators are among the gateways' as well.  `round_wall_s` is the median from a round's opening to its
    last ring's total, `round_cpu_s` the CPU of all processes in a round's period.
    """

    gateway_cpu_ms_per_round: float
    machine_cpu_ms_per_gateway_round: float
    all_nodes_cpu_ms_per_gateway_round: float
    coordinator_cpu_ms_per_gateway_round: float
    meters_cpu_ms_per_gateway_round: float
    memory_kb_per_gateway: float
    coordinator_memory_kb_per_gateway: float
    memory_kb_in_all: int
    sent_bytes_per_gateway_round: float
    received_bytes_per_gateway_round: float
    setup_sent_bytes_per_gateway: float
    setup_received_bytes_per_gateway: float
    coordinator_bytes_per_gateway_round: float
    coordinator_setup_bytes_per_gateway: float
    setup_s: float
    setup_cpu_ms_per_gateway: float
    round_wall_s: float
    round_cpu_s: float


def measured(
    plan: Plan, samples: Samples, found: Sequence[Interval], period_s: float, killed: frozenset[str],
    *, setup_s: float, setup_cpu_s: float, words: int,
) -> Costs:  # fmt: skip
    """The costs of a run; `killed` are the processes that did not live through it."""
    gateways, rounds = plan.scenario.gateways, max(1, len(found))
    nodes = {node.name: len(node.gateways) for node in plan.nodes}
    meters = {each.name for each in plan.meters}
    coordinators = samples.cpu_s.keys() - nodes.keys() - meters
    steady = {name: count for name, count in nodes.items() if name not in killed} or nodes
    span_s = max(1e-6, _span_s(samples))
    in_rounds = span_s / period_s

    def cpu_ms(names: Sequence[str] | frozenset[str] | set[str], count: int) -> float:
        return round(1000 * sum(samples.cpu_s[name] for name in names) / (max(1, count) * in_rounds), 3)

    counts, setup = _sum(samples.bytes_of, nodes), _sum(samples.setup_bytes, nodes)
    hub_counts, hub_setup = _sum(samples.bytes_of, coordinators), _sum(samples.setup_bytes, coordinators)
    per_gateway_round = gateways * rounds
    return Costs(
        gateway_cpu_ms_per_round=cpu_ms(set(steady), sum(steady.values())),
        machine_cpu_ms_per_gateway_round=round(machine_cpu_ms(plan.scenario.ring_size, words), 3),
        all_nodes_cpu_ms_per_gateway_round=cpu_ms(set(nodes), gateways),
        coordinator_cpu_ms_per_gateway_round=cpu_ms(set(coordinators), gateways),
        meters_cpu_ms_per_gateway_round=cpu_ms(meters, gateways),
        memory_kb_per_gateway=round(samples.memory_kb(nodes) / gateways, 1),
        coordinator_memory_kb_per_gateway=round(samples.memory_kb(coordinators) / gateways, 1),
        memory_kb_in_all=samples.memory_kb([*nodes, *coordinators]),
        sent_bytes_per_gateway_round=round(counts["sent", 0.0] / per_gateway_round, 1),
        received_bytes_per_gateway_round=round(counts["received", 0.0] / per_gateway_round, 1),
        setup_sent_bytes_per_gateway=round(setup["sent", 0.0] / gateways, 1),
        setup_received_bytes_per_gateway=round(setup["received", 0.0] / gateways, 1),
        coordinator_bytes_per_gateway_round=round(_bytes(hub_counts) / per_gateway_round, 1),
        coordinator_setup_bytes_per_gateway=round(_bytes(hub_setup) / gateways, 1),
        setup_s=round(setup_s, 1),
        setup_cpu_ms_per_gateway=round(1000 * setup_cpu_s / gateways, 1),
        round_wall_s=round(statistics.median([each.took_s for each in found] or [0.0]), 3),
        round_cpu_s=round(sum(samples.cpu_s.values()) / in_rounds, 3),
    )


def machine_cpu_ms(size: int, words: int) -> float:
    """CPU of one round's machines and cryptography in this process, by gateway, in ms: the head's part included."""
    made = ring_size(size, words)
    return 1000 * statistics.median(play(made, frozenset()).all_s for _ in range(_REPEATS)) / size


def _span_s(samples: Samples) -> float:
    times = [each.at_s for each in samples.samples]
    return max(times, default=0.0) - min(times, default=0.0)


def _bytes(counts: Counts) -> int:
    return counts["sent", 0.0] + counts["received", 0.0]


def _sum(counts: Mapping[str, Counts], names: Iterable[str]) -> Counts:
    total: Counts = Counter()
    for name in names:
        total.update(counts.get(name, Counter()))
    return total
