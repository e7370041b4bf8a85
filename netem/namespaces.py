"""
The back end `namespaces`: a network of this machine's own kernel, apart from every other.

Each endpoint is a network namespace with one interface, a veth pair to the namespace of the hub, which routes:

    endpoint --tbf: rate up--> hub, nft: cuts, partitions, loss; NFQUEUE: delay, jitter --tbf: rate down--> other

The hub routes instead of bridging: NFQUEUE sits in the ip family's mangle table, which bridged packets pass only with
br_netfilter, and a partition is a rule on two interface names either way.  NFQUEUE instead of netem because many
kernels lack sch_netem, and by iptables because some that have xt_NFQUEUE lack nft's queue expression.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random

import trio

from netem.delay import DelayLine
from netem.errors import InvalidDataError
from netem.netns import in_namespace, write_sysctl
from netem.network import Network
from netem.nfqueue import QueuedPacket, VerdictScheduler, open_queue, read_counters, serve_queue
from netem.profiles import Direction
from netem.records import Record
from netem.scenario import LinkState, NetworkState
from netem.tools import find_tool, run_tool

log = logging.getLogger(__name__)

_QUEUE = 0
_QUEUED_PACKETS_MAX = 65_536
"""At 1,500 bytes 100 MiB of the kernel's memory: a second of 700 Mbit/s."""
_HUB_ADDRESS = "10.213.0.1"
_ENDPOINTS_MAX = 250 * 250
_TICK_S = 0.004
"""A tick of the slowest common kernel clock (250 Hz): the bucket must hold what the rate sends in one."""
_FRAME_BYTES = 1_514
_BURST_BYTES_MIN = 1_600
"""A frame must fit into the bucket, or it never leaves."""
_UNLIMITED = "pfifo limit 1000"


def address_of(index: int) -> str:
    """The address of the endpoint with this index: 10.213.1.1 on."""
    return f"10.213.{1 + index // 250}.{1 + index % 250}"


def rate_qdisc(direction: Direction, lines: int) -> str:
    """The queueing discipline for a direction's rate, as `tc` has it."""
    if direction.rate_bit_s is None:
        return _UNLIMITED
    rate = direction.rate_bit_s * lines
    burst = max(_BURST_BYTES_MIN, int(rate / 8 * _TICK_S * 1.5))
    limit = burst + max(_FRAME_BYTES, int(rate / 8 * direction.queue_s))
    return f"tbf rate {rate}bit burst {burst} limit {limit}"


def ruleset(state: NetworkState, interfaces: Mapping[str, str]) -> str:
    """The nft ruleset of the hub for a state: cuts, partitions, loss; one transaction replaces the one before."""
    cut = [interfaces[name] for name, link in state.items() if not link.is_up]
    groups: dict[int, list[str]] = {}
    for name, link in state.items():
        if link.group:
            groups.setdefault(link.group, []).append(interfaces[name])
    rules = [rule for names in (cut,) if names for rule in (f"iifname {_set(cut)} drop", f"oifname {_set(cut)} drop")]
    for members in groups.values():
        rules.append(f"iifname {_set(members)} oifname != {_set(members)} drop")
        rules.append(f"iifname != {_set(members)} oifname {_set(members)} drop")
    chains: dict[int, str] = {}
    for key, pick in (("iifname", _up), ("oifname", _down)):
        lossy = {interfaces[name]: round(pick(link).loss * 1_000_000) for name, link in state.items()}
        jumps = [f'"{interface}" : jump loss_{share}' for interface, share in lossy.items() if share]
        chains |= {share: f"numgen random mod 1000000 < {share} counter drop" for share in lossy.values() if share}
        rules += [f"{key} vmap {{ {', '.join(jumps)} }}"] if jumps else []
    text = "".join(f"  chain loss_{share} {{ {rule}; }}\n" for share, rule in chains.items())
    body = "".join(f"    {rule}\n" for rule in rules)
    table = "table inet stromkreis_netem"
    hook = "type filter hook forward priority -300; policy accept;"
    return f"{table}\ndelete {table}\n{table} {{\n{text}  chain forward {{\n    {hook}\n{body}  }}\n}}\n"


