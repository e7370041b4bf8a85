"""
What the demo's processes take: CPU, memory, bytes on their links, and how long the phases of a round last.

The system is asked for CPU and memory, the processes' own `/metrics` for the rest, as an operator's Prometheus would.
A process that is killed and started again counts anew; so the figures of each life are added up, from the first round
on, and what came before it (enrolment, keys, deals) is counted apart as set-up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loadtest.demo.processes import Child, DemoError, Usage, usage

_PHASE = "stromkreis_node_round_phase_duration_seconds_bucket"
_SENT = {"stromkreis_sent_bytes_total": "sent", "stromkreis_received_bytes_total": "received"}
PHASES = ("collect", "confirm", "reveal", "sum", "round")

Counts = Counter[tuple[str, float]]  # ("sent" or "received", 0): bytes; (phase, bound in s): rounds up to it


def counts_in(text: str) -> Counts:
    """Bytes and phases of a `/metrics` page of a node or a coordinator."""
    counts: Counts = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "stromkreis_node_link_bytes_total":
                counts[sample.labels["direction"], 0.0] += int(sample.value)
            elif sample.name in _SENT:
                counts[_SENT[sample.name], 0.0] += int(sample.value)
            elif sample.name == _PHASE:
                counts[sample.labels["phase"], float(sample.labels["le"])] += int(sample.value)
    return counts


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at a time since the first round: CPU seconds of this life since then, memory now."""

    at_s: float
    process: str
    cpu_s: float
    memory_kb: int


@dataclass(slots=True)
class Spent:
    """A process from the first round on, over all its lives; `setup` are the bytes before it."""

    cpu_s: float = 0.0
    memory_kb: int = 0
    counts: Counts = field(default_factory=Counter)
    setup: Counts = field(default_factory=Counter)


@dataclass(slots=True)
class _Life:
    child: Child
    url: str
    anew: bool
    cpu_before_s: float = 0.0
    counts_before: Counts = field(default_factory=Counter)


class Costs:
    """The books of all processes; `begin` and `end` a life of each, `look` in between."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._lives: dict[str, _Life] = {}
        self.spent: dict[str, Spent] = {}
        self.samples: list[Sample] = []

    async def begin(self, child: Child, url: str, *, anew: bool = False) -> None:
        """From here on a process counts; `anew` where it was just started and all that it takes counts."""
        account = self.spent.setdefault(child.name, Spent())
        life = _Life(child, url, anew)
        if not anew:
            life.cpu_before_s, life.counts_before = usage(child.pid).cpu_s, await self._counts(life)
            account.setup.update(life.counts_before)
        self._lives[child.name] = life

    async def end(self, child: Child) -> None:
        """Take the figures of a life to its books, before it is stopped or killed."""
        life, account = self._lives.pop(child.name), self.spent[child.name]
        now = usage(child.pid)
        account.cpu_s += now.cpu_s - life.cpu_before_s
        account.memory_kb = now.memory_kb
        account.counts.update(await self._counts(life))
        account.counts.subtract(life.counts_before)

    def look(self, at_s: float) -> None:
        """Sample every living process; `at_s` is the time since the first round."""
        for name, life in self._lives.items():
            now: Usage = usage(life.child.pid)
            self.samples.append(Sample(round(at_s, 2), name, round(now.cpu_s - life.cpu_before_s, 3), now.memory_kb))

    async def _counts(self, life: _Life) -> Counts:
        try:
            response = await self._client.get(life.url, timeout=60.0)
            response.raise_for_status()
        except httpx.HTTPError as error:
            if life.anew and isinstance(error, httpx.ConnectError):
                return Counter()  # it is not up yet, and has sent nothing
            raise DemoError(f"{life.child.name} tells no metrics at {life.url} ({type(error).__name__})") from error
        return counts_in(response.text)


@dataclass(frozen=True, slots=True)
class Phase:
    """
    How many rounds had a phase behind them after so long, cumulative; the last bound is None: all.

    Counted at the heads from the OPEN they sent to the phase's end.  The quantiles lie in their buckets by proportion.
    """

    bounds_ms: tuple[float | None, ...]
    rounds: tuple[int, ...]
    p50_ms: float
    p95_ms: float


def phases(counts: Mapping[tuple[str, float], int]) -> dict[str, Phase]:
    """The distribution of every phase that was seen."""
    found = {}
    for name in PHASES:
        buckets = sorted((bound, count) for (phase, bound), count in counts.items() if phase == name)
        if buckets and buckets[-1][1]:
            bounds = tuple(None if bound == float("inf") else bound * 1000 for bound, _ in buckets)
            found[name] = Phase(
                bounds, tuple(count for _, count in buckets), _quantile(buckets, 0.5), _quantile(buckets, 0.95)
            )
    return found


def _quantile(buckets: list[tuple[float, int]], part: float) -> float:
    """In milliseconds, by proportion within the bucket; beyond the last bound that bound."""
    wanted, below_s, below = part * buckets[-1][1], 0.0, 0
    for bound_s, count in buckets:
        if count >= wanted and bound_s != float("inf"):
            return round(1000 * (below_s + (bound_s - below_s) * (wanted - below) / max(1, count - below)), 1)
        if bound_s != float("inf"):
            below_s, below = bound_s, count
    return round(1000 * below_s, 1)
