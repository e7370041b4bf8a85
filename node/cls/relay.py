"""
Octets in both directions between two ends, until one of them or a limit ends it.

One part of at most 64 KiB is under way in each direction, and the next is read when it has been taken: that is the
back-pressure, and all the memory a tunnel needs.  What tunnels may move in a second is bounded for all of a gateway
together, since what they do is computed in the process that reads its meters.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

import trio

from protocol.errors import RemoteProtocolError

RATE_BYTES_PER_S: Final = 4_000_000
_BURST_S: Final = 0.25


class End(Enum):
    """Why a tunnel ended."""

    HOME = "closed_by_cls"
    REMOTE = "closed_by_participant"
    HOME_FAULT = "cls_fault"
    REMOTE_FAULT = "participant_fault"
    IDLE = "idle"
    DURATION = "duration"
    PROFILE = "profile_changed"


class Stream(Protocol):
    """An end."""

    async def receive_some(self) -> bytes | bytearray: ...  # noqa: D102
    async def send_all(self, content: bytes, /) -> None: ...  # noqa: D102


@dataclass(slots=True)
class Traffic:
    """Octets of application data, as the home sees them."""

    sent: int = 0
    received: int = 0


class RateLimit:
    """So many octets a second for all who share it, in the order in which they ask."""

    def __init__(self, bytes_per_s: float = RATE_BYTES_PER_S) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_s = float("-inf")

    async def spend(self, size: int) -> None:
        """Return when they may go."""
        now_s = trio.current_time()
        self._free_s = max(self._free_s, now_s - _BURST_S) + size / self._bytes_per_s
        await trio.sleep_until(self._free_s)


async def relay(
    home: Stream, remote: Stream, rate: RateLimit, traffic: Traffic, *, idle_s: float, duration_s: float
) -> End:  # fmt: skip
    """Serve until one side closes, fails, nothing has moved for `idle_s`, or for `duration_s` in all."""
    end = End.DURATION
    with trio.move_on_after(duration_s), trio.move_on_after(idle_s) as idle:

        async def pump(source: Stream, sink: Stream, is_upwards: bool) -> None:
            nonlocal end
            closed, fault, others_fault = (
                (End.HOME, End.HOME_FAULT, End.REMOTE_FAULT) if is_upwards
                else (End.REMOTE, End.REMOTE_FAULT, End.HOME_FAULT)
            )  # fmt: skip
            found = fault
            try:
                while data := await source.receive_some():
                    await rate.spend(len(data))
                    found = others_fault
                    await sink.send_all(bytes(data))
                    found = fault
                    if is_upwards:
                        traffic.sent += len(data)
                    else:
                        traffic.received += len(data)
                    idle.deadline = trio.current_time() + idle_s
                end = closed
            except (RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
                end = found
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, home, remote, True)
            nursery.start_soon(pump, remote, home, False)
    return End.IDLE if idle.cancelled_caught else end