def _set(interfaces: list[str]) -> str:
    return "{ " + ", ".join(f'"{interface}"' for interface in interfaces) + " }"


def _up(link: LinkState) -> Direction:
    return link.profile.up


def _down(link: LinkState) -> Direction:
    return link.profile.down


class NamespaceEmulation:
    """A network of namespaces that is up; see `emulate`."""

    def __init__(self, network: Network, record: Record, rng: Random) -> None:
        self._endpoints = {endpoint.name: endpoint for endpoint in network.endpoints}
        self._index = {name: index for index, name in enumerate(self._endpoints)}
        self._record = record
        self._rng = rng
        self._interfaces = {name: f"v{index}" for name, index in self._index.items()}
        self._state: NetworkState = {}
        self._lines: dict[int, tuple[DelayLine, DelayLine]] = {}
        """Delay up and down by the index of the hub's interface."""
        self._interface_numbers: dict[str, int] = {}
        self.hub = ""
        self._namespaces: dict[str, str] = {}
        self.scheduler = VerdictScheduler(self._lines_of)

    def namespace(self, endpoint: str) -> str:
        """The network namespace of an endpoint, for `ip netns exec` and `in_namespace`."""
        return self._namespaces[endpoint]

    def address(self, endpoint: str) -> str:
        """The IPv4 address of an endpoint."""
        return address_of(self._index[endpoint])

    def command(self, endpoint: str, arguments: tuple[str, ...]) -> tuple[str, ...]:
        """How a command is started at an endpoint."""
        return (find_tool("ip"), "netns", "exec", self.namespace(endpoint), *arguments)

    async def apply(self, state: NetworkState) -> None:
        """Put a state into effect; only what differs from the one before is touched."""
        before = self._state
        changed = [name for name, link in state.items() if before.get(name) != link]
        if not changed:
            return
        await self._run_in(self.hub, "nft", "-f", "-", stdin=ruleset(state, self._interfaces))
        hub_lines: list[str] = []
        for name in changed:
            profile, lines = state[name].profile, self._endpoints[name].lines
            if name in before and before[name].profile == profile:
                continue
            up, down = self._lines[self._interface_numbers[name]]
            up.direction, down.direction = profile.up, profile.down
            hub_lines.append(f"qdisc replace dev {self._interfaces[name]} root {rate_qdisc(profile.down, lines)}\n")
            up_qdisc = f"qdisc replace dev eth0 root {rate_qdisc(profile.up, lines)}\n"
            await run_tool("tc", "-n", self.namespace(name), "-batch", "-", stdin=up_qdisc)
        if hub_lines:
            await run_tool("tc", "-n", self.hub, "-batch", "-", stdin="".join(hub_lines))
        self._state = dict(state)

    def counters(self) -> dict[str, int]:
        """Packets that wait now, and those that were lost because a queue of ours was full."""
        kernel = in_namespace(self.hub, lambda: read_counters(_QUEUE))
        return {
            "delayed_packets_waiting": kernel.waiting,
            "delay_queue_overflow_packets": kernel.overflow_dropped + kernel.socket_dropped,
        }

    def _lines_of(self, packet: QueuedPacket) -> list[DelayLine]:
        source = self._lines.get(packet.in_interface)
        destination = self._lines.get(packet.out_interface)
        passed = [*([source[0]] if source else []), *([destination[1]] if destination else [])]
        return [line for line in passed if line.direction.delays]

    async def _run_in(self, namespace: str, *arguments: str, stdin: str = "") -> str:
        inside = [find_tool(arguments[0]), *arguments[1:]]
        return await run_tool("ip", "netns", "exec", namespace, *inside, stdin=stdin)

    async def build(self) -> None:
        """Make namespaces, links and routes.  Raises a NetemError; what was made by then is in the record."""
        find_tool("ip")
        self.hub = self._record.add_namespace("hub")
        self._namespaces = {name: self._record.add_namespace(f"e-{name}") for name in self._endpoints}
        names = [self.hub, *self._namespaces.values()]
        await run_tool("ip", "-batch", "-", stdin="".join(f"netns add {name}\n" for name in names))
        in_namespace(self.hub, lambda: write_sysctl("net/ipv4/ip_forward", "1"))
        links = [self._link_commands(name) for name in self._endpoints]
        await run_tool("ip", "-n", self.hub, "-batch", "-", stdin="".join(["link set lo up\n", *links]))
        for name in self._endpoints:
            await run_tool("ip", "-n", self.namespace(name), "-batch", "-", stdin=self._endpoint_commands(name))
        shown = await run_tool("ip", "-n", self.hub, "-oneline", "link", "show", "type", "veth")
        for line in shown.splitlines():
            number, interface = line.split(": ")[:2]
            self._interface_numbers[interface.partition("@")[0]] = int(number)
        self._interface_numbers = {
            name: self._interface_numbers[interface] for name, interface in self._interfaces.items()
        }
        for name in self._endpoints:
            unshaped = (DelayLine(Direction(), self._rng), DelayLine(Direction(), self._rng))
            self._lines[self._interface_numbers[name]] = unshaped

    async def build_queue(self) -> None:
        """Send every packet that the hub forwards to NFQUEUE.  Raises a NetemError."""
        for tool in ("nft", "iptables-restore"):
            find_tool(tool)
        rule = f"*mangle\n-A FORWARD -j NFQUEUE --queue-num {_QUEUE}\nCOMMIT\n"
        await self._run_in(self.hub, "iptables-restore", "--noflush", stdin=rule)

    def _link_commands(self, name: str) -> str:
        interface, namespace = self._interfaces[name], self.namespace(name)
        # One segment a packet: else loss and delay would meet up to 64 KiB at once, which no line carries.
        return (
            f"link add {interface} gso_max_segs 1 type veth peer name eth0 netns {namespace} gso_max_segs 1\n"
            f"address add {_HUB_ADDRESS}/32 dev {interface}\n"
            f"link set {interface} up\n"
            f"route add {self.address(name)}/32 dev {interface}\n"
        )

    def _endpoint_commands(self, name: str) -> str:
        return (
            "link set lo up\n"
            f"address add {self.address(name)}/32 dev eth0\n"
            "link set eth0 up gso_max_segs 1\n"
            f"route add {_HUB_ADDRESS}/32 dev eth0\n"
            f"route add default via {_HUB_ADDRESS} dev eth0 src {self.address(name)}\n"
        )


