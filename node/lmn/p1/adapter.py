"""A P1 port as the runtime wants it; with a key its telegrams are encrypted ones."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

import trio

from node.lmn.dlms.replay import DurableReplayGuard
from node.lmn.iec62056_21 import driver
from node.lmn.iec62056_21.adapter import interpretation
from node.lmn.p1.encrypted import EncryptedReader
from node.lmn.profiles import MeterProfile
from node.lmn.session import Batch, Clock, Driver, LmnStores


class P1Push:
    """The meters behind one port speak through it: its key is the first that any of them has."""

    def __init__(self, profiles: Sequence[MeterProfile], stores: LmnStores) -> None:
        self._profile = next((each for each in profiles if each.key("encryption") is not None), profiles[0])
        self._stores = stores
        self._taken: DurableReplayGuard | None = None

    async def listen(self, stream: trio.abc.Stream, clock: Clock) -> AsyncGenerator[Batch, None]:
        """As `PushSession.listen`; raises StoreError where a counter cannot be kept."""
        profile, reader = self._profile, None
        if (key := profile.key("encryption")) is not None:
            self._taken = self._taken or DurableReplayGuard(profile, self._stores.counters)
            reader = EncryptedReader(key + (profile.key("authentication") or b""), self._taken.guard)
        heard = driver.listen(stream, clock=clock, interpretation=interpretation(profile), reader=reader)
        async with aclosing(heard) as batches:
            async for batch in batches:
                if self._taken is not None:
                    await self._taken.keep()
                yield batch


P1: Final = Driver("p1", push=P1Push)
