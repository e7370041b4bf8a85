"""
Captures of a network (pcap, pcapng) as the bytes of its lines.

Each direction of a connection is a stream of its own, put in order by TCP's sequence numbers, so that what was sent
twice counts once; a datagram of UDP is a piece of its stream.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

import dpkt

from protocol.errors import StromkreisError
from stromkreis.recordings import CAPTURE_MAGICS

CAPTURE_SIZE_MAX: Final = 1 << 28
_PENDING_COUNT_MAX: Final = 256  # segments that came before the one they follow


@dataclass(slots=True)
class Direction:
    """One direction of a connection: who speaks to whom, and what."""

    name: str
    octets: bytearray = field(default_factory=bytearray)
    _next: int | None = None
    _pending: dict[int, bytes] = field(default_factory=dict)

    def segment(self, number: int, data: bytes, *, begins: bool) -> None:
        """A TCP segment with its sequence number."""
        if begins:
            self._next = (number + 1) & 0xFFFF_FFFF
        if not data:
            return
        if self._next is None:
            self._next = number
        self._pending[number] = data
        if len(self._pending) > _PENDING_COUNT_MAX:  # one is lost: what follows it still counts
            self._next = min(self._pending, key=self._distance)
        self._drain()

    def end(self) -> None:
        """The capture has ended: what waits for a segment that never came follows the gap."""
        while self._pending:
            self._next = min(self._pending, key=self._distance)
            self._drain()

    def _distance(self, number: int) -> int:
        return ((number - (self._next or 0) + 0x8000_0000) & 0xFFFF_FFFF) - 0x8000_0000

    def _drain(self) -> None:
        while ready := [number for number in self._pending if self._distance(number) <= 0]:
            for number in sorted(ready, key=self._distance):
                new = self._pending.pop(number)[max(0, -self._distance(number)) :]  # what was there before is left out
                self.octets += new
                self._next = ((self._next or 0) + len(new)) & 0xFFFF_FFFF


def captured(file: BinaryIO, head: bytes) -> list[tuple[Direction, Direction | None]]:
    """
    The connections of a capture, each with its two directions (one where only one of them speaks).

    Raises StromkreisError for a capture that cannot be read, or is larger than `CAPTURE_SIZE_MAX`.
    """
    data = head + file.read(CAPTURE_SIZE_MAX + 1)
    if len(data) > CAPTURE_SIZE_MAX:
        raise StromkreisError(f"the capture is larger than {CAPTURE_SIZE_MAX >> 20} MiB: cut it, or filter it by host")
    directions: dict[tuple[Any, ...], Direction] = {}
    try:
        form = dpkt.pcapng if head.startswith(CAPTURE_MAGICS[-1]) else dpkt.pcap
        reader = form.Reader(io.BytesIO(data))
        link = _LINKS.get(reader.datalink())
        if link is None:
            told = f"a capture of link type {reader.datalink()}: expected Ethernet, Linux cooked or raw IP"
            raise StromkreisError(told)
        for _, packet in reader:
            _take(directions, link, bytes(packet))
    except (dpkt.dpkt.Error, ValueError, IndexError) as error:
        raise StromkreisError(f"the capture cannot be read ({type(error).__name__})") from None
    pairs: list[tuple[Direction, Direction | None]] = []
    for key, direction in directions.items():
        direction.end()
        there = (key[0], key[2], key[1])
        if there not in directions or list(directions).index(there) > list(directions).index(key):
            pairs.append((direction, directions.get(there)))
    return pairs


def _take(directions: dict[tuple[Any, ...], Direction], link: Any, packet: bytes) -> None:
    try:
        network = link(packet)
    except dpkt.dpkt.Error:
        return
    while not isinstance(network, dpkt.ip.IP | dpkt.ip6.IP6):
        network = getattr(network, "data", None)
        if network is None or isinstance(network, bytes):
            return
    transport = network.data
    if not isinstance(transport, dpkt.tcp.TCP | dpkt.udp.UDP):
        return
    here, there = (network.src, transport.sport), (network.dst, transport.dport)
    name = f"{_host(network.src)}:{transport.sport} to {_host(network.dst)}:{transport.dport}"
    direction = directions.setdefault((type(transport), here, there), Direction(name))
    if isinstance(transport, dpkt.udp.UDP):
        direction.octets += transport.data
    else:
        direction.segment(transport.seq, bytes(transport.data), begins=bool(transport.flags & dpkt.tcp.TH_SYN))


def _host(address: bytes) -> str:
    return dpkt.utils.inet_to_str(address) if len(address) == 4 else f"[{dpkt.utils.inet_to_str(address)}]"


def _raw(packet: bytes) -> Any:
    return dpkt.ip6.IP6(packet) if packet[:1] and packet[0] >> 4 == 6 else dpkt.ip.IP(packet)


_LINKS: Final[dict[int, Any]] = {
    0: dpkt.loopback.Loopback, 1: dpkt.ethernet.Ethernet, 12: _raw, 101: _raw, 113: dpkt.sll.SLL, 276: dpkt.sll2.SLL2,
}  # fmt: skip
