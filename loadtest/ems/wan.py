"""The WAN between the home and the market participant: relays with a link profile of netem, which can be cut."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from random import Random

from netem.network import Network
from netem.profiles import load_profiles
from netem.proxy import ProxyEmulation, emulate
from netem.scenario import LinkState, NetworkState

_HOME = "home"


class Wan:
    """Relays that run, one for each service of the participant: `ports` by its name."""

    def __init__(self, emulations: Mapping[str, ProxyEmulation], ports: Mapping[str, int], state: NetworkState) -> None:
        self._emulations = emulations
        self._state = state
        self.ports = ports

    async def cut(self) -> None:
        """Reset all connections, and new ones at once, until `heal`."""
        await self._apply({**self._state, _HOME: replace(self._state[_HOME], is_up=False)})

    async def heal(self) -> None:
        """Carry again."""
        await self._apply(self._state)

    def relayed_bytes(self) -> dict[str, int]:
        """Octets of TLS sessions so far, both ways together, by service."""
        return {name: each.counters()["relayed_bytes"] for name, each in self._emulations.items()}

    async def _apply(self, state: NetworkState) -> None:
        for each in self._emulations.values():
            await each.apply(state)


@asynccontextmanager
async def wan(profile: str, targets: Mapping[str, int]) -> AsyncIterator[Wan]:
    """
    Relays to the ports of `targets` on loopback, over links of a profile.

    Raises InvalidDataError for a link profile that is not there.
    """
    emulations: dict[str, ProxyEmulation] = {}
    ports: dict[str, int] = {}
    async with AsyncExitStack() as stack:
        state: NetworkState = {}
        for name, port in targets.items():
            network = Network.model_validate({
                "endpoints": [{"name": "coordinator"}, {"name": _HOME, "profile": profile, "lines": 16}],
                "relays": [{
                    "source": _HOME, "listen": "127.0.0.1:0", "target": f"127.0.0.1:{port}", "when_cut": "reset",
                }],
            })  # fmt: skip
            base = network.base_profiles(load_profiles())
            state = {each: LinkState(link) for each, link in base.items()}
            emulations[name] = await stack.enter_async_context(emulate(network, state, rng=Random(name)))
            (address,) = emulations[name].addresses.values()
            ports[name] = address.port
        yield Wan(emulations, ports, state)
