"""
What a simulated household's meter is in each protocol: how it serves a line, and what a gateway must know to read it.

All show the same registers, so that one ground truth serves every protocol.  Where a protocol has keys the meter has
them too, drawn from the neighbourhood's seed: an unencrypted load test would leave out the most of the work.  Counters
against replay begin at the Unix second, so that a meter process that is started again is ahead of the one before.

Meters that speak unasked do so in step with the quarter hours, first just after each begins and last well before it
ends: a telegram that crossed the border on its way would be counted by the gateway into the quarter hour in which it
came, and no ground truth could say which.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import trio

from loadtest.config import MeterProtocol
from loadtest.households import Household
from loadtest.meters import dlms, mbus, p1, sml_server, wmbus
from loadtest.meters.clock import SimulatedClock
from loadtest.meters.dlms_objects import CosemObjects
from loadtest.meters.iec62056_21 import MeterSettings, SimulatedMeter
from loadtest.meters.lks1 import Lks1Meter, drawn_identity
from loadtest.meters.scenario import Timeline
from loadtest.meters.scenario_line import SilencedStream, follow, meter_time, serve_sml
from loadtest.meters.sml import Register, SmlMeter
from node.lmn.dlms.acse import Mechanism
from node.lmn.dlms.security import InvocationCounter, Keys
from node.lmn.hdlc.frame import Address
from node.lmn.mbus.device import DeviceAddress
from node.lmn.p1.encrypted import AUTHENTICATION_KEY_LUXEMBOURG
from protocol.metering.obis import Obis
from protocol.metering.units import WATT, WATT_HOUR

_IMPORT, _EXPORT, _POWER = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 2, 8, 0, 255), Obis(1, 0, 16, 7, 0, 255)
_POWER_IN, _POWER_OUT = Obis(1, 0, 1, 7, 0, 255), Obis(1, 0, 2, 7, 0, 255)
_ELECTRICITY = 2  # device type of M-Bus
_PAUSE_S = 0.02  # the shortest reaction time of IEC 62056-21 clause 6.4.3, for quarter hours of a second
_METER_TITLE, _GATEWAY_TITLE = b"STK", b"SMG"  # three letters of a system title, five octets of a number
_SEGMENT_SIZE = 120  # cuts a push of three registers as 245 octets cut the longer one of a real meter
_CERTIFICATE_YEARS = 7  # from the year in which the simulation begins

Serve = Callable[[trio.abc.Stream], Awaitable[Any]]
Home = Household | Timeline
Now = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class MeterServer:
    """
    One meter on one line: `serve` a stream until it ends.

    `driver` is who reads it; `serial` are the line's settings on a serial device; `query` and `keys` what the meter
    meter_list tells a gateway.
    """

    driver: str
    serve: Serve
    serial: str = "baud=9600&frame=8N1"
    radio: bool = False
    query: str = ""
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)


def speaker(protocol: MeterProtocol, meter: Home, clock: SimulatedClock, *, seed: int, serial: bool) -> MeterServer:
    """The meter of a household in that protocol; `serial` where the line is one."""
    if not isinstance(meter, Timeline):
        return _speaker(protocol, meter, clock, _system_time, seed=seed, serial=serial)
    made = _speaker(protocol, meter, clock, partial(meter_time, meter), seed=seed, serial=serial)

    async def serve(stream: trio.abc.Stream) -> None:
        await made.serve(SilencedStream(stream, lambda: meter.is_silent(time.time())))

    return replace(made, serve=serve)


def _speaker(
    protocol: MeterProtocol, meter: Home, clock: SimulatedClock, now: Now, *, seed: int, serial: bool
) -> MeterServer:  # fmt: skip
    shown = partial(_registers, meter, clock)
    match protocol:
        case "sml":
            return _sml(meter, shown, now)
        case "dlms":
            return _dlms(meter, shown, now, seed, serial)
        case "dlms-mbus":
            return _dlms_mbus(meter, shown, now, clock, seed)
        case "lks1":
            return _lks1(meter, shown, now, clock, seed)
        case "mbus":
            wired = mbus.MBusMeter(DeviceAddress.from_text(meter.meter_id, _ELECTRICITY), shown, now, primary=1)
            served = partial(mbus.serve_stream, meters=[wired])
            return MeterServer(protocol, served, "baud=2400&frame=8E1", query="address=1")
        case "wmbus":
            return _wmbus(meter, shown, now, clock, seed)
        case "iec62056-21":
            settings = MeterSettings(meter.meter_id[-8:], pause_s=_PAUSE_S)
            return MeterServer(protocol, SimulatedMeter(settings, shown, now).serve, "baud=300&frame=7E1")
        case "p1":
            return MeterServer(protocol, partial(push, clock, _p1_telegram(meter, shown, now)), "baud=115200&frame=8N1")
        case "p1-encrypted":
            return _p1_encrypted(meter, shown, now, clock, seed)


async def push(clock: SimulatedClock, telegram: Callable[[], bytes], stream: trio.abc.SendStream) -> None:
    """Say the present telegram again and again, in step with the quarter hours."""
    while True:
        await trio.sleep(clock.until_push_s(time.time()))
        await stream.send_all(telegram())


Shown = Callable[[datetime], list[Register]]


def _sml(meter: Home, shown: Shown, now: Now) -> MeterServer:
    sml = SmlMeter(meter.meter_id, shown)
    if isinstance(meter, Timeline):
        return MeterServer("sml", partial(serve_sml, meter, sml, now))
    return MeterServer("sml", partial(sml_server.serve_stream, [sml], now))


def _lks1(meter: Home, shown: Shown, now: Now, clock: SimulatedClock, seed: int) -> MeterServer:
    year = datetime.fromtimestamp(clock.origin_unix_s, UTC).year
    life = datetime(year, 1, 1, tzinfo=UTC), datetime(year + _CERTIFICATE_YEARS, 1, 1, tzinfo=UTC)
    own = drawn_identity(meter.meter_id, str(seed), *life)
    gateway = drawn_identity(f"ESTK00{meter.meter_id[-8:]}", str(seed), *life)
    sml = SmlMeter(meter.meter_id, shown)
    station = Lks1Meter(sml, own, gateway.certificate, now)

    async def serve(stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            if isinstance(meter, Timeline):
                nursery.start_soon(follow, meter, sml)
            await station.serve(stream)
            nursery.cancel_scope.cancel()

    told = {
        "certificate": gateway.certificate.hex(), "private_key": gateway.private_key.hex(),
        "meter_certificate": own.certificate.hex(),
    }  # fmt: skip
    return MeterServer("lks1", serve, "baud=921600&frame=8N1", query=f"id={meter.meter_id}", keys=told)


def _p1_telegram(meter: Home, shown: Shown, now: Now) -> Callable[[], bytes]:
    port = p1.P1Settings(meter.meter_id)
    return lambda: p1.telegram(port, _by_direction(shown(now())), now())


def _p1_encrypted(meter: Home, shown: Shown, now: Now, clock: SimulatedClock, seed: int) -> MeterServer:
    """As in Luxembourg: a key of the customer's, and an authentication key that all meters share."""
    keys = Keys(_drawn("encryption", meter, seed), AUTHENTICATION_KEY_LUXEMBOURG)
    counter, plain = InvocationCounter(int(time.time())), _p1_telegram(meter, shown, now)
    said = lambda: p1.encrypted(plain(), keys, _title(_METER_TITLE, meter), counter.take())  # noqa: E731
    return MeterServer(
        "p1", partial(push, clock, said), "baud=115200&frame=8N1", query=f"id={meter.meter_id}",
        keys={"encryption": keys.encryption.hex()},
    )  # fmt: skip


