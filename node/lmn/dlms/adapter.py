"""DLMS meters as the runtime wants them: an association for each question, or what a meter pushes."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

import trio

from node.lmn.counters import BLOCK_SIZE
from node.lmn.dlms import driver
from node.lmn.dlms.acse import Mechanism
from node.lmn.dlms.client import Association
from node.lmn.dlms.handover import hand_over
from node.lmn.dlms.layout import LayoutBook, find_layout
from node.lmn.dlms.push import PushReceiver
from node.lmn.dlms.replay import DurableReplayGuard
from node.lmn.dlms.security import InvocationCounter, Keys
from node.lmn.hdlc.frame import Address
from node.lmn.hdlc.primary import Timing
from node.lmn.links import parse_link
from node.lmn.profiles import MeterProfile
from node.lmn.session import Batch, Clock, Discovered, Driver, LmnStores, datetimes
from protocol.errors import LocalProtocolError
from protocol.metering.obis import Obis

_CHALLENGE_SIZE: Final = 16
_HEAD_TIMEOUT_S: Final = 2.0  # the standard's 1.5 s, and what a head adds
_SESSION_COUNT_MAX: Final = 8192  # messages of a session; 2,000 registers take half of them
_ADDRESS: Final = re.compile(
    r"(?:(?P<link>hdlc|wrapper):)?(?P<client>\d{1,5})/(?P<logical>\d{1,5})(?:/(?P<physical>\d{1,5}))?"
)
_FRAMINGS: Final[dict[str, driver.PushFraming]] = {"": "hdlc", "hdlc": "hdlc", "wrapper": "wrapper", "mbus": "mbus"}


def _keys(profile: MeterProfile) -> Keys | None:
    encryption = profile.key("encryption")
    return None if encryption is None else Keys(encryption, profile.key("authentication") or b"")


def _association(profile: MeterProfile) -> Association:
    keys, password = _keys(profile), profile.key("password")
    if keys is not None:
        title, challenge = profile.key("system_title") or b"", secrets.token_bytes(_CHALLENGE_SIZE)
        return Association(Mechanism.HLS_GMAC, challenge, keys, title)
    return Association() if password is None else Association(Mechanism.LLS, password)


def _addressing(profile: MeterProfile) -> tuple[driver.HdlcSettings | None, tuple[int, int]]:
    """The stations of HDLC, or the ports of the wrapper, that the profile's address means."""
    match = _ADDRESS.fullmatch(profile.address or "16/1")
    if match is None:
        raise LocalProtocolError("a DLMS address is [hdlc:|wrapper:]CLIENT/LOGICAL[/PHYSICAL]")
    client, logical, physical = int(match["client"]), int(match["logical"]), match["physical"]
    hdlc: driver.HdlcSettings | None = None
    if match["link"] == "hdlc" or (match["link"] is None and parse_link(profile.link).path):
        small = physical is None or max(logical, int(physical)) < 0x80
        server = Address(logical) if physical is None else Address(logical, int(physical), 2 if small else 4)
        latency_s = parse_link(profile.link).latency_s or 0.0
        timing = Timing(response_timeout_s=Timing().response_timeout_s + latency_s)
        hdlc = driver.HdlcSettings(client=Address(client), server=server, timing=timing)
    return hdlc, (client, logical)


def _check_hand_over(profile: MeterProfile, hdlc: driver.HdlcSettings | None) -> None:
    if profile.mode_e and (hdlc is None or parse_link(profile.link).bytesize != 8):
        raise LocalProtocolError("mode_e is for HDLC behind an optical head, on a line of eight bits (frame=8N1)")


def _settings(profile: MeterProfile, registers: list[tuple[int, Obis]] | None = None) -> driver.MeterSettings:
    usual = driver.MeterSettings(profile.name_on_bus, _association(profile), registers)
    latency_s = parse_link(profile.link).latency_s or 0.0
    # A session has dozens of exchanges, and each is late.
    session_timeout_s = usual.session_timeout_s * (1 + latency_s)
    return replace(usual, exchange_timeout_s=usual.exchange_timeout_s + latency_s, session_timeout_s=session_timeout_s)


