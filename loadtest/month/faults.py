"""The bad network of a month: relays with a link profile before the inbox and REST, whose connections break in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import trio

from loadtest.month.plan import Plan
from netem.network import Network
from netem.profiles import load_profiles
from netem.proxy import ProxyEmulation, emulate
from netem.scenario import LinkState, NetworkState


class Relays:
    """What gateways send through; `cut_for_ever` breaks its connections again and again."""

    def __init__(self, emulations: dict[str, ProxyEmulation], state: NetworkState, plan: Plan) -> None:
        self._emulations = emulations
        self._state = state
        self._settings = plan.settings
        self.cuts = 0

    def relayed_bytes(self, name: str) -> int:
        """Octets of TLS sessions, both ways, to the `inbox` or to REST (`web`)."""
        return self._emulations[name].counters()["relayed_bytes"]

    async def cut_for_ever(self) -> None:
        """Break all connections every so often; new ones are reset for a while."""
        if not self._settings.cut_every_s:
            return
        cut = {**self._state, "gateways": replace(self._state["gateways"], is_up=False)}
        while True:
            await trio.sleep(self._settings.cut_every_s)
            await self._apply(cut)
            self.cuts += 1
            try:
                await trio.sleep(self._settings.cut_s)
            finally:
                with trio.CancelScope(shield=True):
                    await self._apply(self._state)

    async def _apply(self, state: NetworkState) -> None:
        for each in self._emulations.values():
            await each.apply(state)


@asynccontextmanager
async def relays(plan: Plan) -> AsyncIterator[Relays]:
    """
    Relays that run.

    Raises InvalidDataError for a link profile that is not there, or a port that is taken.
    """
    endpoints = [
        {"name": "coordinator"}, {"name": "gateways", "profile": plan.settings.profile, "lines": plan.settings.gateways}
    ]  # fmt: skip
    networks = {
        name: Network.model_validate({
            "endpoints": endpoints,
            "relays": [{
                "source": "gateways", "listen": f"127.0.0.1:{plan.ports[f'{name}_relay']}",
                "target": f"127.0.0.1:{plan.ports[port]}", "when_cut": "reset",
            }],
        })
        for name, port in (("inbox", "inbox"), ("web", "https"))
    }  # fmt: skip
    profiles = networks["inbox"].base_profiles(load_profiles())
    state = {name: LinkState(profile) for name, profile in profiles.items()}
    async with (
        emulate(networks["inbox"], state, rng=Random("inbox")) as inbox,
        emulate(networks["web"], state, rng=Random("web")) as web,
    ):
        yield Relays({"inbox": inbox, "web": web}, state, plan)
