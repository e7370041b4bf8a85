"""The one interface of the three back ends, and playing a timeline on any of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from enum import StrEnum
from random import Random
from typing import Protocol

import trio

from netem import namespaces, proxy, tc
from netem.network import Network
from netem.scenario import NetworkState, Step


class Backend(StrEnum):
    """How a network is emulated."""

    NAMESPACES = "namespaces"
    TC = "tc"
    PROXY = "proxy"


class Emulation(Protocol):
    """A network that is being emulated."""

    async def apply(self, state: NetworkState) -> None:
        """Put a state into effect: what is sent from now on meets it.  Raises NetemError."""

    def counters(self) -> dict[str, int]:
        """What the back end has counted since the start, by name."""

    def command(self, endpoint: str, arguments: tuple[str, ...], /) -> tuple[str, ...]:
        """The command line that starts a program at an endpoint."""


@asynccontextmanager
async def emulate(backend: Backend, network: Network, state: NetworkState, *, rng: Random) -> AsyncIterator[Emulation]:
    """The network in the given state, on a back end, until the block is left.  Raises NetemError."""
    if backend is Backend.NAMESPACES:
        async with namespaces.emulate(network, state, rng=rng) as in_namespaces:
            yield in_namespaces
    elif backend is Backend.TC:
        async with tc.emulate(network, state) as on_interfaces:
            yield on_interfaces
    else:
        async with proxy.emulate(network, state, rng=rng) as relayed:
            yield relayed


async def play(
    steps: Iterable[Step],
    apply: Callable[[NetworkState], Awaitable[None]],
    *,
    on_step: Callable[[Step], None] = lambda _: None,
) -> None:
    """
    Apply each step's state at its moment, counted from now on trio's clock.

    A step that is late because the one before took long is applied at once; none is left out.
    """
    started_s = trio.current_time()
    for step in steps:
        await trio.sleep_until(started_s + step.at_s)
        await apply(step.state)
        on_step(step)
