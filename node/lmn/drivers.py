"""
The drivers the runtime knows, by the names that meter profiles use.

Every codec has a driver of its own shape; here each is brought to the same two: ask one meter for its readings, or
listen to a bus that pushes.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from weakref import WeakKeyDictionary

import trio

from node.lmn import lks1, s0
from node.lmn.counters import BLOCK_SIZE, ReplayCounters
from node.lmn.dlms import driver as dlms
from node.lmn.dlms import security as dlms_security
from node.lmn.dlms.acse import Mechanism
from node.lmn.dlms.client import Association
from node.lmn.dlms.push import PushReceiver
from node.lmn.hdlc.frame import Address
from node.lmn.hdlc.lmn import AddressTable, discover
from node.lmn.iec62056_21 import driver as iec62056_21
from node.lmn.iec62056_21.readings import Interpretation
from node.lmn.links import parse_link
from node.lmn.lks1 import Lks1Bus
from node.lmn.mbus import driver as mbus
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.procedures import parse_address
from node.lmn.p1.encrypted import EncryptedReader
from node.lmn.profiles import ANY_METER, MeterProfile
from node.lmn.sml.client import SmlClient, register_class
from node.lmn.sml.driver import SmlLink
from node.lmn.sml.readings import server_id
from node.lmn.wmbus import driver as wmbus
from node.lmn.wmbus.exchange import PollSchedule
from node.lmn.wmbus.keys import KeyStore
from node.lmn.wmbus.receiver import Receiver
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.reading import Reading
from protocol.metering.units import unit_symbol

_ANSWER_TIMEOUT_S = 10.0  # a long SML list at 9600 baud takes a second
_CHALLENGE_SIZE = 16
_SESSION_COUNT_MAX = 8192  # messages of a session; 2,000 registers take half of them
_GATEWAY_TYPE = 0x31  # device type "communication controller" (EN 13757-7)
_ANY_PRIMARY = 254  # every meter answers to it (EN 13757-2 clause 5.7.5)
Clock = Callable[[], float]
Batch = Sequence[Reading | RemoteProtocolError]
"""What one readout or telegram gave: readings, and an error for each part of it that was none."""

Ask = Callable[[trio.abc.Stream, MeterProfile, Clock], Awaitable[Batch]]
Listen = Callable[[trio.abc.Stream, Sequence[MeterProfile], Clock], AsyncGenerator[Batch, None]]


@dataclass(frozen=True, slots=True)
class Found:
    """What a line or a meter has when it is asked what it has: a participant or an object, and what to know of it."""

    name: str
    description: str


Find = Callable[[trio.abc.Stream, MeterProfile, Clock], Awaitable[list[Found]]]


@dataclass(frozen=True, slots=True)
class Driver:
    """
    A protocol's two manners, and how to see what there is; None where the protocol has no such one.

    All take the open stream and a clock in seconds of the Unix epoch for the reception time.  A meter's or link's
    fault is RemoteProtocolError, OSError or trio's resource errors; the runtime closes the stream after one.
    """

    name: str
    ask: Ask | None = None
    listen: Listen | None = None
    find: Find | None = None


def _now(clock: Clock) -> Callable[[], datetime]:
    return lambda: datetime.fromtimestamp(clock(), UTC)


def _guard(profile: MeterProfile) -> dlms_security.ReplayGuard:
    """The invocation counters taken from a meter, which outlive the link."""
    if "guard" not in profile.memory:
        taken = profile.memory["taken"] = ReplayCounters(
            profile.counters, profile.device, lambda _title: profile.key("encryption")
        )
        highest = {bytes.fromhex(title): number for title, number in taken.highest().items()}
        news = profile.memory["news"] = {}
        profile.memory["guard"] = dlms_security.ReplayGuard(highest, lambda title, n: news.update({title.hex(): n}))
    guard: dlms_security.ReplayGuard = profile.memory["guard"]
    return guard


async def _keep_taken(profile: MeterProfile, news: dict[str, int]) -> None:
    """What was taken is durable before the reading goes on."""
    while news:
        await profile.memory["taken"].keep(*news.popitem())


# --- IEC 62056-21, P1, S0 ---------------------------------------------------------------------------------------------


def _interpretation(profile: MeterProfile) -> Interpretation:
    return Interpretation(medium=profile.medium, zone=profile.zone())


async def _ask_iec62056_21(stream: trio.abc.Stream, profile: MeterProfile, clock: Clock) -> Batch:
    how = _interpretation(profile)
    return await iec62056_21.read_meter(
        stream, address=profile.address, clock=clock, interpretation=how, wake_up=profile.wake_up
    )  # fmt: skip


def _listen_text(
    stream: trio.abc.Stream, profiles: Sequence[MeterProfile], clock: Clock
) -> AsyncGenerator[Batch, None]:
    return iec62056_21.listen(stream, clock=clock, interpretation=_interpretation(profiles[0]))


async def _listen_p1(
    stream: trio.abc.Stream, profiles: Sequence[MeterProfile], clock: Clock
) -> AsyncGenerator[Batch, None]:
    # The meters behind the port speak through it: its key is the first that any of them has.
    profile = next((each for each in profiles if each.key("encryption") is not None), profiles[0])
    reader = None
    if (key := profile.key("encryption")) is not None:
        reader = EncryptedReader(key + (profile.key("authentication") or b""), _guard(profile))
    told = iec62056_21.listen(stream, clock=clock, interpretation=_interpretation(profile), reader=reader)
    async with aclosing(told) as batches:
        async for batch in batches:
            await _keep_taken(profile, profile.memory.get("news", {}))
            yield batch


async def _listen_s0(
    stream: trio.abc.Stream, profiles: Sequence[MeterProfile], clock: Clock
) -> AsyncGenerator[Batch, None]:
    profile = profiles[0]
    if len(profiles) > 1 or profile.constant_imp_per_kwh is None:
        raise LocalProtocolError("an S0 link is one input, with its constant_imp_per_kwh")
    pulses = profile.memory.setdefault("pulses", s0.PulseInput(profile.name_on_bus, profile.constant_imp_per_kwh))
    async with aclosing(s0.listen(stream, pulses, clock=clock)) as batches:
        async for batch in batches:
            yield batch


# --- SML --------------------------------------------------------------------------------------------------------------


async def _ask_sml(stream: trio.abc.Stream, profile: MeterProfile, clock: Clock) -> Batch:
    faults: list[Reading | RemoteProtocolError] = []
    # The server id stays empty where the link has one meter only [REQ.SML.CLI.RequestMeterData.20].
    server = server_id(profile.address) if profile.address else None
    # One client for life: its ids tell an answer from a late one to the request before.
    client = profile.memory.setdefault("client", SmlClient(profile.device.encode(), server_id=server))
    link = SmlLink(stream, _now(clock), on_error=faults.append)
    # Registers that are known are asked for by name [REQ.SML.CLI.RequestMeterData.10]; a list tells what there is.
    exchange = client.request_meter_data(profile.registers) if profile.registers else client.get_list()
    return [*await link.ask_readings(exchange, _ANSWER_TIMEOUT_S), *faults]


async def _find_sml(stream: trio.abc.Stream, profile: MeterProfile, clock: Clock) -> list[Found]:
    """The objects that answer to the names in the meter's list, as a gateway asks for them."""
    server = server_id(profile.address) if profile.address else None
    client, link = SmlClient(profile.device.encode(), server_id=server), SmlLink(stream, _now(clock))
    listed = await link.ask_readings(client.get_list(), _ANSWER_TIMEOUT_S)
    answered = await link.ask_readings(client.discover_objects(listed), _ANSWER_TIMEOUT_S)
    return [
        Found(str(each.obis), f"class={register_class(each.obis)} unit={unit_symbol(each.unit or 0)}")
        for each in answered
        if each.obis is not None
    ]


