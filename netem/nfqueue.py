"""
NFQUEUE: the kernel hands us each packet's number and waits for a verdict; we give it when the packet's delay is over.

Netlink is spoken here directly (include/uapi/linux/netfilter/nfnetlink_queue.h): the bindings that exist are C
extensions without wheels and without a release since 2023, and pyroute2 has no NFQUEUE.  What is needed is three
messages.  Only metadata is copied, never a payload: a packet costs this process about 30 microseconds.

Packets that nobody gives a verdict on stay in the kernel; when this process ends they are dropped.
"""

from __future__ import annotations

import heapq
import logging
import math
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from netem.delay import DelayLine
from netem.errors import MissingKernelFeatureError, MissingPrivilegeError, ToolFailedError

log = logging.getLogger(__name__)

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _NETLINK_NO_ENOBUFS = 270, 5
_SO_RCVBUFFORCE = 33
_NLM_F_REQUEST, _NLM_F_ACK = 1, 4
_NLMSG_ERROR = 2
_QUEUE_SUBSYSTEM = 3 << 8
_PACKET, _VERDICT, _CONFIG = _QUEUE_SUBSYSTEM | 0, _QUEUE_SUBSYSTEM | 1, _QUEUE_SUBSYSTEM | 2
_CFG_CMD, _CFG_PARAMS, _CFG_QUEUE_MAXLEN, _CFG_MASK, _CFG_FLAGS = 1, 2, 3, 4, 5
_CMD_BIND, _COPY_META, _FLAG_GSO = 1, 1, 4
_ATTR_PACKET_HDR, _ATTR_VERDICT_HDR, _ATTR_INDEV, _ATTR_OUTDEV = 1, 2, 5, 6
_ACCEPT = 1
_RECEIVE_BUFFER_BYTES = 1 << 24
_READS_AT_ONCE = 256
"""So many packets are read before due verdicts are given again: a flood cannot delay what is due."""


@dataclass(frozen=True, slots=True)
class QueuedPacket:
    """A packet that waits in the kernel: its number, and the interfaces it came from and goes to."""

    number: int
    in_interface: int
    out_interface: int


@dataclass(frozen=True, slots=True)
class QueueCounters:
    """What the kernel says of a queue: packets waiting, and dropped because the queue or the socket was full."""

    waiting: int
    overflow_dropped: int
    socket_dropped: int


def _message(kind: int, flags: int, queue: int, attributes: bytes) -> bytes:
    header = struct.pack("=IHHIIBBH", 20 + len(attributes), kind, flags, 0, 0, 0, 0, socket.htons(queue))
    return header + attributes


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def verdict(queue: int, number: int) -> bytes:
    """The message that lets packet `number` of a queue go on."""
    return _message(_VERDICT, _NLM_F_REQUEST, queue, _attribute(_ATTR_VERDICT_HDR, struct.pack("!II", _ACCEPT, number)))


def configuration(queue: int, packets_max: int) -> list[bytes]:
    """The messages that bind a queue: metadata only, segments not split, at most `packets_max` waiting."""
    flags = _NLM_F_REQUEST | _NLM_F_ACK
    bind = _attribute(_CFG_CMD, struct.pack("!BxH", _CMD_BIND, socket.AF_INET))
    settings = (
        _attribute(_CFG_PARAMS, struct.pack("!IB", 0, _COPY_META))
        + _attribute(_CFG_QUEUE_MAXLEN, struct.pack("!I", packets_max))
        + _attribute(_CFG_FLAGS, struct.pack("!I", _FLAG_GSO))
        + _attribute(_CFG_MASK, struct.pack("!I", _FLAG_GSO))
    )
    return [_message(_CONFIG, flags, queue, bind), _message(_CONFIG, flags, queue, settings)]


def parse(datagram: bytes) -> Iterator[QueuedPacket | int]:
    """
    The packets of a netlink datagram, and for each acknowledgement its error number (0: done).

    Lengths are the kernel's and still checked: what does not fit ends the iteration.
    """
    offset = 0
    while offset + 16 <= len(datagram):
        length, kind = struct.unpack_from("=IH", datagram, offset)
        if length < 16 or offset + length > len(datagram):
            return
        if kind == _NLMSG_ERROR and length >= 20:
            yield -struct.unpack_from("=i", datagram, offset + 16)[0]
        elif kind == _PACKET:
            packet = _parse_packet(datagram, offset + 20, offset + length)
            if packet is not None:
                yield packet
        offset += length + (-length % 4)