def _dlms_mbus(meter: Home, shown: Shown, now: Now, clock: SimulatedClock, seed: int) -> MeterServer:
    """As in Austria: a ciphered push with its tag, in two M-Bus frames."""
    keys = _dlms_keys(meter, seed)
    settings = dlms.ServerSettings(keys=keys, system_title=_title(_METER_TITLE, meter))
    server = dlms.DlmsServer(CosemObjects(meter.meter_id, shown, now), settings)
    server.counter = InvocationCounter(int(time.time()))
    said = lambda: dlms.push_mbus_frames(server.notification(sealed=True), size_max=_SEGMENT_SIZE)  # noqa: E731
    told = {"encryption": keys.encryption.hex(), "authentication": keys.authentication.hex()}
    query = f"push=1&address=mbus:&id={meter.meter_id}"
    return MeterServer("dlms", partial(push, clock, said), "baud=2400&frame=8E1", query=query, keys=told)


def _dlms(meter: Home, shown: Shown, now: Now, seed: int, serial: bool) -> MeterServer:
    keys = _dlms_keys(meter, seed)
    settings = dlms.ServerSettings(
        Mechanism.HLS_GMAC, _drawn("challenge", meter, seed), keys, _title(_METER_TITLE, meter)
    )  # fmt: skip
    server = dlms.DlmsServer(CosemObjects(meter.meter_id, shown, now), settings)
    server.counter = InvocationCounter(int(time.time()))
    told = {
        "encryption": keys.encryption.hex(), "authentication": keys.authentication.hex(),
        "system_title": _title(_GATEWAY_TITLE, meter).hex(),
    }  # fmt: skip
    served = partial(dlms.serve_hdlc, server, address=Address(1)) if serial else partial(dlms.serve_wrapper, server)
    return MeterServer("dlms", served, query=f"id={meter.meter_id}", keys=told)


