"""
The self-check: what a profile really does on a back end of this machine, beside what it asks for.

Each profile gets an endpoint of its own, all talk to one that is not shaped.  Round trips and loss are measured for all
profiles at once, with little traffic; rates afterwards, slow lines at once, fast ones one by one.
"""

from __future__ import annotations

import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from random import Random

import trio

from netem import namespaces, proxy, tc
from netem.delay import HEADER_BYTES, retransmission_timeout_s
from netem.emulation import Backend
from netem.netns import in_namespace
from netem.network import COORDINATOR, Address, Endpoint, Network, Relay
from netem.probes import (
    DATAGRAM_HEADER_BYTES,
    PROBE_BYTES,
    Arrivals,
    Loss,
    RoundTrips,
    flood_datagrams,
    flood_stream,
    probe_datagrams,
    probe_streams,
)
from netem.profiles import Direction, LinkProfile
from netem.scenario import initial_state

_PORT = 7007
_FAST_BIT_S = 5_000_000
_PROBE_LOAD = 0.2
"""Share of the slower direction that probes may use."""
_RATE_TOLERANCE = 0.1
_STREAM_RATE_TOLERANCE = 0.25
"""A retransmission holds back what is behind it and then lets it go at once: rates of streams vary more."""
_ROUND_TRIP_TOLERANCE_S = 0.004
"""Timers of this process wake up to a millisecond late, once a direction, and the probing process has a few of them."""
_STALLED_SHARE = 0.005
"""So many probes of streams may be late because this process had to wait for a processor: it looks like a loss."""
_RATE_MAX_BIT_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    One figure: asked, measured, and whether they agree.

    `low` and `high` bound what the measured figure may be; of a loss, the losses that explain the count (Wilson).
    """

    asked: float
    measured: float
    low: float
    high: float
    is_right: bool


def _within(asked: float, measured: float, low: float, high: float) -> Comparison:
    return Comparison(asked, measured, low, high, is_right=low <= measured <= high)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A profile on a back end."""

    backend: Backend
    profile: str
    probe_count: int
    round_trip_s: Comparison
    asked_deviation_s: float
    deviation_s: float
    p95_s: float
    loss: Comparison
    rate_up_bit_s: Comparison | None
    rate_down_bit_s: Comparison | None

    @property
    def is_right(self) -> bool:
        """Whether every figure is."""
        parts = (self.round_trip_s, self.loss, self.rate_up_bit_s, self.rate_down_bit_s)
        return all(part is None or part.is_right for part in parts)

    def as_json(self) -> dict[str, object]:
        """For `json.dumps`; NaN, where nothing could be measured, becomes None."""

        def plain(value: object) -> object:
            if isinstance(value, dict):
                return {key: plain(each) for key, each in value.items()}
            return None if isinstance(value, float) and math.isnan(value) else value

        return {key: plain(value) for key, value in asdict(self).items()} | {"is_right": self.is_right}


@dataclass(frozen=True, slots=True)
class _PathProbes:
    """How a profile's path is measured, whatever the back end."""

    probe: Callable[[float], Awaitable[RoundTrips]]
    flood_up: Callable[[float], Awaitable[Arrivals]]
    flood_down: Callable[[float], Awaitable[Arrivals]]


async def check(
    backend: Backend,
    profiles: Sequence[LinkProfile],
    *,
    duration_s: float = 4.0,
    rng: Random,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Measurement]:
    """
    Measure the profiles on a back end; `duration_s` is for the round trips, rates take as long again or more.

    `progress` is called with each profile's name twice: when its round trips and when its rates are measured.  Raises
    NetemError where the back end cannot be used here.
    """
    trips: dict[str, RoundTrips] = {}
    ups: dict[str, Arrivals] = {}
    downs: dict[str, Arrivals] = {}

    async def round_trips(profile: LinkProfile, ends: _PathProbes) -> None:
        trips[profile.name] = await ends.probe(duration_s)
        progress(profile.name)

    async def rates(profile: LinkProfile, ends: _PathProbes, *, fast: bool) -> None:
        sides = ((profile.up, ends.flood_up, ups), (profile.down, ends.flood_down, downs))
        for direction, flood, into in sides:
            limit = direction.rate_bit_s
            if limit is not None and (limit > _FAST_BIT_S) == fast:
                into[profile.name] = await flood(_flood_s(backend, profile, limit))

    async with _test_network(backend, profiles, rng) as ends:
        async with trio.open_nursery() as nursery:
            for profile in profiles:
                nursery.start_soon(round_trips, profile, ends[profile.name])
        async with trio.open_nursery() as nursery:
            for profile in profiles:
                nursery.start_soon(partial(rates, profile, ends[profile.name], fast=False))
        for profile in profiles:
            await rates(profile, ends[profile.name], fast=True)
            progress(profile.name)
    return [
        compare(backend, profile, trips[profile.name], ups.get(profile.name), downs.get(profile.name))
        for profile in profiles
    ]


