"""
The back end `namespaces` on the real kernel: what a profile does, partitions, order, bounds, nothing left behind.

Upper bounds on delays are wide: on a machine that others load, this process and the probes in it wait for their turn.
Lower bounds are tight, since nothing can make a packet early; rates have tight upper bounds for the same reason.
"""

import ast
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import trio

from netem import namespaces, records, selfcheck, session
from netem.emulation import Backend
from netem.errors import MissingKernelFeatureError, ToolFailedError
from netem.namespaces import NamespaceEmulation, emulate
from netem.netns import in_namespace
from netem.network import Network, load_network
from netem.probes import Loss, probe_datagrams
from netem.profiles import Direction, LinkProfile, load_profiles
from netem.records import PREFIX
from netem.scenario import LinkState, NetworkState, load_scenario

ROOT = Path(__file__).parents[2]
RUN_NETNS = Path("/run/netns")
LATE_S = 0.08

MISSING = [tool for tool in ("ip", "tc", "nft", "iptables-restore") if shutil.which(tool) is None]
if os.geteuid() != 0:
    MISSING.append("root (CAP_NET_ADMIN)")
pytestmark = pytest.mark.skipif(
    bool(MISSING) and os.environ.get("CI") != "true", reason=f"namespaces need {', '.join(MISSING)}"
)


def network_of(*names: str, **more: object) -> Network:
    return Network.model_validate({"endpoints": [{"name": name, **more} for name in names]})


def state_of(**profiles: LinkProfile) -> dict[str, LinkState]:
    return {name: LinkState(profile) for name, profile in profiles.items()}


def profile(up: Direction | None = None, down: Direction | None = None) -> LinkProfile:
    return LinkProfile(name="test", title="test", up=up or Direction(), down=down or Direction())


def ours() -> set[str]:
    return {each.name for each in RUN_NETNS.glob(f"{PREFIX}*")} if RUN_NETNS.is_dir() else set()


def udp(emulation: NamespaceEmulation, endpoint: str, port: int = 0) -> socket.socket:
    def open_socket() -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.setblocking(False)
        opened.bind((emulation.address(endpoint), port))
        return opened

    return in_namespace(emulation.namespace(endpoint), open_socket)


async def reaches(emulation: NamespaceEmulation, source: str, destination: str) -> bool:
    with udp(emulation, source) as client, udp(emulation, destination, 7_100) as server:
        to = (emulation.address(destination), 7_100)
        trips = await probe_datagrams(client, server, to, count=3, interval_s=0.01, wait_s=0.3)
    return bool(trips.seconds)


async def test_a_profile_does_what_it_says() -> None:
    asked = profile(
        Direction(delay_s=0.06, jitter_s=0.005, loss=0.1, rate_bit_s=1_000_000, queue_s=0.1),
        Direction(delay_s=0.03, jitter_s=0.005, rate_bit_s=2_000_000, queue_s=0.1),
    )
    (found,) = await selfcheck.check(Backend.NAMESPACES, [asked], duration_s=3, rng=Random(1))
    # Jitter of 7 ms over 150 probes: the median has a standard error of 0.7 ms.
    assert 0.086 <= found.round_trip_s.measured <= 0.09 + LATE_S
    assert found.probe_count == 150
    low, high = Loss(round(found.loss.measured * found.probe_count), found.probe_count).interval()
    assert low <= 0.1 <= high
    assert found.rate_up_bit_s is not None
    assert found.rate_down_bit_s is not None
    assert 600_000 <= found.rate_up_bit_s.measured <= 1_100_000
    assert 1_400_000 <= found.rate_down_bit_s.measured <= 2_100_000


async def test_states_cut_separate_and_heal_links() -> None:
    network = network_of("a", "b", "c")
    healed: NetworkState = state_of(a=profile(), b=profile(), c=profile())
    async with emulate(network, healed, rng=Random(1)) as emulation:
        assert await reaches(emulation, "a", "b")
        await emulation.apply({**healed, "a": LinkState(profile(), is_up=False)})
        assert not await reaches(emulation, "a", "b")
        assert await reaches(emulation, "b", "c")
        await emulation.apply({**healed, "a": LinkState(profile(), group=1), "b": LinkState(profile(), group=1)})
        assert await reaches(emulation, "a", "b")
        assert not await reaches(emulation, "a", "c")
        assert not await reaches(emulation, "c", "b")
        await emulation.apply(healed)
        assert await reaches(emulation, "c", "a")