async def _listen_sml(
    stream: trio.abc.Stream, profiles: Sequence[MeterProfile], clock: Clock
) -> AsyncGenerator[Batch, None]:
    faults: list[Reading | RemoteProtocolError] = []
    link = SmlLink(stream, _now(clock), on_error=faults.append)
    silence_s = max(profile.silence_s for profile in profiles)
    while True:
        readings: list[Reading] = []
        try:
            readings = await link.next_pushed(silence_s)
        except RemoteProtocolError:
            # What was heard and could not be read is news too; silence follows at the next turn.
            if not faults:
                raise
        batch, faults[:] = [*faults, *readings], []
        yield batch


_LMN_TABLES: WeakKeyDictionary[trio.abc.Stream, AddressTable] = WeakKeyDictionary()
"""Who is on which line: found once for all meters of a stream, and forgotten with it (a table knows no stream)."""


async def _ask_lks1(stream: trio.abc.Stream, profile: MeterProfile, clock: Clock) -> Batch:
    bus = Lks1Bus(stream, _LMN_TABLES.setdefault(stream, AddressTable()))
    client = profile.memory.setdefault("client", SmlClient(profile.device.encode()))
    return await lks1.read_meter(bus, profile, client, _now(clock))


async def _find_lks1(stream: trio.abc.Stream, _profile: MeterProfile, _clock: Clock) -> list[Found]:
    """Who answers an invitation on the bus."""
    bus = Lks1Bus(stream)
    await discover(bus.bus, bus.table)
    return [Found(each.sensor_id, f"station={each.address}") for each in bus.table.participants.values()]


