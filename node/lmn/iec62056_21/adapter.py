"""IEC 62056-21 meters as the runtime wants them: asked in modes A to C, or listened to in mode D."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Final

import trio

from node.lmn.iec62056_21 import driver
from node.lmn.iec62056_21.readings import Interpretation
from node.lmn.links import parse_link
from node.lmn.profiles import MeterProfile
from node.lmn.session import Batch, Clock, Driver, LmnStores


def interpretation(profile: MeterProfile) -> Interpretation:
    """How a profile's lines are to be understood."""
    return Interpretation(medium=profile.medium, zone=profile.zone())


class TextPoll:
    """Meters that are asked; nothing is remembered of them."""

    def __init__(self, _profiles: Sequence[MeterProfile], _stores: LmnStores) -> None:
        pass

    async def ask(self, stream: trio.abc.Stream, profile: MeterProfile, clock: Clock) -> Batch:
        """As `PollSession.ask`."""
        return await driver.read_meter(
            stream, address=profile.address, clock=clock, interpretation=interpretation(profile),
            wake_up=profile.wake_up, latency_s=parse_link(profile.link).latency_s or 0.0,
        )  # fmt: skip


class TextPush:
    """A meter that pushes readouts, and those behind it."""

    def __init__(self, profiles: Sequence[MeterProfile], _stores: LmnStores) -> None:
        self._how = interpretation(profiles[0])

    def listen(self, stream: trio.abc.Stream, clock: Clock) -> AsyncGenerator[Batch, None]:
        """As `PushSession.listen`."""
        return driver.listen(stream, clock=clock, interpretation=self._how)


IEC62056_21: Final = Driver("iec62056-21", TextPoll, TextPush)