async def test_a_worse_link_is_worse_from_the_moment_it_is_applied() -> None:
    state = state_of(a=profile(Direction(delay_s=0.02)), b=profile())
    async with emulate(network_of("a", "b"), state, rng=Random(1)) as emulation:

        async def median_s() -> float:
            with udp(emulation, "a") as client, udp(emulation, "b", 7_100) as server:
                to = (emulation.address("b"), 7_100)
                trips = await probe_datagrams(client, server, to, count=30, interval_s=0.01, wait_s=1)
            return trips.median_s

        assert 0.02 <= await median_s() <= 0.02 + LATE_S
        await emulation.apply({**state, "a": replace(state["a"], profile=profile(Direction(delay_s=0.3)))})
        assert 0.3 <= await median_s() <= 0.3 + LATE_S


async def test_packets_stay_in_order_through_jitter_and_none_is_lost() -> None:
    state = state_of(
        a=profile(Direction(delay_s=0.2, jitter_s=0.1)), b=profile(down=Direction(delay_s=0.1, jitter_s=0.1))
    )
    numbers: list[int] = []
    async with emulate(network_of("a", "b"), state, rng=Random(1)) as emulation:
        with udp(emulation, "a") as client, udp(emulation, "b", 7_100) as server:
            to = (emulation.address("b"), 7_100)
            for number in range(300):
                client.sendto(number.to_bytes(4, "big"), to)
                if number % 10 == 0:
                    await trio.sleep(0.002)
            with trio.fail_after(120):
                while len(numbers) < 300:
                    await trio.lowlevel.wait_readable(server)
                    numbers.append(int.from_bytes(server.recv(100), "big"))
    assert numbers == list(range(300))


async def test_a_connection_through_loss_and_jitter_carries_every_byte() -> None:
    bad = profile(
        Direction(delay_s=0.02, jitter_s=0.01, loss=0.02, rate_bit_s=8_000_000),
        Direction(delay_s=0.02, jitter_s=0.01, loss=0.02, rate_bit_s=8_000_000),
    )
    data = Random(1).randbytes(400_000)
    got = hashlib.sha256()
    async with emulate(network_of("a", "b"), state_of(a=bad, b=profile()), rng=Random(1)) as emulation:

        def listening() -> socket.socket:
            return socket.create_server((emulation.address("b"), 7_100))

        listener = trio.SocketListener(
            trio.socket.from_stdlib_socket(in_namespace(emulation.namespace("b"), listening))
        )
        client = trio.socket.from_stdlib_socket(in_namespace(emulation.namespace("a"), socket.socket))

        async def serve() -> None:
            async with listener, await listener.accept() as stream:
                async for chunk in stream:
                    got.update(chunk)

        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                await client.connect((emulation.address("b"), 7_100))
                async with trio.SocketStream(client) as stream:
                    await stream.send_all(data)
    assert got.digest() == hashlib.sha256(data).digest()


async def test_packets_that_wait_are_bounded_and_what_exceeds_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "_QUEUED_PACKETS_MAX", 50)
    state = state_of(a=profile(Direction(delay_s=30)), b=profile())
    async with emulate(network_of("a", "b"), state, rng=Random(1)) as emulation:
        with udp(emulation, "a") as client:
            for _ in range(200):
                client.sendto(b"waits", (emulation.address("b"), 7_100))
        with trio.fail_after(120):
            while sum(emulation.counters().values()) < 200 or len(emulation.scheduler) < 50:
                await trio.sleep(0.02)
        counters = emulation.counters()
        assert counters["delayed_packets_waiting"] == len(emulation.scheduler) == 50
        assert counters["delay_queue_overflow_packets"] == 150


@pytest.mark.parametrize("how", ["end", "error", "cancel"])
async def test_nothing_is_left_whatever_ends_the_run(how: str) -> None:
    before = ours()
    made: set[str] = set()
    try:
        with trio.CancelScope() as scope:
            async with emulate(network_of("a", "b"), state_of(a=profile(), b=profile()), rng=Random(1)):
                made = ours() - before
                if how == "cancel":
                    scope.cancel()
                    await trio.sleep_forever()
                if how == "error":
                    raise ToolFailedError("planted")
    except* ToolFailedError:
        assert how == "error"
    assert len(made) == 3
    assert not made & ours()


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "stromkreis", "netem", *arguments]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()  # else a failed assertion would wait for it for ever


