"""Meters of the wired LMN end to end: names to addresses, TLS in HDLC, SML in TLS, by driver and by hand."""

import gc
import random
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from loadtest.meters.lmn_station import LmnMeter
from loadtest.meters.serial_bus import serial_bus
from loadtest.meters.sml import SmlMeter
from loadtest.meters.sml_server import serve_stream
from node.lmn.drivers import _LMN_TABLES, DRIVERS
from node.lmn.hdlc.certificate import make_certificate
from node.lmn.hdlc.primary import Timing
from node.lmn.hdlc.tls import LmnTlsStream, lmn_context_from_der
from node.lmn.lks1 import Lks1Bus, Lks1Session, Lks1Settings, lks1_session
from node.lmn.profiles import MeterProfile
from node.lmn.runtime import Periodic, run_meters
from node.lmn.serial_link import open_serial
from node.lmn.sml.client import GATEWAY_CERTIFICATE, MAGNETIC_TAMPER, METER_KEY_AND_CERTIFICATE, SmlClient, object_path
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading
from protocol.metering.units import WATT, WATT_HOUR

NAMES = ["1STK0000000001", "1STK0000000002"]
ENERGY, POWER = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 16, 7, 0, 255)
START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2033, 1, 1, tzinfo=UTC)
QUICK = Lks1Settings(20, 20, Timing(poll_interval_s=0.002))
DER = serialization.Encoding.DER


def now() -> datetime:
    return datetime.now(UTC)


class Identity:
    def __init__(self, device: str) -> None:
        key = ec.generate_private_key(ec.BrainpoolP256R1())
        self.certificate = make_certificate(device, key, 0x1122334455667788, START, END).public_bytes(DER)
        form = serialization.PrivateFormat.TraditionalOpenSSL
        self.key = key.private_bytes(DER, form, serialization.NoEncryption())


class Home:
    """Meters on one bus, each with SML behind TLS, and the gateway's end of the line."""

    def __init__(self, names: Sequence[str] = NAMES, status: int = 0) -> None:
        self.gateway = Identity("ESTK0000000001")
        self.identities = {name: Identity(name) for name in names}
        self.meters = {
            name: SmlMeter(name, partial(lambda n, _: [(ENERGY, 1000 + n, -1, WATT_HOUR), (POWER, -n, 0, WATT)], n))
            for n, name in enumerate(names)
        }
        for meter in self.meters.values():
            meter.status = status
        self.heard_in_clear = bytearray()

    def station(self, name: str) -> LmnMeter:
        own = self.identities[name]

        async def serve(stream: trio.abc.Stream) -> None:
            context = lmn_context_from_der(own.certificate, own.key, self.gateway.certificate, server=True)
            tls = LmnTlsStream(stream, context, server=True)
            try:
                await tls.handshake()
                await serve_stream([self.meters[name]], now, tls)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

        def refuse(_: bytes) -> bytes:
            raise RemoteProtocolError("sym_authentication", "paired already")

        return LmnMeter(name, serve, refuse, random.Random(name).randrange)

    @asynccontextmanager
    async def line(self) -> AsyncIterator[str]:
        """The path of the gateway's end."""
        async with serial_bus(len(self.meters) + 1) as paths, trio.open_nursery() as nursery:
            for name, path in zip(self.meters, paths[1:], strict=True):
                nursery.start_soon(self._run, self.station(name), path)
            await trio.testing.wait_all_tasks_blocked()
            yield paths[0]
            nursery.cancel_scope.cancel()

    async def _run(self, station: LmnMeter, path: str) -> None:
        async with open_serial(path, 921600) as stream:
            await station.run(stream)

    def context(self, name: str) -> ssl.SSLContext:
        return lmn_context_from_der(self.gateway.certificate, self.gateway.key, self.identities[name].certificate)

    def keys(self, name: str) -> dict[str, Any]:
        return {
            "certificate": self.gateway.certificate.hex(),
            "private_key": self.gateway.key.hex(),
            "meter_certificate": self.identities[name].certificate.hex(),
        }

    @asynccontextmanager
    async def session(self, name: str) -> AsyncIterator[Lks1Session]:
        async with self.line() as path, open_serial(path, 921600) as stream:
            bus = Lks1Bus(stream)
            async with lks1_session(bus, name, self.context(name), SmlClient(b"gateway"), now, QUICK) as session:
                yield session


