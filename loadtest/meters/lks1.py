"""
A simulated meter of the wired LMN (LKS1): found by its name, SML behind TLS in HDLC.

What a gateway writes to the addresses of key and certificates (TR-03109-1 detailed specification 9.3.1 and 9.3.2)
counts from the next session on; what is no certificate, or a key that does not fit, is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from random import Random

import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from loadtest.meters.lmn_station import LmnMeter
from loadtest.meters.sml import SmlMeter
from loadtest.meters.sml_server import serve_stream
from node.lmn.hdlc.certificate import Identity, make_certificate
from node.lmn.hdlc.tls import LmnTlsStream, lmn_context_from_der
from node.lmn.sml.client import CLASS_DATA, GATEWAY_CERTIFICATE, METER_KEY_AND_CERTIFICATE, object_path
from node.lmn.sml.readings import VALUE_ATTRIBUTE
from node.lmn.sml.values import Tree
from protocol.errors import RemoteProtocolError

_KEY_PATH = object_path(CLASS_DATA, METER_KEY_AND_CERTIFICATE, VALUE_ATTRIBUTE)
_GATEWAY_PATH = object_path(CLASS_DATA, GATEWAY_CERTIFICATE, VALUE_ATTRIBUTE)
_SCALAR_SIZE = 31  # any number of so many octets is a private key on a curve of 256 bits
_SERIAL_SIZE = 8


def drawn_identity(device: str, seed: str, not_before: datetime, not_after: datetime) -> Identity:
    """The same key and certificate for the same arguments, so that a meter that is started again is the same meter."""
    drawn = hashlib.sha512(f"stromkreis lmn identity {seed} {device}".encode()).digest()
    key = ec.derive_private_key(int.from_bytes(drawn[:_SCALAR_SIZE], "big"), ec.BrainpoolP256R1())
    serial = int.from_bytes(drawn[-_SERIAL_SIZE:], "big") >> 1 | 1 << (8 * _SERIAL_SIZE - 2)
    certificate = make_certificate(device, key, serial, not_before, not_after, deterministic=True)
    return Identity.of(certificate, key)


class Lks1Meter:
    """
    One meter: what `sml` says, to whoever shows `gateway_certificate` (DER).

    `identity` and `gateway_certificate` are those of the next session.
    """

    def __init__(
        self, sml: SmlMeter, identity: Identity, gateway_certificate: bytes, now: Callable[[], datetime]
    ) -> None:
        self.sml = sml
        self.identity = identity
        self.gateway_certificate = gateway_certificate
        self._now = now
        self._accepts = sml.accepts
        sml.accepts = self._accepts_setting

    async def serve(self, line: trio.abc.Stream) -> None:
        """Live on a bus until it closes."""
        draw = Random(self.sml.device).randrange
        await LmnMeter(self.sml.device, self._session, _refuse, draw).run(line)

    async def _session(self, stream: trio.abc.Stream) -> None:
        own = self.identity
        context = lmn_context_from_der(own.certificate, own.private_key, self.gateway_certificate, server=True)
        tls = LmnTlsStream(stream, context, server=True)
        try:
            await tls.handshake()
            await serve_stream([self.sml], self._now, tls)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    def _accepts_setting(self, path: tuple[bytes, ...], tree: Tree) -> bool:
        if not self._accepts(path, tree):
            return False
        content = tree.value if isinstance(tree.value, bytes) else b""
        try:
            if path == _KEY_PATH:
                self.identity = Identity.from_bytes(content)
            elif path == _GATEWAY_PATH:
                x509.load_der_x509_certificate(content)
                self.gateway_certificate = content
        except ValueError:
            return False
        return True


def _refuse(_message: bytes) -> bytes:
    raise RemoteProtocolError("sym_authentication", "paired already")
