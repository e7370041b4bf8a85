"""
The back end `tc`: netem on interfaces that exist already, of this machine or of the pod that this program runs in.

What the interface sends gets a netem qdisc; what it receives is redirected to an ifb device first, which has another.
netem does delay, jitter, loss and rate in one place and in the kernel, at any packet rate; but many kernels lack it
(`sch_netem`), and a qdisc does not see who is at the other end: an endpoint apart from others is cut off from all.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from netem.errors import InvalidDataError
from netem.network import Endpoint, Network
from netem.profiles import JITTER_CUT, Direction
from netem.records import Record, ShapedInterface
from netem.scenario import LinkState, NetworkState
from netem.tools import find_tool, run_tool

_PACKET_BYTES = 1_514
_MIDDLING_PACKET_BYTES = 500
_UNLIMITED_PACKETS = 10_000
HANDLE = "5e7e:"
"""The handle of our root qdiscs, so that a person sees whose they are."""


def netem_qdisc(direction: Direction, lines: int, *, is_up: bool) -> str:
    """
    Arguments of netem for one direction of a link; each is given, since a replaced qdisc keeps what is not.

    netem's limit counts packets, delayed ones too: room for the delay in packets of a middling size, so that small ones
    get the rate as well, and for the queue in full-sized ones.  A rate makes netem keep the order of packets; without
    a rate jitter would reorder them, so there is none then.
    """
    if not is_up:
        return "netem limit 1 loss 100% rate 0bit"
    rate = (direction.rate_bit_s or 0) * lines
    limit = _UNLIMITED_PACKETS
    if rate:
        delayed = rate / 8 * (direction.delay_s + JITTER_CUT * direction.jitter_s) / _MIDDLING_PACKET_BYTES
        limit = 8 + math.ceil(delayed + rate / 8 * direction.queue_s / _PACKET_BYTES)
    jitter = f" {direction.jitter_s * 1e6:.0f}us distribution normal" if direction.jitter_s and rate else ""
    return (
        f"netem limit {limit} delay {direction.delay_s * 1e6:.0f}us{jitter} loss random {direction.loss * 100:.6f}% "
        f"rate {rate}bit"
    )


def is_reachable(link: LinkState) -> bool:
    """Whether the link carries anything: a qdisc cannot tell its own group from others."""
    return link.is_up and not link.group


def configured_qdiscs(shown: str) -> list[str]:
    """The qdiscs that somebody has set, of `tc qdisc show`; the kernel's own have the handle 0 and come back."""
    words = [line.split() for line in shown.splitlines()]
    return [
        " ".join(line[1:3])
        for line in words
        if len(line) > 3 and line[2] != "0:" and (line[3] == "root" or line[1] in {"ingress", "clsact"})
    ]


class TcEmulation:
    """Interfaces that are shaped; see `emulate`."""

    def __init__(self, network: Network, record: Record) -> None:
        self._endpoints = {each.name: each for each in network.endpoints if each.interface is not None}
        self._record = record
        self._state: NetworkState = {}

    def command(self, endpoint: str, arguments: tuple[str, ...]) -> tuple[str, ...]:
        """How a command is started at an endpoint."""
        namespace = self._endpoints[endpoint].namespace if endpoint in self._endpoints else None
        return (find_tool("ip"), "netns", "exec", namespace, *arguments) if namespace else arguments

    async def build(self) -> None:
        """Redirect what each interface receives to an ifb device.  Raises a NetemError."""
        for endpoint in self._endpoints.values():
            shaped = _shaped(endpoint)
            inside = _inside(endpoint)
            shown = await run_tool("tc", *inside, "qdisc", "show", "dev", shaped.interface)
            if foreign := configured_qdiscs(shown):
                raise InvalidDataError(
                    f"{shaped.interface}: has a qdisc already ({', '.join(foreign)}): `stromkreis netem clean` removes "
                    f"what a run left; else `tc qdisc del dev {shaped.interface} root` and `... ingress`"
                )
            self._record.add_shaped(shaped)
            links = f"link add {shaped.ifb} type ifb\nlink set {shaped.ifb} up\n"
            await run_tool("ip", *inside, "-batch", "-", stdin=links)
            # u32 rather than matchall: kernels that have been cut down keep the older classifier.
            redirect = (
                f"qdisc add dev {shaped.interface} handle ffff: ingress\n"
                f"filter add dev {shaped.interface} parent ffff: protocol all prio 1 u32 match u32 0 0 "
                f"action mirred egress redirect dev {shaped.ifb}\n"
            )
            await run_tool("tc", *inside, "-batch", "-", stdin=redirect)

    async def apply(self, state: NetworkState) -> None:
        """Put a state into effect; only what differs from the one before is touched."""
        for name, endpoint in self._endpoints.items():
            link, before = state[name], self._state.get(name)
            if before == link:
                continue
            shaped, is_up = _shaped(endpoint), is_reachable(link)
            up = netem_qdisc(link.profile.up, endpoint.lines, is_up=is_up)
            down = netem_qdisc(link.profile.down, endpoint.lines, is_up=is_up)
            batch = (
                f"qdisc replace dev {shaped.interface} root handle {HANDLE} {up}\n"
                f"qdisc replace dev {shaped.ifb} root handle {HANDLE} {down}\n"
            )
            await run_tool("tc", *_inside(endpoint), "-batch", "-", stdin=batch)
        self._state = dict(state)

    def counters(self) -> dict[str, int]:
        """What the kernel has shaped is shown by `tc -s qdisc`; this process counts nothing."""
        return {}


def _shaped(endpoint: Endpoint) -> ShapedInterface:
    assert endpoint.interface is not None  # noqa: S101 - chosen for it
    return ShapedInterface(
        endpoint.interface, f"netem{zlib.crc32(endpoint.interface.encode()):08x}", endpoint.namespace
    )


def _inside(endpoint: Endpoint) -> tuple[str, ...]:
    return ("-n", endpoint.namespace) if endpoint.namespace else ()


@asynccontextmanager
async def emulate(network: Network, state: NetworkState) -> AsyncIterator[TcEmulation]:
    """
    The interfaces of the network's endpoints in the given state; qdiscs and devices are removed at the end.

    Raises InvalidDataError where no endpoint has an interface, MissingKernelFeatureError without sch_netem, and the
    other kinds of NetemError.
    """
    if all(endpoint.interface is None for endpoint in network.endpoints):
        raise InvalidDataError("no endpoint has an interface: give --interface, or `interface` in the network's file")
    find_tool("tc")
    with Record() as record:
        emulation = TcEmulation(network, record)
        try:
            await emulation.build()
            await emulation.apply(state)
            yield emulation
        finally:
            await record.remove_all()
