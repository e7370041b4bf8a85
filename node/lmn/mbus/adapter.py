"""Wired M-Bus meters as the runtime wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import trio

from node.lmn.counters import ReplayCounters
from node.lmn.links import parse_link
from node.lmn.mbus.driver import Bus, Timing
from node.lmn.mbus.keys import KeyStore
from node.lmn.mbus.procedures import parse_address
from node.lmn.mbus.receiver import LayerReceiver
from node.lmn.mbus.secured import SecuredMeters
from node.lmn.profiles import ANY_METER, MeterProfile
from node.lmn.session import Batch, Clock, Driver, LmnStores, datetimes

_ANY: Final = 254  # every meter answers to it (EN 13757-2 clause 5.7.5)


class MBusPoll:
    """The meters of a bus; those with a key keep what they were heard with."""

    def __init__(self, profiles: Sequence[MeterProfile], stores: LmnStores) -> None:
        self._addresses = {each.device: parse_address(each.address) if each.address else _ANY for each in profiles}
        self._counters = stores.counters
        self._secured: dict[str, SecuredMeters[LayerReceiver]] = {}

    async def ask(self, stream: trio.abc.Stream, profile: MeterProfile, clock: Clock) -> Batch:
        """As `PollSession.ask`; raises StoreError where a counter cannot be kept."""
        address = self._addresses[profile.device]
        link = parse_link(profile.link)
        timing = Timing(link.baudrate) if link.path else Timing()
        if link.latency_s is not None:
            timing = replace(timing, latency_s=link.latency_s)
        now, key = datetimes(clock), profile.key("encryption")
        if key is None:
            return await Bus(stream, timing, now).read_meter(address)
        if profile.device not in self._secured:
            self._secured[profile.device] = self._secured_meter(profile, key)
        secured = self._secured[profile.device]
        readings = await Bus(stream, timing, now, secured.receiver).read_meter(address, must_be_secured=True)
        await secured.keep()
        return readings

    def _secured_meter(self, profile: MeterProfile, key: bytes) -> SecuredMeters[LayerReceiver]:
        # The only meter of a line that is asked may be anyone: the key is for whoever answers.
        anyone = key if profile.meter_id == ANY_METER else None
        keys = KeyStore({profile.name_on_bus: key}, anyone, all_secured=anyone is not None)
        taken = ReplayCounters(self._counters, profile.device, keys.key_named)
        return SecuredMeters(LayerReceiver(keys, counters=taken.highest()), taken)


MBUS: Final = Driver("mbus", poll=MBusPoll)