def _parse_packet(datagram: bytes, offset: int, end: int) -> QueuedPacket | None:
    number: int | None = None
    in_interface = out_interface = 0
    while offset + 4 <= end:
        length, kind = struct.unpack_from("=HH", datagram, offset)
        if length < 4 or offset + length > end:
            break
        if length >= 8:
            (value,) = struct.unpack_from("!I", datagram, offset + 4)
            if kind == _ATTR_PACKET_HDR:
                number = value
            elif kind == _ATTR_INDEV:
                in_interface = value
            elif kind == _ATTR_OUTDEV:
                out_interface = value
        offset += length + (-length % 4)
    return None if number is None else QueuedPacket(number, in_interface, out_interface)


def open_queue(queue: int, packets_max: int) -> socket.socket:
    """
    A netlink socket that is bound to a queue of the calling thread's network namespace.

    Raises MissingPrivilegeError, MissingKernelFeatureError (no NFQUEUE), or ToolFailedError where the queue is taken.
    """
    try:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    except OSError:
        raise MissingKernelFeatureError("this kernel has no netfilter netlink: use `--backend proxy`") from None
    try:
        netlink.bind((0, 0))
        netlink.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
        netlink.settimeout(5.0)
        for message in configuration(queue, packets_max):
            netlink.send(message)
            for answer in parse(netlink.recv(1 << 16)):
                if isinstance(answer, int) and answer != 0:
                    raise OSError(answer, "refused")
        _enlarge(netlink)
    except OSError as error:
        netlink.close()
        if error.errno == 1:
            raise MissingPrivilegeError("NFQUEUE cannot be bound") from None
        if error.errno == 22:
            raise MissingKernelFeatureError("this kernel has no nfnetlink_queue: use `--backend proxy`") from None
        raise ToolFailedError(f"NFQUEUE {queue} cannot be bound: {error.strerror}") from None
    netlink.setblocking(False)
    return netlink


def _enlarge(netlink: socket.socket) -> None:
    try:
        netlink.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
    except PermissionError:  # root of a user namespace only: as much as everybody may have
        netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)


def read_counters(queue: int) -> QueueCounters:
    """The kernel's counters of a queue of the calling thread's namespace; zeros where there is none."""
    path = Path("/proc/thread-self/net/netfilter/nfnetlink_queue")
    for line in path.read_text(encoding="ascii").splitlines():
        fields = [int(value) for value in line.split()]
        if fields[0] == queue:
            return QueueCounters(waiting=fields[2], overflow_dropped=fields[5], socket_dropped=fields[6])
    return QueueCounters(0, 0, 0)


class VerdictScheduler:
    """
    Packets by the moment at which they may go on, after the lines that they pass one behind the other.

    A packet enters its second line when it leaves the first, not when it arrives here: else a packet that is slow on
    its first line would hold up all others on the second.
    """

    def __init__(self, lines_of: Callable[[QueuedPacket], Sequence[DelayLine]]) -> None:
        self._lines_of = lines_of
        self._waiting: list[tuple[float, int, int, Sequence[DelayLine]]] = []
        self._added_count = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def next_s(self) -> float:
        """When the next packet leaves a line; infinity while none waits."""
        return self._waiting[0][0] if self._waiting else math.inf

    def add(self, packet: QueuedPacket, now_s: float) -> None:
        """A packet has arrived."""
        self._enter(packet.number, self._lines_of(packet), now_s)

    def _enter(self, number: int, lines: Sequence[DelayLine], at_s: float) -> None:
        departure_s = lines[0].departure_s(at_s) if lines else at_s
        self._added_count += 1  # equal moments keep the order of arrival
        heapq.heappush(self._waiting, (departure_s, self._added_count, number, lines[1:]))

    def due(self, now_s: float) -> list[int]:
        """The numbers of the packets that may go on by now, in order; they are forgotten."""
        numbers = []
        while self._waiting and self._waiting[0][0] <= now_s:
            departure_s, _, number, lines = heapq.heappop(self._waiting)
            if lines:
                self._enter(number, lines, departure_s)
            else:
                numbers.append(number)
        return numbers


async def serve_queue(netlink: socket.socket, queue: int, scheduler: VerdictScheduler) -> None:
    """Read packets and give verdicts when they are due, until cancelled."""
    while True:
        with trio.move_on_at(scheduler.next_s):
            await trio.lowlevel.wait_readable(netlink)
        now_s = trio.current_time()
        for _ in range(_READS_AT_ONCE):
            try:
                datagram = netlink.recv(1 << 16)
            except BlockingIOError:
                break
            for packet in parse(datagram):
                if isinstance(packet, QueuedPacket):
                    scheduler.add(packet, now_s)
                elif packet:
                    log.debug("the kernel refused a verdict", extra={"errno": packet})
        numbers = scheduler.due(trio.current_time())
        for start in range(0, len(numbers), 64):
            batch = b"".join(verdict(queue, number) for number in numbers[start : start + 64])
            netlink.send(batch)
        await trio.lowlevel.checkpoint()
