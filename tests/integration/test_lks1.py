"""Meters of the wired LMN end to end: names to addresses, TLS in HDLC, SML in TLS, by driver and by hand."""

import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from cryptography import x509
from pydantic import ValidationError

from loadtest.meters.lks1 import Lks1Meter, drawn_identity
from loadtest.meters.serial_bus import serial_bus
from loadtest.meters.sml import SmlMeter
from node.config import MeterReadingConfig
from node.configured import renewal_policy
from node.lmn.hdlc.certificate import deviations
from node.lmn.hdlc.primary import Timing
from node.lmn.hdlc.tls import lmn_context_from_der
from node.lmn.lks1.adapter import Lks1Poll
from node.lmn.lks1.session import Lks1Bus, Lks1Session, Lks1Settings, lks1_session
from node.lmn.metrics import LMN_CERTIFICATE_END, LMN_CERTIFICATES_RENEWED
from node.lmn.pairing import Pairing, PairingStore, RenewalPolicy, lifetime
from node.lmn.profiles import MeterProfile
from node.lmn.runtime import Periodic, run_meters
from node.lmn.serial_link import open_serial
from node.lmn.session import LmnStores
from node.lmn.sml.client import MAGNETIC_TAMPER, SmlClient, object_path
from node.metering.interval import Arrival
from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from node.storage.repositories.pairings import PairingRepository
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading
from protocol.metering.units import WATT, WATT_HOUR

NAMES = ["1STK0000000001", "1STK0000000002"]
ENERGY, POWER = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 16, 7, 0, 255)
START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2033, 1, 1, tzinfo=UTC)
QUICK = Lks1Settings(20, 20, Timing(poll_interval_s=0.002))


def now() -> datetime:
    return datetime.now(UTC)


