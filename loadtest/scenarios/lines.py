"""What lies between the processes: nothing (loopback), an emulated line to the coordinator, or namespaces to cut."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from random import Random

import trio

from loadtest.ports import free_port
from loadtest.scenarios.plan import LOOPBACK, Addresses, Plan
from netem import namespaces, proxy
from netem.emulation import play
from netem.namespaces import NamespaceEmulation
from netem.network import COORDINATOR, Address, Endpoint, Network, Relay
from netem.profiles import UNSHAPED, load_profiles
from netem.proxy import ProxyEmulation
from netem.scenario import LinkState, NetworkState, Step, initial_state, load_scenario, timeline

_GATEWAYS = "gateways"
_LINKS_PORT, _WEB_PORT, _HTTP_PORT, METRICS_PORT = 7300, 7381, 7380, 7390  # in a namespace all ports are free


def coordinator_name(index: int) -> str:
    """The process and endpoint of a coordinator."""
    return COORDINATOR if index == 0 else f"{COORDINATOR}-{index + 1}"


@dataclass(slots=True)
class Site:
    """Where processes are, and how they reach each other."""

    addresses: list[Addresses]
    net: NamespaceEmulation | None = None
    relays: ProxyEmulation | None = None
    network: Network | None = None
    _state: NetworkState = field(default_factory=dict)

    def host(self, process: str) -> str:
        """The address that a process listens on."""
        return LOOPBACK if self.net is None else self.net.address(process)

    def metrics(self, process: str) -> str:
        """The monitoring address of a process with gateways."""
        return f"http://{self.host(process)}:{free_port() if self.net is None else METRICS_PORT}"

    def program(self, process: str, program: Sequence[str]) -> tuple[str, ...]:
        """How a program is started at the place of a process."""
        return tuple(program) if self.net is None else self.net.command(process, tuple(program))

    @property
    def hub(self) -> str | None:
        """The namespace from which all processes are reached."""
        return None if self.net is None else self.net.hub

    async def cut(self, processes: Sequence[str], group: int) -> None:
        """Those processes reach each other, and nobody else; group 0: everybody again."""
        if self.net is None:
            raise RuntimeError("cuts want namespaces")
        self._state = {
            name: replace(link, group=group) if name in processes else link for name, link in self._state.items()
        }
        await self.net.apply(self._state)

    async def play(self, name: str, seed: int, note: Callable[[Step], None]) -> None:
        """A timeline of faults on the emulated lines, from now on."""
        if self.relays is not None and self.network is not None:
            steps = timeline(load_scenario(name), self.network, load_profiles(), rng=Random(seed))
            await play(steps, self.relays.apply, on_step=note)
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def site(plan: Plan) -> AsyncIterator[Site]:
    """The network of a scenario, until the block is left.  Raises NetemError where it cannot be had here."""
    count = len(plan.areas)
    if plan.scenario.namespaces:
        names = [*(coordinator_name(i) for i in range(count)), *(node.name for node in plan.nodes)]
        network = Network(endpoints=tuple(Endpoint(name=name) for name in names))
        state = {name: LinkState(UNSHAPED) for name in names}
        async with namespaces.unshaped(network) as net:
            await net.apply(state)
            hosts = [net.address(coordinator_name(i)) for i in range(count)]
            listed = [
                Addresses(f"tcp://{host}:{_LINKS_PORT}", f"https://{host}:{_WEB_PORT}", f"http://{host}:{_HTTP_PORT}")
                for host in hosts
            ]
            yield Site(listed, net=net, network=network, _state=state)
        return
    listed = [
        Addresses(
            f"tcp://{LOOPBACK}:{free_port()}", f"https://{LOOPBACK}:{free_port()}", f"http://{LOOPBACK}:{free_port()}"
        )
        for _ in range(count)
    ]
    lines = plan.scenario.lines
    if lines is None:
        yield Site(listed)
        return
    network = _relayed(lines.profile, plan.scenario.gateways, listed[0])
    async with proxy.emulate(network, initial_state(network, load_profiles()), rng=Random(1)) as relays:
        links, web = (relays.addresses[each] for each in network.relays)
        listed[0] = replace(listed[0], public_links=f"tcp://{links}", public_web=f"https://{web}")
        yield Site(listed, relays=relays, network=network)


def _relayed(profile: str, gateways: int, addresses: Addresses) -> Network:
    def relay(target: str) -> Relay:
        host, _, port = target.partition("://")[2].rpartition(":")
        return Relay(source=_GATEWAYS, listen=Address(port=0), target=Address(host=host, port=int(port)))

    return Network(
        endpoints=(Endpoint(name=_GATEWAYS, profile=profile, lines=max(2, gateways)), Endpoint(name=COORDINATOR)),
        relays=(relay(addresses.links), relay(addresses.web)),
    )
