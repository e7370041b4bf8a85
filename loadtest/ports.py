"""Ports of loopback that are free, for programs that must be told where to listen before they start."""

import random
import socket

from protocol.errors import StromkreisError

# Below those that systems hand out by themselves (from 32,768 on Linux): between this look and the child's bind, one of
# the outgoing connections that go on beside it would otherwise take the port.
_PORTS = range(10_000, 30_000)


def free_port(wanted: int = 0) -> int:
    """The wanted port if it is free on loopback, else another one that is.  Raises StromkreisError without any."""
    return wanted if wanted and _is_free(wanted) else free_ports(1)[0]


def free_ports(count: int) -> range:
    """So many free ports beside each other.  Raises StromkreisError without any."""
    # From the system's own randomness: processes that were forked from one another would draw the same ports.
    for first in random.SystemRandom().sample(_PORTS, 200):
        ports = range(first, first + count)
        if all(map(_is_free, ports)):
            return ports
    raise StromkreisError(f"no {count} free ports among {_PORTS.start} to {_PORTS.stop} on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