@asynccontextmanager
async def emulate(network: Network, state: NetworkState, *, rng: Random) -> AsyncIterator[NamespaceEmulation]:
    """
    A network of namespaces in the given state; everything it made is removed at the end, whatever ends it.

    Raises MissingPrivilegeError, MissingToolError, MissingKernelFeatureError, ToolFailedError.
    """
    if len(network.endpoints) > _ENDPOINTS_MAX:
        raise InvalidDataError(f"found {len(network.endpoints)} endpoints; expected at most {_ENDPOINTS_MAX}")
    with Record() as record:
        emulation = NamespaceEmulation(network, record, rng)
        try:
            await emulation.build()
            await emulation.build_queue()
            netlink = in_namespace(emulation.hub, lambda: open_queue(_QUEUE, _QUEUED_PACKETS_MAX))
            with netlink:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(serve_queue, netlink, _QUEUE, emulation.scheduler)
                    await emulation.apply(state)
                    yield emulation
                    nursery.cancel_scope.cancel()
        finally:
            await record.remove_all()


@asynccontextmanager
async def unshaped(network: Network) -> AsyncIterator[NamespaceEmulation]:
    """The same network without rates, delays and faults, for another back end to shape; `apply` is not for it."""
    with Record() as record:
        emulation = NamespaceEmulation(network, record, Random(0))
        try:
            await emulation.build()
            yield emulation
        finally:
            await record.remove_all()
