"""
The drivers the runtime knows, by the names that meter profiles use.

Every codec has a driver of its own shape; here each is brought to the same two: ask one meter for its readings, or
listen to a bus that pushes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

import trio

from node.lmn import s0
from node.lmn.iec62056_21 import driver as iec62056_21
from node.lmn.iec62056_21.readings import Interpretation
from node.lmn.profiles import MeterProfile
from node.lmn.sml.client import SmlClient
from node.lmn.sml.driver import SmlLink
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.reading import Reading

_SML_TIMEOUT_S = 10.0
Clock = Callable[[], float]
Batch = Sequence[Reading | RemoteProtocolError]
"""What one readout or telegram gave: readings, and an error for each part of it that was none."""

Ask = Callable[[trio.abc.Stream, MeterProfile, Clock], Awaitable[Batch]]
Listen = Callable[[trio.abc.Stream, Sequence[MeterProfile], Clock], AsyncGenerator[Batch, None]]


@dataclass(frozen=True, slots=True)
class Driver:
    """
    A protocol's two manners; None where the protocol has no such one.

    Both take the open stream and a clock in seconds of the Unix epoch for the reception time.  A meter's or link's
    fault is RemoteProtocolError, OSError or trio's resource errors; the runtime closes the stream after one.
    """

    name: str
    ask: Ask | None = None
    listen: Listen | None = None


async def _ask_iec62056_21(stream: trio.abc.Stream, profile: MeterProfile, clock: Clock) -> Batch:
    how = Interpretation(medium=profile.medium, zone=profile.zone())
    return await iec62056_21.read_meter(stream, address=profile.address, clock=clock, interpretation=how)


def _listen_text(
    stream: trio.abc.Stream, profiles: Sequence[MeterProfile], clock: Clock
) -> AsyncGenerator[Batch, None]:
    how = Interpretation(medium=profiles[0].medium, zone=profiles[0].zone())
    return iec62056_21.listen(stream, clock=clock, interpretation=how)


def _listen_s0(stream: trio.abc.Stream, profiles: Sequence[MeterProfile], clock: Clock) -> AsyncGenerator[Batch, None]:
    profile = profiles[0]
    if len(profiles) > 1 or profile.constant_imp_per_kwh is None:
        raise LocalProtocolError("an S0 link is one input, with its constant_imp_per_kwh")
    return s0.listen(
        stream, s0.PulseInput(profile.meter_id or profile.device, profile.constant_imp_per_kwh), clock=clock
    )


def _sml_link(stream: trio.abc.Stream, clock: Clock) -> SmlLink:
    return SmlLink(stream, lambda: datetime.fromtimestamp(clock(), UTC))


async def _ask_sml(stream: trio.abc.Stream, profile: MeterProfile, clock: Clock) -> Batch:
    return await _sml_link(stream, clock).ask_readings(SmlClient(profile.device.encode()).get_list(), _SML_TIMEOUT_S)


async def _listen_sml(
    stream: trio.abc.Stream, profiles: Sequence[MeterProfile], clock: Clock
) -> AsyncGenerator[Batch, None]:
    link = _sml_link(stream, clock)
    silence_s = 10 * max(profile.interval_s for profile in profiles)
    while True:
        yield await link.next_pushed(silence_s)


DRIVERS: Mapping[str, Driver] = MappingProxyType(
    {
        driver.name: driver
        for driver in (
            Driver("sml", ask=_ask_sml, listen=_listen_sml),
            Driver("iec62056-21", ask=_ask_iec62056_21, listen=_listen_text),
            Driver("p1", listen=_listen_text),
            Driver("s0", listen=_listen_s0),
        )
    }
)