# --- DLMS -------------------------------------------------------------------------------------------------------------

_DLMS_ADDRESS = re.compile(
    r"(?:(?P<link>hdlc|wrapper):)?(?P<client>\d{1,5})/(?P<logical>\d{1,5})(?:/(?P<physical>\d{1,5}))?"
)


def _dlms_keys(profile: MeterProfile) -> dlms_security.Keys | None:
    encryption = profile.key("encryption")
    if encryption is None:
        return None
    return dlms_security.Keys(encryption, profile.key("authentication") or b"")


def _dlms_association(profile: MeterProfile) -> Association:
    keys, password = _dlms_keys(profile), profile.key("password")
    if keys is not None:
        title, challenge = profile.key("system_title") or b"", secrets.token_bytes(_CHALLENGE_SIZE)
        return Association(Mechanism.HLS_GMAC, challenge, keys, title)
    return Association() if password is None else Association(Mechanism.LLS, password)


async def _dlms_counter(profile: MeterProfile) -> dlms_security.InvocationCounter | None:
    """Our counter with room for a session, None where nothing is ciphered."""
    title = profile.key("system_title")
    if title is None:
        return None
    counter: dlms_security.InvocationCounter = profile.memory.setdefault(
        "counter", dlms_security.InvocationCounter(0, 0)
    )
    if counter.left < _SESSION_COUNT_MAX:
        first = await profile.counters.reserve(title.hex())
        counter.extend(first, first + BLOCK_SIZE)
    return counter


def _dlms_addressing(profile: MeterProfile) -> tuple[dlms.HdlcSettings | None, tuple[int, int]]:
    """The stations of HDLC, or the ports of the wrapper, that the profile's address means."""
    match = _DLMS_ADDRESS.fullmatch(profile.address or "16/1")
    if match is None:
        raise LocalProtocolError("a DLMS address is [hdlc:|wrapper:]CLIENT/LOGICAL[/PHYSICAL]")
    client, logical, physical = int(match["client"]), int(match["logical"]), match["physical"]
    hdlc: dlms.HdlcSettings | None = None
    if match["link"] == "hdlc" or (match["link"] is None and parse_link(profile.link).path):
        small = physical is None or max(logical, int(physical)) < 0x80
        server = Address(logical) if physical is None else Address(logical, int(physical), 2 if small else 4)
        hdlc = dlms.HdlcSettings(client=Address(client), server=server)
    return hdlc, (client, logical)


async def _ask_dlms(stream: trio.abc.Stream, profile: MeterProfile, clock: Clock) -> Batch:
    hdlc, wrapper = _dlms_addressing(profile)
    registers = [(dlms.REGISTER, obis) for obis in profile.registers] or None
    settings = dlms.MeterSettings(profile.name_on_bus, _dlms_association(profile), registers)
    counter = await _dlms_counter(profile)
    guard = _guard(profile)
    readings = await dlms.read_meter(
        stream, settings, hdlc=hdlc, wrapper=wrapper, counter=counter, guard=guard, now=_now(clock)
    )
    await _keep_taken(profile, profile.memory["news"])
    return readings


async def _find_dlms(stream: trio.abc.Stream, profile: MeterProfile, _: Clock) -> list[Found]:
    """The objects that this association may see."""
    hdlc, wrapper = _dlms_addressing(profile)
    settings = dlms.MeterSettings(profile.name_on_bus, _dlms_association(profile))
    counter, guard = await _dlms_counter(profile), _guard(profile)
    objects = await dlms.read_objects(stream, settings, hdlc=hdlc, wrapper=wrapper, counter=counter, guard=guard)
    await _keep_taken(profile, profile.memory["news"])
    return [Found(str(obis), f"class={class_id}") for class_id, obis in objects]


async def _listen_dlms(
    stream: trio.abc.Stream, profiles: Sequence[MeterProfile], clock: Clock
) -> AsyncGenerator[Batch, None]:
    profile = profiles[0]
    if len(profiles) > 1:
        raise LocalProtocolError("a link with pushed DLMS is one meter")
    guard = _guard(profile)
    title = profile.key("system_title") or b""
    receiver = PushReceiver(profile.name_on_bus, _dlms_keys(profile), guard, title)
    framings: dict[str, dlms.PushFraming] = {"": "hdlc", "hdlc": "hdlc", "wrapper": "wrapper", "mbus": "mbus"}
    framing = framings.get(profile.address.partition(":")[0])
    if framing is None:
        raise LocalProtocolError(f"the address of a meter that pushes DLMS names its frames: {', '.join(framings)}")
    pushed = dlms.pushes(stream, receiver, silence_timeout_s=profile.silence_s, framing=framing, now=_now(clock))
    async with aclosing(pushed) as batches:
        async for batch in batches:
            await _keep_taken(profile, profile.memory["news"])
            yield batch


