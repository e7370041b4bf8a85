"""
The faults of a cluster, on pods that run: what each costs, that everybody is in totals again, and that every total is
what the meters counted.  Three of them in every test run, all with `make acceptance-cluster`.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio

from loadtest.account import accounts_of
from netem.profiles import Direction, LinkProfile
from tests.cluster.container import run_inside
from tests.cluster.fault_trial import COORDINATOR, EACH, GATEWAYS, LOST, PERIOD_S, Outcome, Trial, audit, laboratory
from tests.cluster.runner import Cluster, run_cluster

MISSING = [
    tool for tool in ("ip", "tc", "nft", "dnsmasq") if shutil.which(tool, path="/usr/sbin:/sbin:/usr/bin") is None
]
if os.geteuid() != 0:
    MISSING.append("root (CAP_SYS_ADMIN)")
pytestmark = [
    pytest.mark.rounds,
    pytest.mark.skipif(bool(MISSING) and os.environ.get("CI") != "true", reason=f"pods need {', '.join(MISSING)}"),
]
Fault = Callable[[Cluster], Awaitable[object]]
SETTLED_S = 240.0


async def pod_deleted(cluster: Cluster) -> None:
    """A pod deleted, another address"""
    before = cluster.pod(f"{GATEWAYS}-1").address
    await cluster.delete(f"{GATEWAYS}-1")
    await cluster.until_settled(SETTLED_S, GATEWAYS)
    assert cluster.pod(f"{GATEWAYS}-1").address != before


async def pod_deleted_without_grace(cluster: Cluster) -> None:
    """A pod deleted without grace"""
    await cluster.delete(f"{GATEWAYS}-0", grace_s=0)
    await cluster.until_settled(SETTLED_S, GATEWAYS)


async def process_killed(cluster: Cluster) -> None:
    """A node's process killed, restarted in its pod"""
    pod = cluster.pod(f"{GATEWAYS}-2")
    pod.kill("node")
    while not pod.restarts.get("node"):
        await trio.sleep(0.1)
    await cluster.until_settled(SETTLED_S, GATEWAYS)
    assert cluster.pod(f"{GATEWAYS}-2") is pod


async def coordinator_deleted(cluster: Cluster) -> None:
    """The coordinator's pod deleted, another address"""
    before = cluster.pod(f"{COORDINATOR}-0").address
    await cluster.delete(f"{COORDINATOR}-0")
    await cluster.until_settled(SETTLED_S, COORDINATOR)
    assert cluster.pod(f"{COORDINATOR}-0").address != before


async def coordinator_away(cluster: Cluster) -> None:
    """The coordinator away for four rounds"""
    cluster.scale(COORDINATOR, 0)
    await trio.sleep(4 * PERIOD_S)
    cluster.scale(COORDINATOR, 1)
    await cluster.until_settled(SETTLED_S, COORDINATOR)


async def machine_cut_off(cluster: Cluster) -> None:
    """A machine with a third of the gateways cut off"""
    machine = cluster.pod(f"{GATEWAYS}-0").machine
    if machine == cluster.pod(f"{COORDINATOR}-0").machine:
        machine = cluster.pod(f"{GATEWAYS}-1").machine
    await cluster.cut(machine)
    await trio.sleep(4 * PERIOD_S)
    await cluster.heal(machine)


async def two_pods_of_one_ordinal(cluster: Cluster) -> None:
    """A pod deleted by force while it runs: two of one ordinal"""
    name = f"{GATEWAYS}-3"
    old = cluster.pod(name)
    cluster.delete_by_force(name)
    while not cluster.has(name) or not cluster.pod(name).processes:
        await trio.sleep(0.1)
    await trio.sleep(2 * PERIOD_S)
    assert not cluster.pod(name).is_ready  # the volume's lock is the other's
    await cluster.heal(old.machine)
    await cluster.until_settled(SETTLED_S, GATEWAYS)


async def scaled_down(cluster: Cluster) -> None:
    """Scaled from 6 to 4, no more than is tolerated"""
    cluster.scale(GATEWAYS, 4)
    await cluster.until_settled(SETTLED_S, GATEWAYS)


async def scaled_up(cluster: Cluster) -> None:
    """Scaled from 4 to 6"""
    cluster.scale(GATEWAYS, 6)
    await cluster.until_settled(SETTLED_S, GATEWAYS)


async def scaled_down_beyond(cluster: Cluster) -> None:
    """Scaled from 6 to 3, more than is tolerated"""
    cluster.scale(GATEWAYS, 3)
    await cluster.until_settled(SETTLED_S, GATEWAYS)


async def rolled_over(cluster: Cluster) -> None:
    """A rolling update"""
    cluster.roll(GATEWAYS)
    await cluster.until_settled(2 * SETTLED_S, GATEWAYS)


async def machine_drained(cluster: Cluster) -> None:
    """A machine drained within the disruption budget"""
    machine = cluster.pod(f"{GATEWAYS}-0").machine
    await cluster.drain(machine)
    await cluster.until_settled(SETTLED_S)
    assert cluster.pod(f"{GATEWAYS}-0").machine != machine
    cluster.machines[machine] = True


