"""A SOCKS-TLS client and server in memory, and what passes between them."""

from __future__ import annotations

import ssl
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from protocol.pki.han import HanRole, make_self_signed
from protocol.socks_tls import Destination, Event, Reply, SocksTlsClient, SocksTlsServer

GATEWAY, SYSTEM = "estk0100000001", "1abc0012345678"
EMP = Destination("emp.example", 443)
Shown = tuple[bytes, x509.Certificate]


@cache
def credentials(role: HanRole, name: str) -> Shown:
    """Key and certificate in PEM, out of date on purpose: for self-signed ones that does not count (4.2)."""
    key = ec.generate_private_key(ec.SECP256R1())
    begin = datetime(2020, 1, 1, tzinfo=UTC)
    made = make_self_signed(role, name, key, serial=1 << 100, not_before=begin, not_after=begin + timedelta(days=9))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + made.public_bytes(serialization.Encoding.PEM), made


def load(context: ssl.SSLContext, shown: Shown) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "key.pem")
        file.write_bytes(shown[0])
        context.load_cert_chain(file)


def server_side(trusted: Shown | None = None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load(context, credentials(HanRole.GATEWAY, GATEWAY))
    context.verify_mode, context.num_tickets, context.maximum_version = ssl.CERT_REQUIRED, 0, version
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(0x200000)
    certificate = (trusted or credentials(HanRole.CLS, SYSTEM))[1]
    context.load_verify_locations(cadata=certificate.public_bytes(serialization.Encoding.PEM).decode())
    return context


def client_side(shown: Shown | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    load(context, shown or credentials(HanRole.CLS, SYSTEM))
    return context


@dataclass
class Pair:
    """`go` carries octets until nobody has more to say; `sent` has what each side sent."""

    server: SocksTlsServer
    client: SocksTlsClient
    chunk: int = 1 << 20
    at_server: list[Event] = field(default_factory=list)
    at_client: list[Event] = field(default_factory=list)
    sent: dict[str, bytearray] = field(default_factory=lambda: {"server": bytearray(), "client": bytearray()})

    @classmethod
    def made(cls, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, chunk: int = 1 << 20) -> Pair:
        return cls(SocksTlsServer(server_side(version=version)), SocksTlsClient(client_side()), chunk)

    def go(self) -> None:
        while True:
            there, back = self.client.take(), self.server.take()
            if not there and not back:
                return
            self.sent["client"] += there
            self.sent["server"] += back
            for at in range(0, len(there), self.chunk):
                self.at_server += self.server.receive(there[at : at + self.chunk])
            for at in range(0, len(back), self.chunk):
                self.at_client += self.client.receive(back[at : at + self.chunk])

    def connected(self) -> Pair:
        self.go()
        self.client.connect(EMP)
        self.go()
        self.server.reply(Reply.SUCCEEDED)
        self.go()
        self.forget()
        return self

    def forget(self) -> None:
        for each in (self.at_server, self.at_client, self.sent["server"], self.sent["client"]):
            each.clear()


def split(octets: bytes) -> list[tuple[int, int, bytes]]:
    """Frames as version, state and data, read independently of the code under test."""
    found = []
    while octets:
        size = int.from_bytes(octets[2:4], "big")
        found.append((octets[0], octets[1], octets[4 : 4 + size]))
        octets = octets[4 + size :]
    return found
