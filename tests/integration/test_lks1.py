"""Meters of the wired LMN end to end: names to addresses, TLS in HDLC, SML in TLS, by driver and by hand."""

import gc
import random
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
import trio
import trio.testing

from loadtest.meters.lks1 import Lks1Meter, drawn_identity
from loadtest.meters.serial_bus import serial_bus
from loadtest.meters.sml import SmlMeter
from node.lmn.drivers import _LMN_TABLES, DRIVERS
from node.lmn.hdlc.primary import Timing
from node.lmn.hdlc.tls import lmn_context_from_der
from node.lmn.lks1 import Lks1Bus, Lks1Settings, lks1_session
from node.lmn.profiles import MeterProfile
from node.lmn.runtime import Periodic, run_meters
from node.lmn.serial_link import open_serial
from node.lmn.sml.client import MAGNETIC_TAMPER, SmlClient, object_path
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading
from protocol.metering.units import WATT, WATT_HOUR

NAMES = ["1STK0000000001", "1STK0000000002"]
ENERGY, POWER = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 16, 7, 0, 255)
START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2033, 1, 1, tzinfo=UTC)
QUICK = Lks1Settings(20, 20, Timing(poll_interval_s=0.002))


def now():
    return datetime.now(UTC)


class Home:
    """Meters on one bus, each with SML behind TLS, and the gateway's end of the line."""

    def __init__(self, names=NAMES, status=0):
        self.gateway = drawn_identity("ESTK0000000001", "test", START, END)
        self.identities = {name: drawn_identity(name, "test", START, END) for name in names}
        self.meters = {
            name: SmlMeter(name, lambda _, n=n: [(ENERGY, 1000 + n, -1, WATT_HOUR), (POWER, -n, 0, WATT)])
            for n, name in enumerate(names)
        }
        for meter in self.meters.values():
            meter.status = status
        self.stations = {
            name: Lks1Meter(meter, self.identities[name], self.gateway.certificate, now)
            for name, meter in self.meters.items()
        }

    @asynccontextmanager
    async def line(self):
        """The path of the gateway's end."""
        async with serial_bus(len(self.meters) + 1) as paths, trio.open_nursery() as nursery:
            for name, path in zip(self.meters, paths[1:], strict=True):
                nursery.start_soon(self._run, self.stations[name], path)
            await trio.testing.wait_all_tasks_blocked()
            yield paths[0]
            nursery.cancel_scope.cancel()

    async def _run(self, station, path):
        async with open_serial(path, 921600) as stream:
            await station.serve(stream)

    def context(self, name):
        return lmn_context_from_der(
            self.gateway.certificate, self.gateway.private_key, self.identities[name].certificate
        )

    def keys(self, name):
        return {
            "certificate": self.gateway.certificate.hex(),
            "private_key": self.gateway.private_key.hex(),
            "meter_certificate": self.identities[name].certificate.hex(),
        }

    @asynccontextmanager
    async def session(self, name):
        async with self.line() as path, open_serial(path, 921600) as stream:
            bus = Lks1Bus(stream)
            async with lks1_session(bus, name, self.context(name), SmlClient(b"gateway"), now, QUICK) as session:
                yield session


async def test_two_meters_on_one_bus_are_read_by_their_profiles():
    """The driver: invitation, addresses, a TLS session for each, registers by name."""
    home, got = Home(), {}
    async with home.line() as path:
        link = f"serial://{path}?baud=921600"
        profiles = [
            MeterProfile(device=name, protocol="lks1", link=link, keys=home.keys(name), registers=(str(ENERGY),))
            for name in NAMES
        ]
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:

                async def deliver(readings):
                    for reading in readings:
                        got[reading.device, reading.obis] = reading.value
                    if len(got) == 2:
                        nursery.cancel_scope.cancel()

                await run_meters(profiles, deliver, Periodic(2.0), rng=random.Random(1), on_event=lambda _: None)
    assert got == {(NAMES[0], ENERGY): 1000, (NAMES[1], ENERGY): 1001}
    gc.collect()
    assert not _LMN_TABLES  # each link opened anew would leave its table behind


async def test_certificates_and_key_reach_the_meter_through_the_session():
    """REQ.SML.CLI.UpdateMtrCertAndKey.10, REQ.SML.CLI.UpdateSmgwCert.10; what is none is refused."""
    home = Home()
    following = drawn_identity(NAMES[0], "next", START, END)
    gateway = drawn_identity("ESTK0000000001", "next", START, END).certificate
    async with home.session(NAMES[0]) as session:
        for none in (b"\x30\x82next" + bytes(600), following.private_key + home.gateway.certificate):
            with pytest.raises(RemoteProtocolError, match="meter_refused"):
                await session.renew_meter_certificate(none)
        with pytest.raises(RemoteProtocolError, match="meter_refused"):
            await session.renew_gateway_certificate(b"\x30\x82next")
        await session.renew_meter_certificate(following.to_bytes())
        await session.renew_gateway_certificate(gateway)
    meter = home.stations[NAMES[0]]
    assert (meter.identity, meter.gateway_certificate) == (following, gateway)
    assert home.meters[NAMES[1]].parameters == {}


@pytest.mark.parametrize(
    ("bits", "kinds"), [({9}, "magnetic"), ({10}, "mechanical"), ({9, 10}, "magnetic and mechanical")]
)
async def test_manipulation_is_told_and_reset_in_the_same_session(bits, kinds):
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
    assert [(r.value, r.status) for r in second] == [(1000, 1 << 2)]
    paths = set(home.meters[NAMES[0]].parameters)
    assert (object_path(1, MAGNETIC_TAMPER, 2) in paths) == (9 in bits)
    assert len(paths) == len(bits)


async def test_the_bits_of_another_kind_of_meter_reset_nothing():
    home = Home(NAMES[:1], 1 << 3 | 1 << 9 | 1 << 10)  # wired gas
    async with home.session(NAMES[0]) as session:
        assert all(isinstance(item, Reading) for item in await session.read())
    assert home.meters[NAMES[0]].parameters == {}


async def test_a_meter_that_refuses_is_an_error_and_one_that_is_absent_too():
    home = Home(NAMES[:1])
    home.meters[NAMES[0]].accepts = lambda _path, _tree: False
    async with home.session(NAMES[0]) as session:
        with pytest.raises(RemoteProtocolError, match="meter_refused"):
            await session.renew_gateway_certificate(b"\x30\x82")
    async with home.line() as path, open_serial(path, 921600) as stream:
        with pytest.raises(RemoteProtocolError, match="lmn_absent"):
            await Lks1Bus(stream).participant("1STK0000000099")


async def test_a_profile_without_its_certificates_is_said():
    for keys in ({}, {"certificate": "30", "private_key": "30", "meter_certificate": "30"}):
        profile = MeterProfile(device=NAMES[0], protocol="lks1", link="tcp://127.0.0.1:1", keys=keys)
        ours, _ = trio.testing.memory_stream_pair()
        with pytest.raises(LocalProtocolError, match="meter_certificate"):
            await DRIVERS["lks1"].ask(ours, profile, lambda: 0.0)
