"""
Measuring a path from both of its ends: round trips, loss and rate, by datagrams where they pass, else by streams.

The ends are sockets of this process (they may be in different network namespaces), so one clock times both.
"""

from __future__ import annotations

import math
import socket
import statistics
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from netem.delay import HEADER_BYTES, SEGMENT_BYTES

PROBE_BYTES = 64
DATAGRAM_HEADER_BYTES = 42
"""What UDP on Ethernet adds on the line: 14, IPv4 20, UDP 8."""
_NUMBER = struct.Struct("!I")
_DRAIN_MAX = 64
_PAUSE_S = 0.01
"""Between two probes of a connection: probes without pause would measure how busy this process is."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Packets that did not arrive, of those that were sent."""

    lost: int
    sent: int

    @property
    def share(self) -> float:
        """The share that was lost; 0 where nothing was sent."""
        return self.lost / self.sent if self.sent else 0.0

    def interval(self, z: float = 3.89) -> tuple[float, float]:
        """The interval of shares that explain the count (Wilson score; 3.89: 99.99 %)."""
        if not self.sent:
            return 0.0, 1.0
        n, p = self.sent, self.share
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(slots=True)
class RoundTrips:
    """Round trips of probes, and how many were lost in each direction."""

    seconds: list[float] = field(default_factory=list)
    up: Loss = Loss(0, 0)
    down: Loss = Loss(0, 0)

    @property
    def median_s(self) -> float:
        """The median; NaN where no probe came back."""
        return statistics.median(self.seconds) if self.seconds else math.nan

    @property
    def p95_s(self) -> float:
        """The 95th percentile; NaN where no probe came back."""
        return sorted(self.seconds)[int(0.95 * (len(self.seconds) - 1))] if self.seconds else math.nan

    @property
    def deviation_s(self) -> float:
        """The standard deviation; 0 of fewer than two."""
        return statistics.stdev(self.seconds) if len(self.seconds) > 1 else 0.0


@dataclass(slots=True)
class Arrivals:
    """When how many bytes arrived."""

    items: list[tuple[float, int]] = field(default_factory=list)

    def rate_bit_s(self, *, skipped_share: float = 0.2) -> float:
        """The rate after a first share of the time, in which a full bucket or an empty queue would mislead; or NaN."""
        if len(self.items) < 3:
            return math.nan
        first_s, last_s = self.items[0][0], self.items[-1][0]
        begin_s = first_s + skipped_share * (last_s - first_s)
        kept = [item for item in self.items if item[0] >= begin_s]
        if len(kept) < 2 or kept[-1][0] <= kept[0][0]:
            return math.nan
        return sum(size for _, size in kept[1:]) * 8 / (kept[-1][0] - kept[0][0])


async def _receive(receiver: socket.socket, got: Callable[[bytes, tuple[str, int]], None]) -> None:
    while True:
        await trio.lowlevel.wait_readable(receiver)
        for _ in range(_DRAIN_MAX):
            try:
                datagram, sender = receiver.recvfrom(2_048)
            except (BlockingIOError, ConnectionRefusedError):
                break
            got(datagram, sender)


def _send(sender: socket.socket, datagram: bytes, to: tuple[str, int]) -> bool:
    try:
        sender.sendto(datagram, to)
    except (BlockingIOError, OSError):  # the queue of the interface is full: as lost as on any line
        return False
    return True


