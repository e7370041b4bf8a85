"""
A laboratory's cluster under faults: what void rounds a fault costs, how soon everybody is in totals again, and in the
end whether every total is what the meters counted.
"""

from __future__ import annotations

import copy
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

import trio

from coordinator.epoch_config import EpochConfig
from coordinator.storage.store import Store
from loadtest.account import accounts_of, flown
from loadtest.config import MetersConfig
from loadtest.households import SimulatedMeter, households
from loadtest.truth import RoundRow, Verdict, check, zeros_of
from protocol import wire
from protocol.dcnet.setup.rings import positions_of
from tests.cluster.manifests import Object, named, of_kind, overlay
from tests.cluster.runner import Cluster

GATEWAYS, COORDINATOR = "stromkreis-gateways", "stromkreis-coordinator"
LOST = "lost-"  # before the name of a volume that its pod has lost
PERIOD_S = 3.0
EACH = 6  # gateways of a pod
_ZERO_Q_MAX = 4_000


def laboratory(
    replicas: int, *, name: str = "small", rounds: int = 8, dropout: float = 0.34, ring_size: int = 24
) -> list[Object]:
    """An overlay with time that goes by faster still, and `replicas` pods of `EACH` gateways."""
    objects = copy.deepcopy(overlay(name))
    (settings,) = [
        each["data"]
        for each in of_kind(objects, "ConfigMap")
        if each["metadata"]["name"].startswith("stromkreis-settings-")
    ]
    origin = str(int(time.time()))
    settings |= {
        "STROMKREIS_COORDINATOR__EPOCH__PERIOD_S": str(PERIOD_S),
        "STROMKREIS_COORDINATOR__EPOCH__ORIGIN_UNIX_S": origin,
        "STROMKREIS_COORDINATOR__EPOCH__ROUNDS": str(rounds),
        "STROMKREIS_COORDINATOR__EPOCH__RING_SIZE": str(ring_size),
        "STROMKREIS_COORDINATOR__EPOCH__DROPOUT": str(dropout),
        "STROMKREIS_NODE__FLEET__COUNT": str(EACH),
        "STROMKREIS_NODE__POLICY__EPOCH_ROUNDS_MIN": "1",
        "STROMKREIS_NODE__POLICY__REVEALS_MAX": "1000",
        "STROMKREIS_NODE__POLICY__AREA_SIZE_CONFIRMED": "1",
        "STROMKREIS_METERS__COUNT": str(EACH),
        "STROMKREIS_METERS__PERIOD_S": str(PERIOD_S),
        "STROMKREIS_METERS__ORIGIN_UNIX_S": origin,
    }
    named(objects, "StatefulSet", GATEWAYS)["spec"]["replicas"] = replicas
    return objects


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a fault did: ring rounds void and opened meanwhile, why, and when everybody was in a total again."""

    name: str
    void: int
    opened: int
    reasons: tuple[str, ...]
    rounds_until_whole: int
    whole_after_s: float

    def __str__(self) -> str:
        why = f" ({'; '.join(self.reasons)})" if self.reasons else ""
        return (
            f"{self.name:<52} void {self.void} of {self.void + self.opened}, whole after {self.rounds_until_whole} more"
            f" rounds, {self.whole_after_s:.1f} s{why}"
        )


@dataclass(slots=True)
class Trial:
    """Faults on a cluster that runs."""

    cluster: Cluster
    gateways: int

    async def until_whole(self, since_q: int, gateways: int, timeout_s: float = 150.0) -> int:
        """The first interval after `since_q` whose rings all opened with everybody in them."""
        with trio.move_on_after(timeout_s):
            while True:
                intervals: dict[int, int] = {}
                for each in await self._rounds():
                    if each["outcome"] == "opened":
                        intervals[each["q"]] = intervals.get(each["q"], 0) + each["present"]
                whole = [q for q, present in intervals.items() if q > since_q and present == gateways]
                if whole:
                    return min(whole)
                await trio.sleep(0.3)
        raise RuntimeError(f"not whole after {timeout_s} s\n{await self._rounds()}\n{self.cluster.describe()}")

    async def fault(
        self,
        name: str,
        do: Callable[[Cluster], Awaitable[object]],
        *,
        after: int | None = None,
        timeout_s: float = 150.0,
    ) -> Outcome:
        """Do it, wait until all gateways, `after` it perhaps others, are in totals again, and say what it cost."""
        seen_q = await self.until_whole(self.interval() - 2, self.gateways)
        self.gateways = after or self.gateways
        await do(self.cluster)
        over_s, over_q = trio.current_time(), self.interval()
        whole_q = await self.until_whole(over_q, self.gateways, timeout_s)
        took_s = trio.current_time() - over_s
        meanwhile = [each for each in await self._rounds() if seen_q < each["q"] <= whole_q]
        void = [each for each in meanwhile if each["outcome"] == "void"]
        reasons = tuple(f"{count}x {reason}" for reason, count in Counter(each["reason"] for each in void).items())
        return Outcome(name, len(void), len(meanwhile) - len(void), reasons, whole_q - over_q - 1, took_s)

    def interval(self) -> int:
        """The interval that has begun; its round is under way or over."""
        return int((time.time() - setting(self.cluster, "COORDINATOR__EPOCH__ORIGIN_UNIX_S")) / PERIOD_S)

    async def _rounds(self) -> list[Object]:
        try:
            body = await self.cluster.fetch(f"{COORDINATOR}-0", 7380, "/api/v1/rounds?limit=500")
        except (OSError, LookupError):
            return []
        items: list[Object] = json.loads(body)["items"]
        origin_s = setting(self.cluster, "COORDINATOR__EPOCH__ORIGIN_UNIX_S")
        for each in items:
            each["q"] = round((datetime.fromisoformat(each["interval_start"]).timestamp() - origin_s) / 900)
        return items


@dataclass(frozen=True, slots=True)
class Books:
    """What is on a stopped cluster's volumes: totals against meters, and against the gateways' own accounts."""

    verdict: Verdict
    is_conserved: bool

    @property
    def is_exact(self) -> bool:
        """Every total is what the meters counted, nothing lost, nothing twice."""
        return self.verdict.exact and self.verdict.conservation_error_wh == 0 and self.is_conserved


def audit(cluster: Cluster) -> Books:
    """Hold the books of a stopped cluster against its meters."""
    epoch = EpochConfig(
        period_s=PERIOD_S, origin_unix_s=setting(cluster, "COORDINATOR__EPOCH__ORIGIN_UNIX_S"), power=False
    )
    schema = epoch.aggregate_schema
    folder = cluster.directory / "volumes"
    volumes = [*sorted(folder.glob(f"{LOST}data-{GATEWAYS}-*")), *sorted(folder.glob(f"data-{GATEWAYS}-*"))]
    meters: dict[str, list[SimulatedMeter]] = {}
    firsts = []
    for volume in volumes:
        homes = households(MetersConfig(count=EACH, seed=int(volume.name.rpartition("-")[2])))
        for (gateway, account), home in zip(sorted(accounts_of(volume).items()), homes, strict=True):
            meters[gateway] = [home]
            firsts.append((gateway, account.first))
    store = Store(f"sqlite:///{cluster.volume(f'{COORDINATOR}-0') / 'coordinator.sqlite'}")
    try:
        intervals = {each.epoch: each.interval_of for each in store.epochs.all()}
        ended = [each for number in intervals for each in store.rounds.of_epoch(number)]
        members = {(ring.epoch, ring.ring): ring.members for n in intervals for ring in store.epochs.layout(n)}
    finally:
        store.close()
    rows = []
    for each in ended:
        names = members[each.epoch, each.ring]
        is_opened = each.outcome is wire.Outcome.OPENED
        roster = tuple(names[position] for position in positions_of(each.roster)) if is_opened else ()
        q = epoch.interval_index(intervals[each.epoch](each.round))
        rows.append(RoundRow(each.epoch, each.ring, each.round, q, is_opened, roster, each.total))
    zeros = zeros_of(schema, meters, firsts, _ZERO_Q_MAX)
    return Books(check(schema, meters, rows, zeros=zeros), flown(schema, ended, members, volumes).is_conserved)


def setting(cluster: Cluster, name: str) -> float:
    """A number of the ConfigMap of settings."""
    (settings,) = [
        each["data"]
        for each in of_kind(cluster.objects, "ConfigMap")
        if each["metadata"]["name"].startswith("stromkreis-settings-")
    ]
    return float(settings[f"STROMKREIS_{name}"])
