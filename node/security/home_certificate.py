"""
The gateway's own TLS key and certificate for the home (CT_Selfsigned, chapter 4 of the detailed specification).

On P-256, because browsers know no brainpool curve.  The key is made once, kept sealed in the node's store and loaded
from memory: Python's ssl takes keys from files only.  It stays the same as long as the store does, so a browser is
asked once whether it trusts it; its SHA-256 is what the consumer compares with the letter that came with the gateway.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, Self

import trio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from protocol.pki.han import HanRole, make_self_signed

_NAME: Final = "certificate"
_LIFETIME: Final = timedelta(days=3652)
_making = trio.Lock()  # consumer's interface and CLS proxy want it at once
_NO_CHECK_TIME: Final = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: section 4.2, the profile says who counts, not the clock


class Secrets(Protocol):
    """See node.storage.repositories.han.HanSecretRepository."""

    def secret(self, gateway: str, name: str) -> bytes | None: ...  # noqa: D102
    async def keep(self, gateway: str, name: str, secret: bytes) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class HanKey:
    """Key and certificate."""

    certificate: x509.Certificate
    pem: bytes

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """Key and certificate in one PEM."""
        return cls(x509.load_pem_x509_certificate(pem), pem)

    def context(self, *, is_certificate_required: bool = False) -> ssl.SSLContext:
        """
        For a server that asks for a client certificate, and goes on without one unless it is required.

        Which certificates are taken at all is said by `trust`.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384")
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.verify_mode = ssl.CERT_REQUIRED if is_certificate_required else ssl.CERT_OPTIONAL
        self._load(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """For a client of a system at home (TA.TLS.OpenHanSessionAsClient); `trust` says whose."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False  # the profile names the certificate itself
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
        file = os.memfd_create("han")
        try:
            with os.fdopen(file, "wb", closefd=False) as memory:
                memory.write(self.pem)
            context.load_cert_chain(f"/proc/self/fd/{file}")
        finally:
            os.close(file)


def trust(context: ssl.SSLContext, certificate: bytes) -> None:
    """
    Let peers with this certificate (DER) through the handshake; who they are is decided by its fingerprint, later.

    There is no way back: a certificate that counts no more comes as far as the log-in.
    """
    context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(certificate))


async def han_key(
    identity: str, secrets: Secrets, random: Callable[[int], bytes],
    ephemeral_key: Callable[[ec.EllipticCurve], ec.EllipticCurvePrivateKey], now_s: float,
) -> HanKey:  # fmt: skip
    """The gateway's, made the first time; durable before it is used.  Raises StoreError, SealError."""
    async with _making:
        pem = secrets.secret(identity, _NAME)
        if pem is None:
            pem = _make(identity, random, ephemeral_key(ec.SECP256R1()), datetime.fromtimestamp(now_s, UTC))
            await secrets.keep(identity, _NAME, pem)
    return HanKey.from_pem(pem)


def _make(identity: str, random: Callable[[int], bytes], key: ec.EllipticCurvePrivateKey, now: datetime) -> bytes:
    serial = int.from_bytes(random(16), "big") >> 1 | 1 << 120
    before = now - timedelta(days=1)  # a browser's clock may be behind
    certificate = make_self_signed(
        HanRole.GATEWAY, identity, key, serial=serial, not_before=before, not_after=before + _LIFETIME
    )
    private = key.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private + certificate.public_bytes(Encoding.PEM)