def _wmbus(meter: Home, shown: Shown, now: Now, clock: SimulatedClock, seed: int) -> MeterServer:
    key = _drawn("encryption", meter, seed)
    device = DeviceAddress.from_text(meter.meter_id, _ELECTRICITY)
    wireless = wmbus.WirelessMeter(device, shown, now, key=key, mode=7, counter=int(time.time()))
    said = lambda: wmbus.framed(wireless.datagram(), "imst")  # noqa: E731
    return MeterServer(
        "wmbus", partial(push, clock, said), "baud=57600&frame=8N1", True, f"id={meter.meter_id}",
        {"encryption": key.hex()},
    )  # fmt: skip


def _dlms_keys(meter: Home, seed: int) -> Keys:
    return Keys(_drawn("encryption", meter, seed), _drawn("authentication", meter, seed))


def _title(letters: bytes, meter: Home) -> bytes:
    return letters + int(meter.meter_id[-8:]).to_bytes(5, "big")


def _drawn(purpose: str, meter: Home, seed: int) -> bytes:
    return hashlib.sha256(f"stromkreis {purpose} {seed} {meter.meter_id}".encode()).digest()[:16]


def _system_time() -> datetime:
    return datetime.now(UTC)


def _registers(meter: Home, clock: SimulatedClock, now: datetime) -> list[Register]:
    """At a moment of the meter's clock: a clock that is wrong makes no other energy."""
    moment_s = now.timestamp()
    if isinstance(meter, Timeline):
        moment_s -= meter.offset_s(time.time())
    shown = meter.registers(clock.quarter_hour(moment_s))
    return [
        (_IMPORT, shown.import_tenth_wh, -1, WATT_HOUR),
        (_EXPORT, shown.export_tenth_wh, -1, WATT_HOUR),
        (_POWER, shown.power_w, 0, WATT),
    ]


def _by_direction(registers: list[Register]) -> list[Register]:
    """P1 has no register for the difference of both directions."""
    power_w = registers[-1][1]
    return [*registers[:-1], (_POWER_IN, max(power_w, 0), 0, WATT), (_POWER_OUT, max(-power_w, 0), 0, WATT)]