def _flood_s(backend: Backend, profile: LinkProfile, rate_bit_s: int) -> float:
    """How long a rate is measured: ten full-sized packets at least, and of a stream several retransmissions."""
    least_s = 1.5 if backend is not Backend.PROXY else 3 + 5 * profile.round_trip_s
    return max(least_s, min(10.0, 10 * 1_514 * 8 / rate_bit_s))


def compare(
    backend: Backend, profile: LinkProfile, trips: RoundTrips, up: Arrivals | None, down: Arrivals | None
) -> Measurement:
    """What was measured beside what the profile asks for."""
    probe_bit = (PROBE_BYTES + DATAGRAM_HEADER_BYTES) * 8
    sending_s = sum(probe_bit / each.rate_bit_s for each in (profile.up, profile.down) if each.rate_bit_s is not None)
    asked_s = profile.round_trip_s
    deviation_s = math.hypot(profile.up.jitter_s, profile.down.jitter_s)
    # The median of n draws has a standard error of 1.25 deviations over the root of n; four of those, and the timers.
    tolerance_s = _ROUND_TRIP_TOLERANCE_S + 5 * deviation_s / math.sqrt(max(1, len(trips.seconds)))
    tolerance_s += 0.02 * asked_s
    asked_loss = 1 - (1 - profile.up.loss) * (1 - profile.down.loss)
    lost = trips.up.lost + trips.down.lost
    both = Loss(lost, trips.up.sent)
    low, high = both.interval()
    tolerance = _STREAM_RATE_TOLERANCE if backend is Backend.PROXY else _RATE_TOLERANCE
    stalls = _STALLED_SHARE if backend is Backend.PROXY else 0.0
    is_explained = low - stalls <= asked_loss <= high
    return Measurement(
        backend=backend,
        profile=profile.name,
        probe_count=trips.up.sent,
        round_trip_s=_within(asked_s, trips.median_s, asked_s - tolerance_s, asked_s + sending_s + tolerance_s),
        asked_deviation_s=deviation_s,
        deviation_s=trips.deviation_s,
        p95_s=trips.p95_s,
        loss=Comparison(asked_loss, both.share, low, high, is_explained),
        rate_up_bit_s=_compare_rate(profile.up, up, tolerance),
        rate_down_bit_s=_compare_rate(profile.down, down, tolerance),
    )


def _compare_rate(direction: Direction, arrivals: Arrivals | None, tolerance: float) -> Comparison | None:
    if arrivals is None or direction.rate_bit_s is None:
        return None
    asked = float(direction.rate_bit_s)
    passed = asked * (1 - direction.loss)  # what is lost is lost behind the line's start
    measured = arrivals.rate_bit_s()
    return _within(asked, measured, passed * (1 - tolerance), asked * (1 + tolerance))


@asynccontextmanager
async def _test_network(
    backend: Backend, profiles: Sequence[LinkProfile], rng: Random
) -> AsyncIterator[dict[str, _PathProbes]]:
    known = {profile.name: profile for profile in profiles}
    server = Endpoint(name=COORDINATOR)
    clients = [Endpoint(name=f"p-{name}"[:32], profile=name) for name in known]
    unshaped = {"none": LinkProfile(name="none", title="not shaped"), **known}
    if backend is Backend.PROXY:
        async with _proxy_test_network(server, clients, unshaped, rng) as ends:
            yield ends
        return
    network = Network(endpoints=(server, *clients))
    if backend is Backend.NAMESPACES:
        async with namespaces.emulate(network, initial_state(network, unshaped), rng=rng) as emulation:
            yield _datagram_probes(emulation, clients, known)
        return
    async with namespaces.unshaped(network) as emulation:
        inside = tuple(
            each.model_copy(update={"interface": "eth0", "namespace": emulation.namespace(each.name)})
            for each in clients
        )
        shaped = Network(endpoints=inside)
        async with tc.emulate(shaped, initial_state(shaped, unshaped)):
            yield _datagram_probes(emulation, clients, known)


def _datagram_probes(
    emulation: namespaces.NamespaceEmulation, clients: Sequence[Endpoint], profiles: dict[str, LinkProfile]
) -> dict[str, _PathProbes]:
    return {
        each.profile: _datagram_probes_of(emulation, each.name, profiles[each.profile], _PORT + index)
        for index, each in enumerate(clients)
    }


