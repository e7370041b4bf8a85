"""The wired LMN over pseudo-terminals: addresses, pairing, TLS inside HDLC, certificates (BSI 3 and 8)."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from loadtest.meters.lmn_station import LmnMeter
from loadtest.meters.serial_bus import serial_bus
from node.lmn.hdlc.certificate import deviations, make_certificate
from node.lmn.hdlc.frame import Address, Frame, Kind
from node.lmn.hdlc.link import HdlcBus
from node.lmn.hdlc.lmn import AddressTable, Participant, Selector, discover, lmn_link, station
from node.lmn.hdlc.primary import Timing
from node.lmn.hdlc.tls import LmnTlsStream, lmn_context, open_lks1, split_records
from node.lmn.lks1.sym import Credentials, PairingGateway, PairingMeter, Type, unseal
from node.lmn.serial_link import open_serial
from protocol.errors import LocalProtocolError, RemoteProtocolError

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2033, 1, 1, tzinfo=UTC)
GATEWAY = "ESTK0000000001"
METERS = ["1STK0000000001", "1STK0000000002", "7STK0000000003"]
MAIN_KEY = bytes(range(16))
TIMING = Timing(poll_interval_s=0.002)


class Identity:
    def __init__(self, device: str, curve: ec.EllipticCurve | None = None) -> None:
        self.key = ec.generate_private_key(curve or ec.BrainpoolP256R1())
        self.certificate = make_certificate(device, self.key, 0x1122334455667788, START, END)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)
        self.key_pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        self.der = self.certificate.public_bytes(serialization.Encoding.DER)
        self.key_der = self.key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )


def echo_server(
    own: Identity, peer: Identity, outcome: list[Any] | None = None
) -> Callable[[trio.abc.Stream], Awaitable[None]]:
    async def serve(stream: trio.abc.Stream) -> None:
        tls = LmnTlsStream(stream, lmn_context(own.pem, own.key_pem, peer.pem, server=True), server=True)
        try:
            await tls.handshake()
            while data := await tls.receive_some():
                await tls.send_all(data[::-1])
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if outcome is not None:
                outcome.append(error)

    return serve


async def silent(stream: trio.abc.Stream) -> None:
    await stream.receive_some()


def refuse(message: bytes) -> bytes:
    raise RemoteProtocolError("sym_authentication", "not paired this way")


@asynccontextmanager
async def lmn(meters: Sequence[LmnMeter]) -> AsyncIterator[HdlcBus]:
    """A bus with a gateway end and these meters running on it."""
    async with (
        serial_bus(len(meters) + 1) as paths,
        open_serial(paths[0], 921600) as ours,
        trio.open_nursery() as nursery,
    ):
        for meter, path in zip(meters, paths[1:], strict=True):
            nursery.start_soon(run, meter, path)
        await trio.testing.wait_all_tasks_blocked()
        yield HdlcBus(ours)
        nursery.cancel_scope.cancel()


async def run(meter: LmnMeter, path: str) -> None:
    async with open_serial(path, 921600) as line:
        await meter.run(line)


async def test_participants_get_addresses_by_their_identification() -> None:
    rng = random.Random(7)
    meters = [LmnMeter(name, silent, refuse, rng.randrange) for name in METERS]
    table = AddressTable(slot_count=16, slot_ms=20)
    async with lmn(meters) as bus:
        found = await discover(bus, table)
        assert {participant.sensor_id for participant in found} == set(METERS)
        assert sorted(p.address for p in table.participants.values()) == [3, 4, 5]
        for meter in meters:
            assert meter.participant.me.address == table.participants[meter.participant.me.sensor_id].address


async def test_two_newcomers_in_one_slot_both_come_through_in_the_end() -> None:
    draws = iter([3, 3, 1, 2])
    meters = [LmnMeter(name, silent, refuse, lambda n: next(draws) % n) for name in METERS[:2]]
    table = AddressTable(slot_count=8, slot_ms=20)
    async with lmn(meters) as bus:
        await discover(bus, table)
        await discover(bus, table)
    assert set(table.participants) == set(METERS[:2])


@pytest.mark.parametrize("curve", [ec.BrainpoolP256R1(), ec.SECP256R1()], ids=lambda curve: curve.name)
async def test_pairing_then_mutual_tls_with_what_it_brought(curve: ec.EllipticCurve) -> None:
    gateway, meter_identity = Identity(GATEWAY, curve), Identity(METERS[0], curve)
    pairing = PairingMeter(MAIN_KEY, METERS[0].encode(), b"capabilities")
    meter = LmnMeter(METERS[0], echo_server(meter_identity, gateway), pairing.answer, random.Random(1).randrange)
    table = AddressTable(slot_count=8, slot_ms=20)
    async with lmn([meter]) as bus:
        (participant,) = await discover(bus, table)
        ours = PairingGateway(MAIN_KEY, METERS[0].encode(), counter=1)
        link = lmn_link(bus, participant, Selector.LKS1_PSK, TIMING)
        await link.connect()
        assert ours.receive(await link.exchange(ours.hello())) == b"capabilities"
        brought = Credentials(gateway.der, meter_identity.der, meter_identity.key_der)
        ours.receive(await link.exchange(ours.credentials(brought)))
        await link.disconnect()
        assert pairing.credentials == brought

        context = lmn_context(gateway.pem, gateway.key_pem, meter_identity.pem)
        stream = await open_lks1(lmn_link(bus, participant, Selector.LKS1, TIMING), context, timeout_s=10)
        question = bytes(random.Random(2).randbytes(10_000))
        answer = b""
        with trio.fail_after(120):
            await stream.send_all(question)
            while len(answer) < len(question):
                answer += await stream.receive_some()
            await stream.aclose()
        assert len(answer) == len(question)
        assert sorted(answer) == sorted(question)

        link = lmn_link(bus, participant, Selector.LKS1_PSK, TIMING)
        await link.connect()
        ours.receive(await link.exchange(ours.reset()))
        assert pairing.credentials is None


@pytest.mark.parametrize("who", ["meter", "gateway"])
async def test_a_stranger_gets_no_session(who: str) -> None:
    gateway, meter_identity, stranger = Identity(GATEWAY), Identity(METERS[0]), Identity(METERS[0])
    outcome: list[Any] = []
    shown = stranger if who == "meter" else meter_identity
    meter = LmnMeter(METERS[0], echo_server(shown, gateway, outcome), refuse, random.Random(1).randrange)
    table = AddressTable(slot_count=8, slot_ms=20)
    async with lmn([meter]) as bus:
        (participant,) = await discover(bus, table)
        own = gateway if who == "meter" else stranger
        context = lmn_context(own.pem, own.key_pem, meter_identity.pem)
        link = lmn_link(bus, participant, Selector.LKS1, TIMING)
        with pytest.raises((RemoteProtocolError, trio.BrokenResourceError)):
            await talk(link, context)


async def talk(link: Any, context: Any) -> None:
    stream = await open_lks1(link, context, timeout_s=5)
    await stream.send_all(b"hello")
    assert await stream.receive_some() == b"olleh"


def test_no_record_is_longer_than_the_standard_allows() -> None:
    record = b"\x17\x03\x03" + (2029).to_bytes(2, "big") + bytes(2029)
    assert list(split_records(record + record)) == [record, record]
    with pytest.raises(LocalProtocolError):
        list(split_records(b"\x17\x03\x03" + (2030).to_bytes(2, "big") + bytes(2030)))


def test_pairing_messages_do_not_pass_for_others() -> None:
    gateway, meter = PairingGateway(MAIN_KEY, b"1STK0000000001", 5), PairingMeter(MAIN_KEY, b"1STK0000000001")
    question = gateway.hello()
    answer = meter.answer(question)
    with pytest.raises(RemoteProtocolError, match="sym_counter"):
        meter.answer(question)
    with pytest.raises(RemoteProtocolError, match="sym_authentication"):
        PairingMeter(MAIN_KEY, b"1STK0000000002").answer(question)
    with pytest.raises(RemoteProtocolError, match="sym_authentication"):
        PairingMeter(bytes(16), b"1STK0000000001").answer(question)
    with pytest.raises(RemoteProtocolError, match="sym_authentication"):
        gateway.receive(question)
    for at in range(6, len(answer)):
        with pytest.raises(RemoteProtocolError):
            unseal(
                answer[:at] + bytes([answer[at] ^ 1]) + answer[at + 1 :],
                MAIN_KEY,
                b"1STK0000000001",
                from_gateway=False,
            )
    assert gateway.receive(answer) == b""
    with pytest.raises(LocalProtocolError):
        gateway.receive(answer)
    assert unseal(gateway.reset(), MAIN_KEY, b"1STK0000000001", from_gateway=True).type is Type.RESET


def test_a_paired_meter_takes_no_second_credentials_before_a_reset() -> None:
    gateway, meter = PairingGateway(MAIN_KEY, b"1STK0000000001", 1), PairingMeter(MAIN_KEY, b"1STK0000000001")
    gateway.receive(meter.answer(gateway.credentials(Credentials(b"a", b"b", b"c"))))
    with pytest.raises(RemoteProtocolError, match="sym_refused"):
        gateway.receive(meter.answer(gateway.credentials(Credentials(b"d", b"e", b"f"))))
    gateway.receive(meter.answer(gateway.reset()))
    gateway.receive(meter.answer(gateway.credentials(Credentials(b"d", b"e", b"f"))))


def test_certificates_keep_the_profile_and_others_are_told_apart() -> None:
    identity = Identity(GATEWAY)
    assert deviations(identity.certificate) == []
    assert len(identity.der) <= 600
    assert identity.certificate.subject.rfc4514_string() == "CN=estk0000000001.sm"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    other = x509.CertificateBuilder(name, name, identity.key.public_key(), 5, START, END)
    other = other.add_extension(x509.IssuerAlternativeName([x509.DNSName("x")]), critical=False)
    assert set(deviations(other.sign(identity.key, hashes.SHA256()))) == {
        "serial", "common name", "extension not allowed", "key usage", "basic constraints",
    }  # fmt: skip
    with pytest.raises(LocalProtocolError):
        make_certificate("XSTK0000000001", identity.key, 1 << 63, START, END)


def test_a_full_bus_and_a_malformed_entry_are_the_remote_kind() -> None:
    table = AddressTable(slot_count=2)
    ends = station(1, Selector.INVITATION), station(2, Selector.INVITATION)
    for name in METERS[:2]:
        entry = Participant(name, name).to_bytes()
        answered = table.answer(Frame(*ends, Kind.UNNUMBERED_INFORMATION, True, entry))
        assert answered is not None
        assert answered.sensor_id == name
    with pytest.raises(RemoteProtocolError, match="lmn_bus_full"):
        table.answer(Frame(*ends, Kind.UNNUMBERED_INFORMATION, True, Participant(METERS[2], METERS[2]).to_bytes()))
    with pytest.raises(RemoteProtocolError, match="lmn_participant"):
        table.answer(Frame(*ends, Kind.UNNUMBERED_INFORMATION, True, bytes(32)))
    assert ends[0] == Address(1, 1, 2)
