"""
TLS contexts for SM-PKI certificates.

Two things stand in the way of the defaults.  The certificates lie on brainpoolP256r1, and a peer may only use such a
key for a handshake if the other side lists that curve, which OpenSSL does not by itself.  And brainpool in TLS 1.3
(RFC 8734) needs OpenSSL 3.2, which not every Python has: so the version is pinned to TLS 1.2, as BSI TR-03116-3 allows,
with its ECDHE-ECDSA suites.  The curve setting of Python's ssl module takes a single name: it is also the one for
ECDHE.  Browsers know no brainpool at all, so a server whose certificate lies on another curve gets the usual context.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

CURVE = ec.BrainpoolP256R1.name
SUITES = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"


def server_context(chain: Path, key: Path, *, client_root: Path | None = None) -> ssl.SSLContext:
    """
    For a server with this chain and key (PEM); with `client_root` clients must show a certificate below it.

    Raises OSError (ssl.SSLError is one) or ValueError for files that are absent, damaged, or do not belong together.
    """
    public_key = x509.load_pem_x509_certificates(chain.read_bytes())[0].public_key()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if isinstance(public_key, ec.EllipticCurvePublicKey) and public_key.curve.name == CURVE:
        _narrow(context)
    context.load_cert_chain(chain, key)
    if client_root is not None:
        context.load_verify_locations(client_root)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(root: Path, *, chain: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """For a client that trusts this SM-PKI root alone and checks the server's name; `chain` and `key` are its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _narrow(context)
    context.load_verify_locations(root)
    if chain is not None:
        context.load_cert_chain(chain, key)
    return context


def _narrow(context: ssl.SSLContext) -> None:
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(SUITES)
    context.set_ecdh_curve(CURVE)
    context.options |= ssl.OP_NO_RENEGOTIATION