def _datagram_probes_of(
    emulation: namespaces.NamespaceEmulation, name: str, profile: LinkProfile, port: int
) -> _PathProbes:
    def bound(endpoint: str) -> socket.socket:
        def open_socket() -> socket.socket:
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            opened.setblocking(False)
            opened.bind((emulation.address(endpoint), port))
            return opened

        return in_namespace(emulation.namespace(endpoint), open_socket)

    here, there = (emulation.address(name), port), (emulation.address(COORDINATOR), port)

    async def probe(duration_s: float) -> RoundTrips:
        slower = min(each.rate_bit_s or _RATE_MAX_BIT_S for each in (profile.up, profile.down))
        jitter_s = max(profile.up.jitter_s, profile.down.jitter_s)
        # Closer than some deviations a probe would wait behind a late one, and the median would rise.
        interval_s = max(0.01, 4 * jitter_s, (PROBE_BYTES + DATAGRAM_HEADER_BYTES) * 8 / (slower * _PROBE_LOAD))
        count = max(10, int(duration_s / interval_s))
        wait_s = 1.0 + 3 * profile.round_trip_s
        with bound(name) as client, bound(COORDINATOR) as server:
            # Address resolution (ARP) crosses a shaped interface too, and the first packets wait for its answer.
            await probe_datagrams(client, server, there, count=2, interval_s=0.2, wait_s=wait_s)
            return await probe_datagrams(
                client, server, there, count=count, interval_s=interval_s, wait_s=wait_s
            )  # fmt: skip

    async def flood(sender_at: str, receiver_at: str, to: tuple[str, int], rate: int | None, for_s: float) -> Arrivals:
        with bound(sender_at) as sender, bound(receiver_at) as receiver:
            return await flood_datagrams(
                sender, receiver, to, rate_bit_s=rate or _RATE_MAX_BIT_S, duration_s=for_s + profile.round_trip_s
            )

    return _PathProbes(
        probe,
        lambda for_s: flood(name, COORDINATOR, there, profile.up.rate_bit_s, for_s),
        lambda for_s: flood(COORDINATOR, name, here, profile.down.rate_bit_s, for_s),
    )


@asynccontextmanager
async def _proxy_test_network(
    server: Endpoint, clients: Sequence[Endpoint], profiles: dict[str, LinkProfile], rng: Random
) -> AsyncIterator[dict[str, _PathProbes]]:
    accepted_send, accepted_receive = trio.open_memory_channel[trio.SocketStream](0)

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):  # a measurement ends without farewell
            first = await stream.receive_some(1)
            if first == b"e":
                async for chunk in stream:
                    await stream.send_all(chunk)
            elif first:
                await accepted_send.send(stream)
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        target = Address(port=listener.socket.getsockname()[1])
        relays = tuple(Relay(source=each.name, listen=Address(port=0), target=target) for each in clients)
        network = Network(endpoints=(server, *clients), relays=relays)
        async with proxy.emulate(network, initial_state(network, profiles), rng=rng) as emulation:
            pairing = trio.Lock()
            yield {
                each.profile: _stream_probes(
                    profiles[each.profile], emulation.addresses[relay], accepted_receive, pairing
                )
                for each, relay in zip(clients, relays, strict=True)
            }
        nursery.cancel_scope.cancel()


def _stream_probes(
    profile: LinkProfile, address: Address, accepted: trio.MemoryReceiveChannel[trio.SocketStream], pairing: trio.Lock
) -> _PathProbes:
    async def connect(kind: bytes) -> trio.SocketStream:
        stream = await trio.open_tcp_stream(address.host, address.port)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        await stream.send_all(kind)
        return stream

    async def probe(duration_s: float) -> RoundTrips:
        slower = min(each.rate_bit_s or _RATE_MAX_BIT_S for each in (profile.up, profile.down))
        at_once = profile.round_trip_s * slower * _PROBE_LOAD / ((PROBE_BYTES + HEADER_BYTES) * 8)
        timeout_s = min(retransmission_timeout_s(each) for each in (profile.up, profile.down))
        return await probe_streams(
            lambda: connect(b"e"),
            connections=max(1, min(8, int(at_once))),
            duration_s=duration_s + 2 * profile.round_trip_s,
            late_s=0.9 * timeout_s,
        )

    async def flood(for_s: float, *, up: bool) -> Arrivals:
        async with pairing:  # the server's end that arrives next is this connection's
            client = await connect(b"f")
            server = await accepted.receive()
        async with client, server:
            sender, receiver = (client, server) if up else (server, client)
            return await flood_stream(sender, receiver, duration_s=for_s)

    return _PathProbes(
        probe,
        lambda for_s: flood(for_s, up=True),
        lambda for_s: flood(for_s, up=False),
    )