async def probe_datagrams(
    client: socket.socket, server: socket.socket, to: tuple[str, int], *, count: int, interval_s: float, wait_s: float
) -> RoundTrips:
    """Send numbered probes to a server that echoes them; wait `wait_s` for the last ones."""
    sent_s: dict[int, float] = {}
    reached: set[int] = set()
    returned_s: dict[int, float] = {}

    def echo(datagram: bytes, sender: tuple[str, int]) -> None:
        reached.add(_NUMBER.unpack_from(datagram)[0])
        _send(server, datagram, sender)

    def note(datagram: bytes, _: tuple[str, int]) -> None:
        returned_s.setdefault(_NUMBER.unpack_from(datagram)[0], trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_receive, server, echo)
        nursery.start_soon(_receive, client, note)
        started_s = trio.current_time()
        for number in range(count):
            await trio.sleep_until(started_s + number * interval_s)
            sent_s[number] = trio.current_time()
            _send(client, _NUMBER.pack(number) + bytes(PROBE_BYTES - _NUMBER.size), to)
        with trio.move_on_after(wait_s):
            while len(returned_s) < count:
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    seconds = [returned_s[number] - sent_s[number] for number in returned_s]
    return RoundTrips(seconds, Loss(count - len(reached), count), Loss(len(reached) - len(returned_s), len(reached)))


async def flood_datagrams(
    sender: socket.socket, receiver: socket.socket, to: tuple[str, int], *, rate_bit_s: float, duration_s: float
) -> Arrivals:
    """Send more than a line of `rate_bit_s` carries for a while; sizes are those on the line."""
    payload_bytes = 1_400 if rate_bit_s > 5_000_000 else 500 if rate_bit_s > 100_000 else 200
    line_bytes = payload_bytes + DATAGRAM_HEADER_BYTES
    excess = 1.25 if rate_bit_s > 5_000_000 else 2.0  # a full bucket is empty the sooner
    arrivals = Arrivals()

    def note(datagram: bytes, _: tuple[str, int]) -> None:
        arrivals.items.append((trio.current_time(), len(datagram) + DATAGRAM_HEADER_BYTES))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_receive, receiver, note)
        started_s, sent_bytes = trio.current_time(), 0
        while (elapsed_s := trio.current_time() - started_s) < duration_s:
            while sent_bytes * 8 < excess * rate_bit_s * elapsed_s:
                sent_bytes += line_bytes
                if not _send(sender, bytes(payload_bytes), to):
                    break
            await trio.sleep(max(0.001, line_bytes * 8 / rate_bit_s / 2))
        nursery.cancel_scope.cancel()
    return arrivals


Connect = Callable[[], Awaitable[trio.SocketStream]]


async def probe_streams(connect: Connect, *, connections: int, duration_s: float, late_s: float) -> RoundTrips:
    """
    Round trips over connections to a server that echoes, one probe after the other on each.

    Loss shows as a late answer: what takes longer than the median by `late_s` has waited for a retransmission, in
    either direction; it is counted as `up`.  The first probe of a connection waits for the handshake and is left out.
    """
    seconds: list[float] = []

    async def ask() -> None:
        stream = await connect()
        async with stream:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await exchange(stream)
            while True:
                started_s = trio.current_time()
                await exchange(stream)
                seconds.append(trio.current_time() - started_s)
                await trio.sleep(_PAUSE_S)

    async def exchange(stream: trio.SocketStream) -> None:
        await stream.send_all(bytes(PROBE_BYTES))
        missing = PROBE_BYTES
        while missing:
            missing -= len(await stream.receive_some(missing)) or missing

    with trio.move_on_after(duration_s):
        async with trio.open_nursery() as nursery:
            for _ in range(connections):
                nursery.start_soon(ask)
    trips = RoundTrips(seconds)
    late = sum(each > trips.median_s + late_s for each in seconds)
    return RoundTrips(seconds, Loss(late, len(seconds)))


async def flood_stream(sender: trio.SocketStream, receiver: trio.SocketStream, *, duration_s: float) -> Arrivals:
    """Send as much as the path takes; sizes are those on the line, headers of full segments included."""
    arrivals = Arrivals()

    async def take() -> None:
        async for chunk in receiver:
            on_line = len(chunk) * (SEGMENT_BYTES + HEADER_BYTES) // SEGMENT_BYTES
            arrivals.items.append((trio.current_time(), on_line))

    with trio.move_on_after(duration_s):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            while True:
                await sender.send_all(bytes(1 << 14))
    return arrivals
