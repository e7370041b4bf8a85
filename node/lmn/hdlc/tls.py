"""
TLS inside HDLC (LKS1): an HDLC connection as a stream, and TLS over it with the gateway as client.

BSI TR-03109-1 Detailspezifikation, 8.1 and 8.4: mutual TLS, the meter is the server, no record over 2034 bytes, one
record a unit here, so that a record is never spread over frames.  Python's ssl cannot ask for a smaller record, but
it never makes one longer than what is written to it at once plus its overhead, and handshake messages are records of
their own; so writes are cut, and the stream below refuses what would still be too long rather than sending it.

Trust is a pinned certificate: the peer's self-signed certificate is the only root (chapter 3; see `certificate`).
OpenSSL reaches the private key through an anonymous memory file, since ssl only reads files: it never is on a disk.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from typing import Final

import trio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from node.lmn.hdlc.link import HdlcLink
from protocol.errors import LocalProtocolError, RemoteProtocolError

RECORD_SIZE_MAX: Final = 2034
_HEADER_SIZE: Final = 5
_PLAIN_SIZE_MAX: Final = 1900  # leaves room for header, explicit nonce, padding and the longest tag
CIPHERS_TLS_1_2: Final = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-SHA256",
        "ECDHE-ECDSA-AES256-SHA384",
    )
)


def lmn_context(certificate_pem: bytes, key_pem: bytes, peer_pem: bytes, *, server: bool = False) -> ssl.SSLContext:
    """
    A context that shows our certificate and accepts the peer's only: one, or the old and the next one (PEM).

    TLS 1.2 and, where both can, 1.3, with the ECDHE-ECDSA suites; with a key on a Brainpool curve only 1.2, because
    OpenSSL before 3.2 has no Brainpool in 1.3.  Raises ssl.SSLError for a key that does not fit.
    """
    public = x509.load_pem_x509_certificate(certificate_pem).public_key()
    curve = public.curve.name if isinstance(public, ec.EllipticCurvePublicKey) else ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS_TLS_1_2)
    if curve.startswith("brainpool"):
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ecdh_curve(curve)
    context.check_hostname = False  # the certificate itself is pinned, which is more than a name
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=peer_pem.decode("ascii"))
    descriptor = os.memfd_create("lmn")
    try:
        os.write(descriptor, key_pem + certificate_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


def lmn_context_from_der(certificate: bytes, key: bytes, *peers: bytes, server: bool = False) -> ssl.SSLContext:
    """As `lmn_context`, of DER, with each certificate that the peer may show.  Raises ValueError for what is none."""
    pem = serialization.Encoding.PEM
    private = serialization.load_der_private_key(key, None)
    form = serialization.PrivateFormat.PKCS8
    own, *others = (x509.load_der_x509_certificate(each).public_bytes(pem) for each in (certificate, *peers))
    secret = private.private_bytes(pem, form, serialization.NoEncryption())
    return lmn_context(own, secret, b"".join(others), server=server)


def split_records(data: bytes) -> Iterator[bytes]:
    """Whole TLS records.  Raises LocalProtocolError where one is too long or cut off."""
    at = 0
    while at < len(data):
        size = _HEADER_SIZE + int.from_bytes(data[at + 3 : at + 5], "big")
        if size > RECORD_SIZE_MAX or at + size > len(data):
            raise LocalProtocolError(f"a TLS record of more than {RECORD_SIZE_MAX} bytes")
        yield data[at : at + size]
        at += size


class HdlcStream(trio.abc.Stream):
    """
    The units of an HDLC connection as a byte stream that carries TLS records.

    Errors of the link come as trio.BrokenResourceError, with the RemoteProtocolError as cause.
    """

    def __init__(self, link: HdlcLink) -> None:
        self._link = link
        self._rest = b""
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """One unit a record."""
        self._must_be_open()
        try:
            for record in split_records(bytes(data)):
                await self._link.send(record)
        except RemoteProtocolError as error:
            raise trio.BrokenResourceError from error

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Polls the meter until it has something to say."""
        self._must_be_open()
        if not self._rest:
            try:
                self._rest = await self._link.receive()
            except RemoteProtocolError as error:
                raise trio.BrokenResourceError from error
            if len(self._rest) > RECORD_SIZE_MAX:
                raise trio.BrokenResourceError("a unit longer than a record may be")
        size = len(self._rest) if max_bytes is None else max_bytes
        part, self._rest = self._rest[:size], self._rest[size:]
        return part

    async def wait_send_all_might_not_block(self) -> None:
        """Always at once: sending waits for the turn by itself."""
        self._must_be_open()
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Disconnect the HDLC connection."""
        if not self._closed:
            self._closed = True
            await self._link.disconnect()
        await trio.lowlevel.checkpoint()

    def _must_be_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError


class LmnTlsStream(trio.abc.Stream):
    """TLS over any stream that takes whole records, with writes cut so that no record is too long."""

    def __init__(self, transport: trio.abc.Stream, context: ssl.SSLContext, *, server: bool = False) -> None:
        self._tls = trio.SSLStream(transport, context, server_side=server, https_compatible=True)

    @property
    def peer_certificate(self) -> bytes:
        """What the peer has shown (DER), once the handshake is done."""
        shown: bytes = self._tls.getpeercert(binary_form=True)
        return shown

    async def handshake(self) -> None:
        """Raises trio.BrokenResourceError where the peer cannot prove to be the pinned one."""
        await self._tls.do_handshake()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """In pieces of at most one record each."""
        for start in range(0, len(data), _PLAIN_SIZE_MAX):
            await self._tls.send_all(bytes(data[start : start + _PLAIN_SIZE_MAX]))

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Decrypted bytes; b"" when the peer has closed."""
        return bytes(await self._tls.receive_some(max_bytes))

    async def wait_send_all_might_not_block(self) -> None:
        """As the stream below."""
        await self._tls.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close TLS and the stream below."""
        await self._tls.aclose()


def _why(cause: BaseException | None) -> str:
    match cause:
        case ssl.SSLCertVerificationError():
            return f"the meter shows another certificate than the one it is known by ({cause.verify_message})"
        case ssl.SSLError() if "ALERT" in (cause.reason or ""):
            return f"the meter does not take the gateway's certificate ({cause.reason})"
        case _:
            return "the TLS handshake failed"


async def open_lks1(link: HdlcLink, context: ssl.SSLContext, timeout_s: float) -> LmnTlsStream:
    """
    Connect HDLC and shake hands: a stream for SML to and from one meter.

    Raises RemoteProtocolError (`lmn_tls`, `hdlc_*`, `lmn_timeout`).
    """
    with trio.move_on_after(timeout_s) as scope:
        await link.connect()
        stream = LmnTlsStream(HdlcStream(link), context)
        try:
            await stream.handshake()
        except trio.BrokenResourceError as error:
            await link.disconnect()
            raise RemoteProtocolError("lmn_tls", _why(error.__cause__)) from error
        return stream
    if scope.cancelled_caught:
        raise RemoteProtocolError("lmn_timeout", f"no TLS session within {timeout_s} s")
    raise LocalProtocolError("unreachable")