async def volume_lost(cluster: Cluster) -> None:
    """A pod's volume lost, its gateways' ids released"""
    name = f"{GATEWAYS}-5"
    cluster.scale(GATEWAYS, 5)
    await cluster.until_settled(SETTLED_S, GATEWAYS)
    volume = cluster.volume(name)
    lost = volume.rename(volume.with_name(f"{LOST}{volume.name}"))
    cluster.scale(GATEWAYS, 6)
    while not cluster.has(name) or not cluster.pod(name).processes:
        await trio.sleep(0.1)
    await trio.sleep(PERIOD_S)
    assert not cluster.pod(name).is_ready  # the ids are enrolled with the keys that are lost
    for gateway in accounts_of(lost):
        await in_coordinator(cluster, "pki", "release", gateway)
    await cluster.delete(name)  # gateways that were refused ask again, but seldom
    await cluster.until_settled(SETTLED_S, GATEWAYS)
    trial = Trial(cluster, PODS * EACH)
    await trial.until_whole(trial.interval(), PODS * EACH)  # in the one epoch that their first day has for them


async def in_coordinator(cluster: Cluster, *arguments: str) -> None:
    """Run a command in the coordinator's pod, as `kubectl exec` does."""
    command = ["stromkreis", *arguments, "--config", "/etc/stromkreis/stromkreis.toml"]
    status = await run_inside(cluster.pod(f"{COORDINATOR}-0").processes["coordinator"], command)
    assert status == 0, command


async def names_unanswered(cluster: Cluster) -> None:
    """No answers to names for 10 s, the coordinator killed meanwhile"""
    cluster.stop_dns()
    cluster.pod(f"{COORDINATOR}-0").kill("coordinator")
    await trio.sleep(10)
    cluster.resume_dns()
    await cluster.until_settled(SETTLED_S, COORDINATOR)


async def links_slowed(cluster: Cluster) -> None:
    """100 ± 10 ms between pods"""
    half = Direction(delay_s=0.05, jitter_s=0.005)
    await cluster.shape(LinkProfile(name="far", title="another region", up=half, down=half))
    await trio.sleep(2 * PERIOD_S)


IN_EVERY_RUN: tuple[Fault, ...] = (pod_deleted, process_killed, coordinator_deleted)
PODS = 6
TABLE: dict[str, tuple[tuple[Fault, int], ...]] = {  # each fault, and how many pods are in totals afterwards
    "pods": ((pod_deleted, 6), (pod_deleted_without_grace, 6), (process_killed, 6)),
    "coordinator": ((coordinator_deleted, 6), (coordinator_away, 6), (names_unanswered, 6)),
    "machines": ((machine_cut_off, 6), (two_pods_of_one_ordinal, 6), (machine_drained, 6)),
    "sizes": ((scaled_down, 4), (scaled_up, 6), (rolled_over, 6), (scaled_down_beyond, 3)),
    # A store that is younger than its gateway's id may show one value for a draw in its first day.
    "volume": ((volume_lost, 5),),
}


async def run(
    directory: Path, faults: tuple[tuple[Fault, int], ...], pods: int, *, overlay: str = "small", delays: bool = False
) -> list[Outcome]:
    """One fault after the other on one cluster; afterwards the books."""
    directory.chmod(0o755)
    done = []
    objects = laboratory(pods, name=overlay, ring_size=pods * EACH)
    async with run_cluster(objects, directory, delays=delays) as cluster:
        await cluster.until_settled(SETTLED_S)
        trial = Trial(cluster, pods * EACH)
        await trial.until_whole(-1, pods * EACH)
        for fault, after in faults:
            done.append(await trial.fault((fault.__doc__ or "").strip(), fault, after=after * EACH))
            sys.stdout.write(f"{done[-1]}\n")
            sys.stdout.flush()
    books = audit(cluster)
    sys.stdout.write(f"{books.verdict.opened} ring rounds opened, {books.verdict.void} void\n")
    assert books.verdict.opened > len(faults)
    assert books.is_exact, books
    return done


@pytest.fixture
def directory() -> Iterator[Path]:
    """Pods are not root, and so must pass every folder above: pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="stromkreis-pods-") as made:
        yield Path(made)


async def test_pods_that_go_and_come_lose_no_energy(directory: Path) -> None:
    done = await run(directory, tuple((fault, 3) for fault in IN_EVERY_RUN), 3)
    assert len(done) == len(IN_EVERY_RUN)
    for outcome in done[:2]:  # a volume survives: one round may be under way, one more while the pod comes back
        assert outcome.rounds_until_whole <= 2, outcome


acceptance = pytest.mark.skipif(not os.environ.get("STROMKREIS_EVERY_FAULT"), reason="make acceptance-cluster")


@acceptance
@pytest.mark.parametrize("part", TABLE)
async def test_every_fault_of_the_table_loses_no_energy(directory: Path, part: str) -> None:
    done = await run(directory, TABLE[part], PODS)
    if part == "pods":
        assert all(each.rounds_until_whole <= 2 for each in done), done


@acceptance
async def test_far_pods_open_their_rounds(directory: Path) -> None:
    (outcome,) = await run(directory, ((links_slowed, 4),), 4, delays=True)
    assert outcome.rounds_until_whole <= 2, outcome


@acceptance
async def test_pods_on_lines_by_a_relay_lose_no_energy(directory: Path) -> None:
    await run(directory, ((pod_deleted, 3), (coordinator_deleted, 3)), 3, overlay="netem-proxy")
