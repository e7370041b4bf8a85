"""
What the processes of a load test take over time: CPU, memory, bytes, phases of rounds, gateways that wait.

The system is asked for CPU and memory, the processes' own `/metrics` for the rest, as an operator's Prometheus would:
counters of a process that was started again begin anew, so what they grew by is added up.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from loadtest.demo.costs import Counts, Phase, counts_in, phases
from loadtest.demo.processes import Usage, usage
from loadtest.scenarios.http_get import get
from loadtest.scenarios.installation import Installation, Process

_WAITING = "stromkreis_node_waiting_gateways"


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at a time since the first round: CPU seconds over all its lives, memory now (PSS)."""

    at_s: float
    process: str
    cpu_s: float
    memory_kb: int


@dataclass(frozen=True, slots=True)
class PhaseSample:
    """The phases of the rounds since the sample before."""

    at_s: float
    phases: Mapping[str, Phase]


@dataclass(slots=True)
class _Life:
    pid: int
    before: Usage = field(default_factory=Usage)


@dataclass(slots=True)
class Samples:
    """The figures of a run so far."""

    samples: list[Sample] = field(default_factory=list)
    phases: list[PhaseSample] = field(default_factory=list)
    waiting: list[tuple[float, int]] = field(default_factory=list)
    """Gateways that came back too often and may not yet be in a total, by time."""
    bytes_of: dict[str, Counts] = field(default_factory=dict)
    """Bytes by direction since the first round, of each process."""
    setup_bytes: dict[str, Counts] = field(default_factory=dict)
    cpu_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _lives: dict[str, _Life] = field(default_factory=dict)
    _counts: dict[str, tuple[int, Counts]] = field(default_factory=dict)
    _phases: Counts = field(default_factory=Counter)

    def begin(self, installation: Installation) -> float:
        """The first round is about to begin: what came before is set-up; how much CPU of all processes, in s."""
        before = {name: usage(pid) for name, pid in _pids(installation)}
        self._lives = {name: _Life(pid, before[name]) for name, pid in _pids(installation) if name in before}
        return sum(each.cpu_s for each in before.values())

    def look(self, installation: Installation, at_s: float) -> None:
        """CPU and memory of every process that runs."""
        for name, pid in _pids(installation):
            now, life = usage(pid), self._lives.get(name)
            if life is None or life.pid != pid:
                life = self._lives[name] = _Life(pid)
            if not now.cpu_s:
                continue  # it has just ended
            self.cpu_s[name] += now.cpu_s - life.before.cpu_s
            life.before = now
            self.samples.append(Sample(round(at_s, 2), name, round(self.cpu_s[name], 3), now.memory_kb))

    async def scrape(self, installation: Installation, at_s: float) -> None:
        """Counters of every process with gateways, and of the coordinators."""
        waiting = 0
        for process in (*installation.nodes, *installation.all_coordinators):
            if process.child is None:
                continue
            answer = await get(f"{process.url}/metrics", installation.site.hub)
            if answer is None or process.child is None:
                continue
            self._take(process, process.child.pid, answer[1])
            waiting += gauge(answer[1], _WAITING)
        if self._phases:
            found = phases(self._phases)
            if found:
                self.phases.append(PhaseSample(round(at_s, 2), found))
            self._phases = Counter()
        self.waiting.append((round(at_s, 2), waiting))

    def _take(self, process: Process, pid: int, text: str) -> None:
        counts = counts_in(text)
        known = self._counts.get(process.name)
        self._counts[process.name] = pid, counts
        if known is None:
            self.setup_bytes[process.name] = counts
            return
        grown = Counter(counts)
        if known[0] == pid:
            grown.subtract(known[1])
        sums = self.bytes_of.setdefault(process.name, Counter())
        for key, value in grown.items():
            (sums if key[0] in {"sent", "received"} else self._phases)[key] += value
            if key[0] not in {"sent", "received"}:
                sums[key] += value

    def all_phases(self) -> dict[str, Phase]:
        """The distribution over the whole run."""
        total: Counts = Counter()
        for each in self.bytes_of.values():
            total.update({key: value for key, value in each.items() if key[0] not in {"sent", "received"}})
        return phases(total)

    def memory_kb(self, names: Iterable[str]) -> int:
        """The newest samples of these processes, added up."""
        newest = {each.process: each.memory_kb for each in self.samples}
        return sum(newest.get(name, 0) for name in names)


def gauge(text: str, name: str) -> int:
    """The sum of a gauge's series on a `/metrics` page; 0 where there is none."""
    for family in text_string_to_metric_families(text):
        if family.name == name:
            return int(sum(each.value for each in family.samples))
    return 0


def _pids(installation: Installation) -> list[tuple[str, int]]:
    running = [
        (each.name, each.child.pid)
        for each in (*installation.all_coordinators, *installation.nodes)
        if each.child is not None and each.is_up
    ]
    return [*running, *((child.name, child.pid) for child in installation.meters)]