def until_up(process: subprocess.Popen[str]) -> set[str]:
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("up on namespaces: "), line + process.stderr.read()
    found = {name for name in ours() if name.startswith(f"{PREFIX}{process.pid:x}-")}
    assert len(found) == 6
    return found


@pytest.fixture
def sleeping_network(tmp_path: Path) -> Iterator[str]:
    names = ("coordinator", "a", "b", "c", "d")
    path = tmp_path / "net.toml"
    sleeper = f'["{sys.executable}", "-c", "import time; time.sleep(300)"]'
    path.write_text(
        "endpoints = ["
        + ", ".join(f'{{ name = "{name}"{f", command = {sleeper}" if name == "a" else ""} }}' for name in names)
        + "]\n",
        encoding="utf-8",
    )
    yield str(path)
    trio.run(records.clean)


def inside(namespace: str) -> list[str]:
    done = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_killed_run_is_cleaned_up_and_a_living_one_spared(sleeping_network: str) -> None:
    with started("run", "--backend", "namespaces", "--network", sleeping_network) as killed:
        left = until_up(killed)
        with started("run", "--backend", "namespaces", "--network", "two-areas") as living:
            alive = until_up(living)
            (of_a,) = [name for name in left if name.endswith("-e-a")]
            deadline = time.monotonic() + 20
            while not inside(of_a) and time.monotonic() < deadline:
                time.sleep(0.05)
            (orphan,) = inside(of_a)
            killed.kill()
            killed.wait(20)
            assert left <= ours()
            trio.run(records.clean)
            assert not left & ours()
            assert alive <= ours()
            assert not Path(f"/proc/{orphan}/exe").exists()
            living.send_signal(signal.SIGTERM)
            assert living.wait(30) == 0
    assert not alive & ours()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_run_and_removes_everything(sleeping_network: str, number: int) -> None:
    with started("run", "--backend", "namespaces", "--network", sleeping_network) as process:
        made = until_up(process)
        process.send_signal(number)
        _, told = process.communicate(timeout=30)
    assert "removed; " in told
    assert "Traceback" not in told
    assert not made & ours()


async def test_commands_run_at_their_endpoints_and_their_status_is_reported(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    tell = (
        "import os, sys; from pathlib import Path; "
        "Path(sys.argv[1]).write_text(repr((os.environ['NETEM_ADDRESS_B'], os.listdir('/sys/class/net'))))"
    )
    network = Network.model_validate(
        {
            "endpoints": [
                {"name": "a", "command": [sys.executable, "-c", tell, str(seen)]},
                {"name": "b", "command": [sys.executable, "-c", "raise SystemExit(3)"]},
            ]
        }
    )
    report = await session.run(Backend.NAMESPACES, network, load_profiles(), None, seed=1)
    assert report.exit_codes == {"a": 0, "b": 3}
    assert report.is_complete
    address, interfaces = ast.literal_eval(seen.read_text(encoding="utf-8"))
    assert address == "10.213.1.2"
    assert sorted(interfaces) == ["eth0", "lo"]


async def test_a_scenario_is_played_at_its_moments() -> None:
    scenario = load_scenario("partition")
    report = await session.run(
        Backend.NAMESPACES, load_network("two-areas"), load_profiles(), scenario, seed=1, speed=60
    )  # fmt: skip
    assert report.is_complete
    assert [step.planned_s for step in report.steps] == [0, 0.5, 1.5, 2]
    for step in report.steps:
        assert 0 <= step.applied_s - step.planned_s < 1
    assert set(report.counters) == {"delayed_packets_waiting", "delay_queue_overflow_packets"}


async def test_tc_works_or_says_what_this_kernel_lacks() -> None:
    asked = profile(Direction(delay_s=0.05, rate_bit_s=10_000_000), Direction(delay_s=0.05, rate_bit_s=10_000_000))
    before = ours()
    found: list[selfcheck.Measurement] = []
    lacking: list[str] = []
    try:
        found = await selfcheck.check(Backend.TC, [asked], duration_s=0.5, rng=Random(1))
    except* MissingKernelFeatureError as group:
        lacking = [str(error) for error in group.exceptions]
    assert ours() == before
    if lacking:
        assert all("this kernel has no sch_netem" in line and "`--backend namespaces`" in line for line in lacking)
    else:
        assert 0.1 <= found[0].round_trip_s.measured <= 0.1 + LATE_S