class Home:
    """Meters on one bus, each with SML behind TLS, and the gateway's end of the line."""

    def __init__(
        self, names: Sequence[str] = NAMES, status: int = 0, life: tuple[datetime, datetime] = (START, END)
    ) -> None:
        self.gateway = drawn_identity("ESTK0000000001", "test", *life)
        self.identities = {name: drawn_identity(name, "test", *life) for name in names}
        self.meters = {
            name: SmlMeter(name, partial(lambda n, _: [(ENERGY, 1000 + n, -1, WATT_HOUR), (POWER, -n, 0, WATT)], n))
            for n, name in enumerate(names)
        }
        for meter in self.meters.values():
            meter.status = status
        self.stations = {
            name: Lks1Meter(meter, self.identities[name], self.gateway.certificate, now)
            for name, meter in self.meters.items()
        }

    @asynccontextmanager
    async def line(self) -> AsyncIterator[str]:
        """The path of the gateway's end."""
        async with serial_bus(len(self.meters) + 1) as paths, trio.open_nursery() as nursery:
            for name, path in zip(self.meters, paths[1:], strict=True):
                nursery.start_soon(self._run, self.stations[name], path)
            await trio.testing.wait_all_tasks_blocked()
            yield paths[0]
            nursery.cancel_scope.cancel()

    async def _run(self, station: Lks1Meter, path: str) -> None:
        async with open_serial(path, 921600) as stream:
            await station.serve(stream)

    def context(self, name: str) -> ssl.SSLContext:
        return lmn_context_from_der(
            self.gateway.certificate, self.gateway.private_key, self.identities[name].certificate
        )

    def keys(self, name: str) -> dict[str, Any]:
        return {
            "certificate": self.gateway.certificate.hex(),
            "private_key": self.gateway.private_key.hex(),
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
        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:

                async def deliver(readings: list[Reading], _arrival: Arrival) -> None:
                    for reading in readings:
                        got[reading.device, reading.obis] = reading.value
                    if len(got) == 2:
                        nursery.cancel_scope.cancel()

                await run_meters(profiles, deliver, Periodic(2.0), rng=random.Random(1), on_event=lambda _: None)
    assert got == {(NAMES[0], ENERGY): 1000, (NAMES[1], ENERGY): 1001}


async def test_certificates_and_key_reach_the_meter_through_the_session() -> None:
    """REQ.SML.CLI.UpdateMtrCertAndKey.10, REQ.SML.CLI.UpdateSmgwCert.10; what is none is refused."""
    home = Home()
    following = drawn_identity(NAMES[0], "next", START, END)
    gateway = drawn_identity("ESTK0000000001", "next", START, END).certificate
    async with home.session(NAMES[0]) as session:
        turned = following.private_key + following.certificate
        for none in (b"\x30\x82next" + bytes(600), home.gateway.certificate + following.private_key, turned):
            with pytest.raises(RemoteProtocolError, match="meter_refused"):
                await session.renew_meter_certificate(none)
        with pytest.raises(RemoteProtocolError, match="meter_refused"):
            await session.renew_gateway_certificate(b"\x30\x82next")
        assert following.to_bytes() == following.certificate + following.private_key  # the requirement's footnote
        await session.renew_meter_certificate(following.to_bytes())
        await session.renew_gateway_certificate(gateway)
    meter = home.stations[NAMES[0]]
    assert (meter.identity, meter.gateway_certificate) == (following, gateway)
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


def test_a_profile_without_its_certificates_is_refused() -> None:
    refused: list[dict[str, Any]] = [{}, {"certificate": "30", "private_key": "30", "meter_certificate": "30"}]
    for keys in refused:
        profile = MeterProfile(device=NAMES[0], protocol="lks1", link="tcp://127.0.0.1:1", keys=keys)
        with pytest.raises(LocalProtocolError, match="meter_certificate"):
            Lks1Poll([profile], LmnStores())


NOW = now().replace(microsecond=0)  # TLS has the machine's clock and no other
ENDING = NOW - timedelta(days=2496), NOW + timedelta(days=61)
POLICY = RenewalPolicy()


Paired = tuple[
    Callable[..., Awaitable[list[Reading | RemoteProtocolError]]], Callable[..., None], Callable[[], Pairing]
]


@asynccontextmanager
async def paired(home: Home, path: Path, policy: RenewalPolicy = POLICY) -> AsyncIterator[Paired]:
    """Reads the first meter at a time that is given, with what the store knows; `start` is a gateway that starts."""
    store = Store(path / "node.sqlite", StorageCipher(bytes(32)))
    started: list[MeterProfile] = []
    sessions: list[Lks1Poll] = []

    def start(**keys: Any) -> None:
        profile = MeterProfile(device="gw/0", protocol="lks1", link="tcp://h:1", meter_id=NAMES[0], keys=keys or first)
        started[:] = [profile]
        sessions[:] = [Lks1Poll(started, LmnStores(pairings=PairingStore(PairingRepository(store), policy)))]

    async def read(at: datetime = NOW) -> list[Reading | RemoteProtocolError]:
        async with home.line() as line, open_serial(line, 921600) as stream:
            return list(await sessions[0].ask(stream, started[0], at.timestamp))

    first = home.keys(NAMES[0])
    start()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            yield read, start, lambda: sessions[0].pairing(started[0])
            nursery.cancel_scope.cancel()
    finally:
        store.close()


@contextmanager
def raises(reason: str, detail: str = "") -> Iterator[None]:
    """A RemoteProtocolError out of the line's and the store's nurseries."""
    with pytest.RaisesGroup(
        pytest.RaisesExc(RemoteProtocolError, match=f"{reason}.*{detail}"), allow_unwrapped=True, flatten_subgroups=True
    ):
        yield


def energies(found: list[Reading | RemoteProtocolError]) -> list[Any]:
    assert [item.reason for item in found if not isinstance(item, Reading)] == []
    return [item.value for item in found if isinstance(item, Reading) and item.obis == ENERGY]


async def test_certificates_are_renewed_before_their_end_and_outlive_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meter's first, the gateway's after it; new keys; the old ones are forgotten once the new are seen in use."""
    home = Home(NAMES[:1], life=ENDING)
    station = home.stations[NAMES[0]]
    caplog.set_level("DEBUG")
    monkeypatch.setattr("node.lmn.metrics._ENDS", {})

    def first_end() -> float:
        return next(iter(LMN_CERTIFICATE_END.collect())).samples[0].value

    def count(whose: str) -> float:
        return float(LMN_CERTIFICATES_RENEWED.labels(whose)._value.get())

    before = count("meter"), count("gateway")
    async with paired(home, tmp_path) as (read, start, pairing):
        assert energies(await read(NOW - timedelta(days=60))) == [1000]
        assert station.identity == home.identities[NAMES[0]]
        ends = [first_end()]
        for _ in range(4):
            assert energies(await read()) == [1000]
            start()
        assert energies(await read(NOW + timedelta(days=62))) == [1000]  # the first ones have ended
        kept = pairing()
        ends.append(first_end())
    assert (kept.meter, kept.own.certificate) == (station.identity.certificate, station.gateway_certificate)
    assert (kept.next_meter, kept.next_own) == (None, None)
    assert station.identity.private_key != home.identities[NAMES[0]].private_key
    assert station.gateway_certificate != home.gateway.certificate
    for each in (station.identity.certificate, station.gateway_certificate):
        assert lifetime(each)[1] == NOW + POLICY.life
        assert deviations(x509.load_der_x509_certificate(each)) == []
    assert ends == [ENDING[1].timestamp(), (NOW + POLICY.life).timestamp()]
    assert (count("meter") - before[0], count("gateway") - before[1]) == (1, 1)
    for secret in (station.identity.private_key, kept.own.private_key, home.gateway.private_key):
        assert secret.hex() not in caplog.text
        assert repr(secret) not in caplog.text + repr(kept)


@pytest.mark.parametrize("whose", ["meter", "gateway"])
@pytest.mark.parametrize("heard", [False, True])
async def test_a_crash_between_writing_down_and_the_answer_locks_nobody_out(
    tmp_path: Path, whose: str, heard: bool
) -> None:
    """The meter has the next certificate or has it not, and the gateway does not know: both are read, and it ends."""
    home = Home(NAMES[:1], life=ENDING)
    station = home.stations[NAMES[0]]
    async with paired(home, tmp_path) as (read, start, pairing):
        rounds = 1 if whose == "meter" else 3
        for _ in range(rounds - 1):
            await read()
        before = station.identity, station.gateway_certificate
        await read()
        if not heard:
            station.identity, station.gateway_certificate = before
        start()
        for _ in range(4):
            assert energies(await read()) == [1000]
        kept = pairing()
    assert (kept.next_meter, kept.next_own) == (None, None)
    assert (kept.meter, kept.own.certificate) == (station.identity.certificate, station.gateway_certificate)
    assert kept.meter != home.identities[NAMES[0]].certificate


async def test_past_its_end_no_certificate_is_believed_and_the_meter_is_not_asked(tmp_path: Path) -> None:
    home = Home(NAMES[:1])
    asked: list[int] = []
    home.meters[NAMES[0]].registers = lambda _: asked.append(1) or []
    async with paired(home, tmp_path) as (read, start, _):
        for at in (END, START - timedelta(seconds=1)):
            with raises("certificate_expired", r"holds from 2026-01-01 to 2033-01-01: .* pair anew"):
                await read(at)
        other = drawn_identity(NAMES[0], "stranger", START, END)
        start(**{**home.keys(NAMES[0]), "meter_certificate": other.certificate.hex()})
        with raises("lmn_tls"):
            await read()
    assert asked == []


async def test_a_meter_that_refuses_is_read_told_of_and_left_in_peace_for_a_day(tmp_path: Path) -> None:
    home = Home(NAMES[:1], life=ENDING)
    home.meters[NAMES[0]].accepts = lambda _path, _tree: False
    home.stations[NAMES[0]] = Lks1Meter(home.meters[NAMES[0]], home.identities[NAMES[0]], home.gateway.certificate, now)
    async with paired(home, tmp_path) as (read, _, pairing):
        found = [await read(NOW + timedelta(hours=hours)) for hours in (0, 1, 25)]
        pending = pairing().next_meter
    assert [[item.reason for item in each if not isinstance(item, Reading)] for each in found] == [
        ["certificate_not_renewed"], [], ["certificate_not_renewed"]
    ]  # fmt: skip
    assert all(any(isinstance(item, Reading) and item.obis == ENERGY for item in each) for each in found)
    assert "meter_refused" in str(found[0][-1])
    assert pending is not None  # the same is offered again, no second key


async def test_a_date_renews_what_was_made_before_it_once(tmp_path: Path) -> None:
    """After a loss of keys: nothing is near its end."""
    home, day = Home(NAMES[:1]), NOW
    async with paired(home, tmp_path, RenewalPolicy(issued_after=day)) as (read, _, pairing):
        await read(day - timedelta(days=1))
        assert pairing().next_meter is None  # the date is still to come
        for _ in range(4):
            await read(day)
        renewed = pairing()
        await read(day + timedelta(days=1))
        assert pairing() == renewed
    assert renewed.meter != home.identities[NAMES[0]].certificate
    assert renewed.own != home.gateway


async def test_a_pair_that_is_configured_anew_wins_over_what_was_renewed(tmp_path: Path) -> None:
    home = Home(NAMES[:1], life=ENDING)
    async with paired(home, tmp_path) as (read, start, _):
        for _ in range(4):
            await read()
        station = home.stations[NAMES[0]]
        station.identity = home.identities[NAMES[0]] = drawn_identity(NAMES[0], "anew", *ENDING)
        station.gateway_certificate = home.gateway.certificate
        with raises("lmn_tls"):
            await read()
        start(**home.keys(NAMES[0]))
        assert energies(await read(NOW - timedelta(days=60))) == [1000]


def test_a_policy_that_would_renew_for_ever_is_refused() -> None:
    with pytest.raises(ValidationError, match="at most half"):
        MeterReadingConfig(certificate_days=100, renew_certificates_days=51)
    policy = renewal_policy(MeterReadingConfig(certificates_issued_after=date(2026, 11, 26)))
    assert policy == RenewalPolicy(issued_after=datetime(2026, 11, 26, tzinfo=UTC))
