"""
What a driver is to the runtime: how its meters are asked, how its line is listened to, and what lives between links.

A link is opened and closed many times in the life of a gateway; what a driver must remember over that (request ids,
invocation counters, formats of compact frames, pulses) lives in its session, one for each line, and nowhere else: a
meter's profile is data and never changes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import trio

from node.lmn.counters import CounterStore, VolatileCounters
from node.lmn.pairing import PairingStore
from node.lmn.profiles import MeterProfile
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading

Clock = Callable[[], float]
"""Seconds of the Unix epoch."""

Batch = Sequence[Reading | RemoteProtocolError]
"""What one readout or telegram gave: readings, and an error for each part of it that was none."""


def datetimes(clock: Clock) -> Callable[[], datetime]:
    """The same clock, in aware datetimes."""
    return lambda: datetime.fromtimestamp(clock(), UTC)


@dataclass(frozen=True, slots=True)
class LmnStores:
    """
    What outlives the process.

    Without `counters` numbers that must never come twice rest on the clock; without `pairings` no certificate of the
    wired LMN is renewed.
    """

    counters: CounterStore = field(default_factory=VolatileCounters)
    pairings: PairingStore | None = None


class PollSession(Protocol):
    """A line whose meters are asked one after the other, from its first link to the end of the gateway."""

    async def ask(self, stream: trio.abc.Stream, profile: MeterProfile, clock: Clock) -> Batch:
        """
        One meter's readings over an open stream, stamped by `clock`.

        A meter's or link's fault is RemoteProtocolError, OSError or trio's resource errors; the caller closes the
        stream after one.
        """


class PushSession(Protocol):
    """A line whose meters speak by themselves."""

    def listen(self, stream: trio.abc.Stream, clock: Clock) -> AsyncGenerator[Batch, None]:
        """What the line gives, a telegram or fault at a time; faults as `PollSession.ask`."""


@dataclass(frozen=True, slots=True)
class Discovered:
    """What a line or a meter has when it is asked what it has: a participant or an object, and what to know of it."""

    name: str
    description: str


OpenPoll = Callable[[Sequence[MeterProfile], LmnStores], PollSession]
OpenPush = Callable[[Sequence[MeterProfile], LmnStores], PushSession]
Find = Callable[[trio.abc.Stream, MeterProfile, LmnStores, Clock], Awaitable[list[Discovered]]]


@dataclass(frozen=True, slots=True)
class Driver:
    """
    A protocol's two manners, and how to see what there is; None where the protocol has no such one.

    The profiles given to `poll` and `push` are all meters of one line.  Neither does I/O; both raise
    LocalProtocolError for profiles that the protocol cannot serve.
    """

    name: str
    poll: OpenPoll | None = None
    push: OpenPush | None = None
    find: Find | None = None
