"""TLS handshakes of the gateway's own contexts in memory, octet by octet (BSI TR-03109-1, details, chapter 13)."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from trio import StapledStream
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_pair

from coordinator.gwa.ca import CertificateAuthority
from node.lmn.hdlc.certificate import make_certificate
from node.lmn.hdlc.tls import lmn_context
from node.security.home_certificate import HanKey, trust
from protocol.link.pinned_tls import open_pinned
from protocol.link.tls import client_context
from protocol.pki.han import HanRole
from tests.unit.socks_tls_pair import GATEWAY, SYSTEM, credentials

START = datetime(2026, 1, 1, tzinfo=UTC)
SERVER_NAME, SUPPORTED_GROUPS, ENCRYPT_THEN_MAC, EXTENDED_MASTER_SECRET = 0, 10, 22, 23
GROUPS = {ec.BrainpoolP256R1: 26, ec.BrainpoolP384R1: 27, ec.SECP256R1: 23}  # RFC 8422, RFC 7027
ALERT, FATAL = 21, 2
VERSIONS = [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")]
Pem = tuple[bytes, bytes]


class End:
    """One side of a handshake: `step` takes what came and gives what is to be sent."""

    def __init__(self, context: ssl.SSLContext, *, is_server: bool) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_side=is_server)
        self.error: ssl.SSLError | None = None

    def step(self, octets: bytes) -> bytes:
        self._in.write(octets)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.error = error
        return self._out.read()


def shaken(client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[End, End, bytes]:
    """Both ends after the handshake, and what the client has sent last."""
    ends = End(client, is_server=False), End(server, is_server=True)
    last = there = ends[0].step(b"")
    while there and not any(each.error for each in ends):
        last = there
        back = ends[1].step(there)
        there = ends[0].step(back)
    return *ends, there or last


def extensions_of(hello: bytes) -> dict[int, bytes]:
    """The extensions of a ClientHello, read by hand (RFC 5246, 7.4.1.2)."""
    assert (hello[0], hello[5]) == (22, 1)
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 1 + hello[at]
    at, found = at + 2, {}
    while at < len(hello):
        kind, size = (int.from_bytes(hello[place : place + 2], "big") for place in (at, at + 2))
        found[kind] = hello[at + 4 : at + 4 + size]
        at += 4 + size
    return found


def lmn_pem(device: str, curve: ec.EllipticCurve, seed: int) -> Pem:
    """Certificate and key of a gateway or meter."""
    key = ec.derive_private_key(seed, curve)
    made = make_certificate(device, key, 1 << 70, START, START + timedelta(days=36_500))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), private


def lmn_pair(curve: ec.EllipticCurve, *, is_pinned: bool = True) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The gateway's context and a meter's; the gateway trusts this meter's certificate, or another one only."""
    gateway, meter = lmn_pem("ESTK0000000001", curve, 7), lmn_pem("1STK0000000001", curve, 11)
    trusted = meter if is_pinned else lmn_pem("1STK0000000001", curve, 12)
    return lmn_context(*gateway, trusted[0]), lmn_context(*meter, gateway[0], server=True)


@pytest.fixture(params=list(GROUPS), ids=lambda curve: curve.name)
def clients(request: pytest.FixtureRequest, tmp_path: Path) -> list[tuple[int, ssl.SSLContext]]:
    """The group of a curve and the contexts of the gateway as client whose certificates lie on it: WAN and LMN."""
    curve = request.param
    CertificateAuthority.create(tmp_path, datetime.now(UTC), curve=curve)
    return [(GROUPS[curve], client_context(tmp_path / "root.pem")), (GROUPS[curve], lmn_pair(curve())[0])]


def test_a_client_hello_names_its_curve_and_both_extensions(clients: list[tuple[int, ssl.SSLContext]]) -> None:
    for group, context in clients:
        context.check_hostname = False
        found = extensions_of(End(context, is_server=False).step(b""))
        groups = found[SUPPORTED_GROUPS][2:]
        assert group in [int.from_bytes(groups[at : at + 2], "big") for at in range(0, len(groups), 2)]
        assert {ENCRYPT_THEN_MAC, EXTENDED_MASTER_SECRET} <= set(found)


def test_a_client_hello_does_not_tell_the_clients_time() -> None:
    context, _ = lmn_pair(ec.BrainpoolP256R1())
    times = {End(context, is_server=False).step(b"")[11:15] for _ in range(8)}
    assert len(times) == 8  # a clock would say the same second, or two


@pytest.mark.parametrize("curve", [ec.BrainpoolP256R1(), ec.BrainpoolP384R1(), ec.SECP256R1()], ids=lambda c: c.name)
def test_a_meter_and_its_gateway_agree_on_the_newest_version(curve: ec.EllipticCurve) -> None:
    client, server, _ = shaken(*lmn_pair(curve))
    assert client.error is None
    assert server.error is None
    assert client.tls.version() == ("TLSv1.3" if curve.name == "secp256r1" else "TLSv1.2")


def test_a_certificate_that_is_not_the_pinned_one_gets_a_fatal_alert() -> None:
    client, _, last = shaken(*lmn_pair(ec.BrainpoolP256R1(), is_pinned=False))
    assert isinstance(client.error, ssl.SSLCertVerificationError)
    assert (last[0], last[5]) == (ALERT, FATAL)


@pytest.mark.parametrize(("version", "agreed"), VERSIONS)
@pytest.mark.parametrize("is_server", [True, False])
def test_the_home_is_served_and_asked_in_both_versions(
    version: ssl.TLSVersion, agreed: str, *, is_server: bool
) -> None:
    (pem, own), (other_pem, other) = credentials(HanRole.GATEWAY, GATEWAY), credentials(HanRole.CLS, SYSTEM)
    ours, theirs = HanKey.from_pem(pem), HanKey.from_pem(other_pem)
    mine = ours.context(is_certificate_required=True) if is_server else ours.client_context()
    peer = theirs.client_context() if is_server else theirs.context(is_certificate_required=True)
    peer.maximum_version = version
    for context, certificate in ((mine, other), (peer, own)):
        trust(context, certificate.public_bytes(serialization.Encoding.DER))
    client, server, _ = shaken(*((peer, mine) if is_server else (mine, peer)))
    assert client.error is None
    assert server.error is None
    assert client.tls.version() == agreed
    assert x509.load_der_x509_certificate(client.tls.getpeercert(binary_form=True) or b"") == (
        own if is_server else other
    )


async def test_a_system_at_home_is_asked_by_the_name_that_is_given() -> None:
    ours, theirs = memory_stream_pair()
    context = HanKey.from_pem(credentials(HanRole.GATEWAY, GATEWAY)[0]).client_context()

    async def connected(_host: str, _port: int) -> StapledStream[MemorySendStream, MemoryReceiveStream]:
        return ours

    async def ask() -> None:
        limits = {"connect_s": 600.0, "close_s": 0.1}
        async with open_pinned("192.0.2.1", 443, context, "", **limits, server_name="pump.home", connect=connected):
            raise AssertionError("nobody has answered")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        hello = bytes(await theirs.receive_some())
        nursery.cancel_scope.cancel()
    assert extensions_of(hello)[SERVER_NAME] == b"\0\x0c\0\0\x09pump.home"
