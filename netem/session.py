"""One run: a network on a back end, its endpoints' commands, a scenario's timeline, and a report of what was done."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from random import Random

import trio

from netem.emulation import Backend, Emulation, emulate, play
from netem.errors import ToolFailedError
from netem.namespaces import NamespaceEmulation
from netem.network import Network
from netem.profiles import LinkProfile
from netem.proxy import ProxyEmulation
from netem.scenario import Scenario, Step, initial_state, timeline


@dataclass(frozen=True, slots=True)
class Applied:
    """A step of the timeline: when it was planned, when it was in effect, and what it was."""

    planned_s: float
    applied_s: float
    what: str


@dataclass(slots=True)
class Report:
    """What a run has done; `is_complete` where the timeline came to its end."""

    backend: Backend
    scenario: str | None
    seed: int
    steps: list[Applied] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    exit_codes: dict[str, int] = field(default_factory=dict)
    is_complete: bool = False

    def as_json(self) -> dict[str, object]:
        """For `json.dumps`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Listener:
    """Callbacks of a run."""

    up: Callable[[dict[str, str]], None] = lambda _: None
    """The network is up; how each endpoint is reached."""
    step: Callable[[Applied], None] = lambda _: None
    command_ended: Callable[[str, int], None] = lambda _, __: None


def use_realtime_scheduling() -> bool:
    """
    Let this thread run before others (SCHED_RR), where that is permitted; children are not preferred.

    Packets wait for verdicts of this process: on a busy machine they would else wait for a turn of the scheduler too.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except OSError:
        return False
    return True


async def run(
    backend: Backend,
    network: Network,
    profiles: dict[str, LinkProfile],
    scenario: Scenario | None,
    *,
    seed: int,
    speed: float = 1.0,
    duration_s: float | None = None,
    listener: Listener | None = None,
    report: Report | None = None,
) -> Report:
    """
    Run to the end of the scenario; without one, to `duration_s`, to the end of all commands, or until cancelled.

    What was made is removed then, also when cancelled; `report` is filled while it runs, so that a caller that cancels
    still has it.  Raises NetemError.
    """
    listener = listener or Listener()
    report = report or Report(backend, scenario.name if scenario else None, seed)
    rng = Random(seed)
    steps = timeline(scenario, network, profiles, rng=rng, speed=speed) if scenario else None
    async with emulate(backend, network, initial_state(network, profiles), rng=rng) as emulation:
        try:
            listener.up(endpoint_addresses(emulation, network))
            async with trio.open_nursery() as nursery:
                running = [endpoint for endpoint in network.endpoints if endpoint.command]
                ended = trio.Event()
                if running:
                    nursery.start_soon(_run_commands, emulation, network, report, listener, ended)
                if steps is not None:
                    started_s = trio.current_time()

                    def note(step: Step) -> None:
                        applied = Applied(step.at_s, trio.current_time() - started_s, step.what)
                        report.steps.append(applied)
                        listener.step(applied)

                    await play(steps, emulation.apply, on_step=note)
                else:
                    with trio.move_on_after(float("inf") if duration_s is None else duration_s):
                        await (ended.wait() if running else trio.sleep_forever())
                report.is_complete = True
                nursery.cancel_scope.cancel()
        finally:
            report.counters = emulation.counters()
    return report


async def _run_commands(
    emulation: Emulation, network: Network, report: Report, listener: Listener, ended: trio.Event
) -> None:
    addresses = endpoint_addresses(emulation, network)

    async def run_one(name: str, command: tuple[str, ...]) -> None:
        try:
            done = await trio.run_process(
                emulation.command(name, command), check=False, env=environment(name, addresses), stdin=b""
            )
        except OSError as error:
            raise ToolFailedError(f"endpoint {name}: {command[0]}: cannot be started: {error.strerror}") from None
        report.exit_codes[name] = done.returncode
        listener.command_ended(name, done.returncode)

    async with trio.open_nursery() as nursery:
        for endpoint in network.endpoints:
            if endpoint.command:
                nursery.start_soon(run_one, endpoint.name, endpoint.command)
    ended.set()


def environment(endpoint: str, addresses: Mapping[str, str]) -> dict[str, str]:
    """The environment of an endpoint's command: its name, and the address of each endpoint."""
    named = {f"NETEM_ADDRESS_{name.upper().replace('-', '_')}": address for name, address in addresses.items()}
    return {**os.environ, "NETEM_ENDPOINT": endpoint, **named}


def endpoint_addresses(emulation: Emulation, network: Network) -> dict[str, str]:
    """How each endpoint is reached: its address in its namespace, or where its relay listens."""
    if isinstance(emulation, NamespaceEmulation):
        return {endpoint.name: emulation.address(endpoint.name) for endpoint in network.endpoints}
    if isinstance(emulation, ProxyEmulation):
        return {relay.source: str(address) for relay, address in emulation.addresses.items()}
    return {endpoint.name: endpoint.interface for endpoint in network.endpoints if endpoint.interface is not None}