# --- M-Bus, wired and wireless ----------------------------------------------------------------------------------------


def _receiver(profile: MeterProfile, profiles: Sequence[MeterProfile]) -> Receiver:
    """
    Whoever has the keys of the meters of a bus; `profile` remembers it and the counters that it took.

    It outlives the link: it knows the counters against replay, and the formats of compact frames.
    """
    if "receiver" not in profile.memory:
        keys = {each.name_on_bus: key for each in profiles if (key := each.key("encryption")) is not None}
        # The only meter of a line that is asked may be anyone: the key is for whoever answers.
        anyone = profile.key("encryption") if profile.meter_id == ANY_METER and profile.protocol == "mbus" else None
        store = KeyStore(keys, anyone, all_secured=anyone is not None)
        taken = profile.memory["taken"] = ReplayCounters(profile.counters, profile.device, store.key_named)
        profile.memory["receiver"] = Receiver(store, counters=taken.highest())
    receiver: Receiver = profile.memory["receiver"]
    return receiver


async def _ask_mbus(stream: trio.abc.Stream, profile: MeterProfile, clock: Clock) -> Batch:
    address = parse_address(profile.address) if profile.address else _ANY_PRIMARY
    link = parse_link(profile.link)
    timing = mbus.Timing(link.baudrate) if link.path else mbus.Timing()
    if profile.key("encryption") is None:
        return await mbus.Bus(stream, timing, _now(clock)).read_meter(address)
    receiver = _receiver(profile, [profile])
    known = dict(receiver.counters)
    readings = await mbus.Bus(stream, timing, _now(clock), receiver).read_meter(address, must_be_secured=True)
    await _keep_taken(profile, dict(receiver.counters.items() - known.items()))
    return readings


def _radio_address(device: str, framing: wmbus.Framing) -> DeviceAddress:
    """Under which address the gateway asks meters that listen after they have spoken."""
    if framing in ("rtl-wmbus", "raw"):
        raise LocalProtocolError(f"{framing} only receives: no meter can be asked through it")
    try:
        return DeviceAddress.from_text(device, _GATEWAY_TYPE)
    except ValueError as error:
        raise LocalProtocolError(f"the gateway's address on the radio, behind the /: {error}") from None


async def _listen_wmbus(
    stream: trio.abc.Stream, profiles: Sequence[MeterProfile], clock: Clock
) -> AsyncGenerator[Batch, None]:
    first = profiles[0]
    module, _, gateway = (first.address or "imst").partition("/")
    framings: dict[str, wmbus.Framing] = {
        "imst": "imst", "amber": "amber", "amber-rssi": "amber-rssi", "rtl-wmbus": "rtl-wmbus", "raw": "raw",
    }  # fmt: skip
    framing = framings.get(module)
    if framing is None:
        raise LocalProtocolError(f"the address of a radio meter names its receiver: {', '.join(framings)}")
    receiver = _receiver(first, profiles)
    known = dict(receiver.counters)
    ours = {profile.meter_id or profile.device for profile in profiles}

    def is_ours(address: DeviceAddress) -> bool:
        return ANY_METER in ours or str(address) in ours

    plan = PollSchedule(_radio_address(gateway, framing), is_ours) if gateway else None
    heard = wmbus.listen(stream, framing, receiver, plan=plan, is_ours=is_ours, now=_now(clock))
    async with aclosing(heard) as batches:
        async for batch in batches:
            news = dict(receiver.counters.items() - known.items())
            known |= news
            await _keep_taken(first, news)
            yield batch


DRIVERS: Mapping[str, Driver] = MappingProxyType(
    {
        driver.name: driver
        for driver in (
            Driver("sml", ask=_ask_sml, listen=_listen_sml, find=_find_sml),
            Driver("lks1", ask=_ask_lks1, find=_find_lks1),
            Driver("dlms", ask=_ask_dlms, listen=_listen_dlms, find=_find_dlms),
            Driver("mbus", ask=_ask_mbus),
            Driver("wmbus", listen=_listen_wmbus),
            Driver("iec62056-21", ask=_ask_iec62056_21, listen=_listen_text),
            Driver("p1", listen=_listen_p1),
            Driver("s0", listen=_listen_s0),
        )
    }
)
