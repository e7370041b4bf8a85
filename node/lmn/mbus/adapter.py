"""Wired M-Bus meters as the runtime wants them: those of a bus that are asked, and one that pushes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

import trio

from node.lmn.counters import CounterStore, ReplayCounters
from node.lmn.links import parse_link
from node.lmn.mbus import push
from node.lmn.mbus.driver import TCP_LATENCY_S, Bus, Timing
from node.lmn.mbus.keys import KeyStore
from node.lmn.mbus.procedures import AS_IT_IS, parse_address, parse_page
from node.lmn.mbus.receiver import LayerReceiver
from node.lmn.mbus.secured import SecuredMeters
from node.lmn.profiles import ANY_METER, MeterProfile
from node.lmn.session import Batch, Clock, Driver, LmnStores, datetimes
from protocol.errors import LocalProtocolError

_ANY: Final = 254  # every meter answers to it (EN 13757-2 clause 5.7.5)


class MBusPoll:
    """The meters of a bus; those with a key keep what they were heard with."""

    def __init__(self, profiles: Sequence[MeterProfile], stores: LmnStores) -> None:
        self._addresses = {each.device: parse_address(each.address) if each.address else _ANY for each in profiles}
        self._pages = {each.device: tuple(map(parse_page, each.pages)) or AS_IT_IS for each in profiles}
        self._counters = stores.counters
        self._secured: dict[str, SecuredMeters[LayerReceiver]] = {}

    async def ask(self, stream: trio.abc.Stream, profile: MeterProfile, clock: Clock) -> Batch:
        """As `PollSession.ask`; raises StoreError where a counter cannot be kept."""
        address, pages = self._addresses[profile.device], self._pages[profile.device]
        link = parse_link(profile.link)
        timing = Timing(link.baudrate) if link.path else Timing(latency_s=TCP_LATENCY_S)
        if link.latency_s is not None:
            timing = replace(timing, latency_s=link.latency_s)
        now, key = datetimes(clock), profile.key("encryption")
        if key is None:
            return await Bus(stream, timing, now).read_meter(address, pages=pages)
        if profile.device not in self._secured:
            self._secured[profile.device] = secured_meter(profile, key, self._counters)
        secured = self._secured[profile.device]
        bus = Bus(stream, timing, now, secured.receiver)
        readings = await bus.read_meter(address, pages=pages, must_be_secured=True)
        await secured.keep()
        return readings


class MBusPush:
    """The one meter of a line that is the primary of its bus."""

    def __init__(self, profiles: Sequence[MeterProfile], stores: LmnStores) -> None:
        self._profile, self._counters = profiles[0], stores.counters
        self._secured: SecuredMeters[LayerReceiver] | None = None
        if len(profiles) > 1:
            raise LocalProtocolError("a link with pushed M-Bus is one meter")
        address = parse_address(self._profile.address) if self._profile.address else push.LISTENER_ADDRESS
        if not isinstance(address, int):
            raise LocalProtocolError("a meter that pushes sends to a primary address, 0 to 250")
        self._address = address

    async def listen(self, stream: trio.abc.Stream, clock: Clock) -> AsyncGenerator[Batch, None]:
        """As `PushSession.listen`; raises StoreError where a counter cannot be kept."""
        key = self._profile.key("encryption")
        if key is not None and self._secured is None:
            self._secured = secured_meter(self._profile, key, self._counters)
        secured = self._secured
        opener = None if secured is None else secured.receiver
        async with aclosing(push.listen(stream, self._address, opener, now=datetimes(clock))) as batches:
            async for batch in batches:
                if secured is not None:
                    await secured.keep()
                yield batch


def secured_meter(profile: MeterProfile, key: bytes, counters: CounterStore) -> SecuredMeters[LayerReceiver]:
    """The receiver of one meter's telegrams under its key, with the counters that were taken from it."""
    # The only meter of a line may be anyone: the key is for whoever speaks.
    anyone = key if profile.meter_id == ANY_METER else None
    keys = KeyStore({profile.name_on_bus: key}, anyone, all_secured=anyone is not None)
    taken = ReplayCounters(counters, profile.device, keys.key_named)
    return SecuredMeters(LayerReceiver(keys, counters=taken.highest()), taken)


MBUS: Final = Driver("mbus", MBusPoll, MBusPush)