class _Meter:
    """One meter's counters: ours, reserved in blocks before they are used, and those taken from it."""

    def __init__(self, profile: MeterProfile, stores: LmnStores) -> None:
        self._title = profile.key("system_title")
        self._store = stores.counters
        self._counter = InvocationCounter(0, 0)
        self.taken = DurableReplayGuard(profile, stores.counters)

    async def counter(self) -> InvocationCounter | None:
        """Our counter with room for a session, None where nothing is ciphered.  Raises StoreError."""
        if self._title is None:
            return None
        if self._counter.left < _SESSION_COUNT_MAX:
            first = await self._store.reserve(self._title.hex())
            self._counter.extend(first, first + BLOCK_SIZE)
        return self._counter


class DlmsPoll:
    """The meters of a line; each has its counters for as long as the gateway runs."""

    def __init__(self, profiles: Sequence[MeterProfile], stores: LmnStores) -> None:
        self._stores = stores
        self._meters: dict[str, _Meter] = {}
        self._addressing = {profile.device: _addressing(profile) for profile in profiles}
        for profile in profiles:
            _check_hand_over(profile, self._addressing[profile.device][0])

    async def ask(self, stream: trio.abc.Stream, profile: MeterProfile, clock: Clock) -> Batch:
        """As `PollSession.ask`; raises StoreError where a counter cannot be kept."""
        hdlc, wrapper = self._addressing[profile.device]
        if profile.device not in self._meters:
            self._meters[profile.device] = _Meter(profile, self._stores)
        meter = self._meters[profile.device]
        if profile.mode_e:
            await hand_over(stream, response_timeout_s=_HEAD_TIMEOUT_S + (parse_link(profile.link).latency_s or 0.0))
        registers = [(driver.REGISTER, obis) for obis in profile.registers] or None
        readings = await driver.read_meter(
            stream, _settings(profile, registers), hdlc=hdlc,
            wrapper=wrapper, counter=await meter.counter(), guard=meter.taken.guard, now=datetimes(clock),
        )  # fmt: skip
        await meter.taken.keep()
        return readings


class DlmsPush:
    """The one meter of a line that pushes."""

    def __init__(self, profiles: Sequence[MeterProfile], stores: LmnStores) -> None:
        self._profile, self._stores = profiles[0], stores
        self._taken: DurableReplayGuard | None = None
        if len(profiles) > 1:
            raise LocalProtocolError("a link with pushed DLMS is one meter")
        framing = _FRAMINGS.get(self._profile.address.partition(":")[0])
        if framing is None:
            raise LocalProtocolError(
                f"the address of a meter that pushes DLMS names its frames: {', '.join(filter(None, _FRAMINGS))}"
            )
        self._framing = framing
        self._layouts = LayoutBook(tuple(map(find_layout, self._profile.layouts)))

    async def listen(self, stream: trio.abc.Stream, clock: Clock) -> AsyncGenerator[Batch, None]:
        """As `PushSession.listen`; raises StoreError where a counter cannot be kept."""
        profile = self._profile
        self._taken = self._taken or DurableReplayGuard(profile, self._stores.counters)
        title = profile.key("system_title") or b""
        receiver = PushReceiver(profile.name_on_bus, _keys(profile), self._taken.guard, title, self._layouts)
        pushed = driver.pushes(
            stream, receiver, silence_timeout_s=profile.silence_s, framing=self._framing, now=datetimes(clock)
        )
        async with aclosing(pushed) as batches:
            async for batch in batches:
                await self._taken.keep()
                yield batch


async def _find(stream: trio.abc.Stream, profile: MeterProfile, stores: LmnStores, _: Clock) -> list[Discovered]:
    """The objects that this association may see."""
    hdlc, wrapper = _addressing(profile)
    _check_hand_over(profile, hdlc)
    meter = _Meter(profile, stores)
    if profile.mode_e:
        await hand_over(stream, response_timeout_s=_HEAD_TIMEOUT_S + (parse_link(profile.link).latency_s or 0.0))
    objects = await driver.read_objects(
        stream, _settings(profile), hdlc=hdlc, wrapper=wrapper,
        counter=await meter.counter(), guard=meter.taken.guard,
    )  # fmt: skip
    await meter.taken.keep()
    return [Discovered(str(obis), f"class={class_id}") for class_id, obis in objects]


DLMS: Final = Driver("dlms", DlmsPoll, DlmsPush, _find)
