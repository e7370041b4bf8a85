"""A radio receiver as the runtime wants it: the gateway's own meters are decoded, its neighbours' are passed over."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

import trio

from node.lmn.counters import ReplayCounters
from node.lmn.links import parse_link
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.keys import KeyStore
from node.lmn.mbus.makers.reader import FormatBook
from node.lmn.mbus.makers.table import find_format
from node.lmn.mbus.secured import SecuredMeters
from node.lmn.profiles import ANY_METER, MeterProfile
from node.lmn.session import Batch, Clock, Driver, LmnStores, datetimes
from node.lmn.wmbus import driver
from node.lmn.wmbus.exchange import PollSchedule
from node.lmn.wmbus.modules import Module
from node.lmn.wmbus.receiver import Receiver
from protocol.errors import LocalProtocolError

_GATEWAY_TYPE: Final = 0x31  # device type "communication controller" (EN 13757-7)


class WirelessPush:
    """One radio with the gateway's meters: their keys, counters and formats, for as long as the gateway runs."""

    def __init__(self, profiles: Sequence[MeterProfile], stores: LmnStores) -> None:
        self._profiles, self._counters = profiles, stores.counters
        self._secured: SecuredMeters[Receiver] | None = None
        self._module = module = module_of(profiles[0])
        named = dict.fromkeys(name for each in profiles for name in each.layouts)
        self._formats = FormatBook([find_format(each) for each in named])
        self._gateway = _radio_address(module) if module.gateway else None

    async def listen(self, stream: trio.abc.Stream, clock: Clock) -> AsyncGenerator[Batch, None]:
        """As `PushSession.listen`; raises StoreError where a counter cannot be kept."""
        self._secured = secured = self._secured or self._secured_meters()
        ours = {profile.meter_id or profile.device for profile in self._profiles}

        def is_ours(address: DeviceAddress) -> bool:
            return ANY_METER in ours or str(address) in ours

        plan = None if self._gateway is None else PollSchedule(self._gateway, is_ours)
        heard = driver.listen(stream, self._module, secured.receiver, plan=plan, is_ours=is_ours, now=datetimes(clock))
        async with aclosing(heard) as batches:
            async for batch in batches:
                await secured.keep()
                yield batch

    def _secured_meters(self) -> SecuredMeters[Receiver]:
        keys = KeyStore({
            each.name_on_bus: key for each in self._profiles if (key := each.key("encryption")) is not None
        })  # fmt: skip
        taken = ReplayCounters(self._counters, self._profiles[0].device, keys.key_named)
        return SecuredMeters(Receiver(keys, counters=taken.highest(), formats=self._formats), taken)


def module_of(profile: MeterProfile) -> Module:
    """The receiver that a profile names; a program's lines where its link starts one."""
    programs = parse_link(profile.link).programs
    return Module.parse(profile.address or ("rtl-433" if programs else "imst"))


def _radio_address(module: Module) -> DeviceAddress:
    """Under which address the gateway asks meters that listen after they have spoken."""
    if not module.can_send:
        raise LocalProtocolError(f"{module.framing} only receives: no meter can be asked through it")
    try:
        return DeviceAddress.from_text(module.gateway, _GATEWAY_TYPE)
    except ValueError as error:
        raise LocalProtocolError(f"the gateway's address on the radio, behind the /: {error}") from None


WMBUS: Final = Driver("wmbus", push=WirelessPush)
