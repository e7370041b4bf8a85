"""Whether this process may open as many files as its gateways need: asked before the first of them starts."""

from __future__ import annotations

import resource

from protocol.errors import StromkreisError

PER_GATEWAY = 5
"""The links to coordinator and head take a socket's mailbox and a connection each, and a head here accepts one."""
BESIDE = 128
"""Stores, logs, monitoring, enrolment; listeners of heads."""


def files_needed(gateways: int, meters: int) -> int:
    """Open files of a process with so many gateways and meters, each meter on a line of its own."""
    return BESIDE + PER_GATEWAY * gateways + meters


def check_descriptors(gateways: int, meters: int, *, beside: int = 0) -> None:
    """
    Hold what they need, and `beside` it, against the hard limit; links raise the soft one to it.

    Raises StromkreisError that says what to set, or how many gateways the limit allows.
    """
    needed = files_needed(gateways, meters) + beside
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= needed:
        return
    possible = max(0, (allowed - BESIDE) * gateways // max(1, needed - BESIDE))
    raise StromkreisError(
        f"{gateways} gateways need some {needed} open files and {allowed} are allowed: raise the limit (ulimit -Hn,"
        f" LimitNOFILE={needed} of systemd, --ulimit nofile={needed}:{needed} of a container), or have {possible} in"
        " a process"
    )