async def test_two_meters_on_one_bus_are_read_by_their_profiles() -> None:
    """The driver: invitation, addresses, a TLS session for each, registers by name."""
    home, got = Home(), {}
    async with home.line() as path:
        link = f"serial://{path}?baud=921600"
        profiles = [
            MeterProfile(device=name, protocol="lks1", link=link, keys=home.keys(name), registers=(ENERGY,))
            for name in NAMES
        ]
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:

                async def deliver(readings: list[Reading]) -> None:
                    for reading in readings:
                        got[reading.device, reading.obis] = reading.value
                    if len(got) == 2:
                        nursery.cancel_scope.cancel()

                await run_meters(profiles, deliver, Periodic(2.0), rng=random.Random(1), on_event=lambda _: None)
    assert got == {(NAMES[0], ENERGY): 1000, (NAMES[1], ENERGY): 1001}
    gc.collect()
    assert not _LMN_TABLES  # each link opened anew would leave its table behind


async def test_certificates_and_key_reach_the_meter_through_the_session() -> None:
    """REQ.SML.CLI.UpdateMtrCertAndKey.10, REQ.SML.CLI.UpdateSmgwCert.10."""
    home, following, key = Home(), b"\x30\x82next" + bytes(600), b"\x30\x82key" + bytes(900)
    async with home.session(NAMES[0]) as session:
        await session.renew_meter_certificate(key)
        await session.renew_gateway_certificate(following)
    said = home.meters[NAMES[0]].parameters
    assert said[object_path(1, METER_KEY_AND_CERTIFICATE, 2)].value == key
    assert said[object_path(1, GATEWAY_CERTIFICATE, 2)].value == following
    assert home.meters[NAMES[1]].parameters == {}


@pytest.mark.parametrize(
    ("bits", "kinds"), [({9}, "magnetic"), ({10}, "mechanical"), ({9, 10}, "magnetic and mechanical")]
)
async def test_manipulation_is_told_and_reset_in_the_same_session(bits: set[int], kinds: str) -> None:
    """REQ.SML.CLI.ResetTamperState.10 and .20: what the status word shows, and nothing else."""
    home = Home(NAMES[:1], sum(1 << bit for bit in {2, *bits}))
    async with home.session(NAMES[0]) as session:
        first, second = await session.read(), await session.read([ENERGY])
    readings = [item for item in first if isinstance(item, Reading)]
    assert {r.status for r in readings if r.unit} == {sum(1 << bit for bit in {2, *bits})}
    assert [(item.reason, item.detail) for item in first if not isinstance(item, Reading)] == [
        ("meter_tampered", f"{kinds} manipulation")
    ]
    assert home.meters[NAMES[0]].status == 1 << 2
    (energy,) = second
    assert isinstance(energy, Reading)
    assert (energy.value, energy.status) == (1000, 1 << 2)
    paths = set(home.meters[NAMES[0]].parameters)
    assert (object_path(1, MAGNETIC_TAMPER, 2) in paths) == (9 in bits)
    assert len(paths) == len(bits)


async def test_the_bits_of_another_kind_of_meter_reset_nothing() -> None:
    home = Home(NAMES[:1], 1 << 3 | 1 << 9 | 1 << 10)  # wired gas
    async with home.session(NAMES[0]) as session:
        assert all(isinstance(item, Reading) for item in await session.read())
    assert home.meters[NAMES[0]].parameters == {}


async def test_a_meter_that_refuses_is_an_error_and_one_that_is_absent_too() -> None:
    home = Home(NAMES[:1])
    home.meters[NAMES[0]].accepts = lambda _path, _tree: False
    async with home.session(NAMES[0]) as session:
        with pytest.raises(RemoteProtocolError, match="meter_refused"):
            await session.renew_gateway_certificate(b"\x30\x82")
    async with home.line() as path, open_serial(path, 921600) as stream:
        with pytest.raises(RemoteProtocolError, match="lmn_absent"):
            await Lks1Bus(stream).participant("1STK0000000099")


async def test_a_profile_without_its_certificates_is_said() -> None:
    ask = DRIVERS["lks1"].ask
    assert ask is not None
    refused: list[dict[str, Any]] = [{}, {"certificate": "30", "private_key": "30", "meter_certificate": "30"}]
    for keys in refused:
        profile = MeterProfile(device=NAMES[0], protocol="lks1", link="tcp://127.0.0.1:1", keys=keys)
        ours, _ = trio.testing.memory_stream_pair()
        with pytest.raises(LocalProtocolError, match="meter_certificate"):
            await ask(ours, profile, lambda: 0.0)
