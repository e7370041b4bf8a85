"""
TLS contexts for SM-PKI certificates.

Two things stand in the way of the defaults.  The certificates lie on one curve, brainpoolP256r1 as a rule, and a peer
may only use such a key for a handshake if the other side lists that curve, which OpenSSL does not by itself.  And
brainpool in TLS 1.3 (RFC 8734) needs OpenSSL 3.2, which not every Python has: so the version is pinned to TLS 1.2, as
BSI TR-03116-3 allows, with its ECDHE-ECDSA suites.  The curve setting of Python's ssl module takes a single name: it is
also the one for ECDHE; several come through OPENSSL_CONF alone.  Browsers know no brainpool at all, so a server whose
certificate lies on another curve gets the usual context.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

_BRAINPOOL = (ec.BrainpoolP256R1, ec.BrainpoolP384R1)
_NAMES = {ec.SECP256R1.name: "prime256v1"}  # what OpenSSL calls it
SUITES = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"


def server_context(chain: Path, key: Path, *, client_root: Path | None = None) -> ssl.SSLContext:
    """
    For a server with this chain and key (PEM); with `client_root` clients must show a certificate below it.

    Raises OSError (ssl.SSLError is one) or ValueError for files that are absent, damaged, or do not belong together.
    """
    curve = _curve_of(chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if isinstance(curve, _BRAINPOOL):
        _narrow(context, curve)
    context.load_cert_chain(chain, key)
    if client_root is not None:
        context.load_verify_locations(client_root)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(root: Path, *, chain: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """For a client that trusts this SM-PKI root alone and checks the server's name; `chain` and `key` are its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _narrow(context, _curve_of(root) or ec.BrainpoolP256R1())
    context.load_verify_locations(root)
    if chain is not None:
        context.load_cert_chain(chain, key)
    return context


def _curve_of(file: Path) -> ec.EllipticCurve | None:
    public_key = x509.load_pem_x509_certificates(file.read_bytes())[0].public_key()
    return public_key.curve if isinstance(public_key, ec.EllipticCurvePublicKey) else None


def _narrow(context: ssl.SSLContext, curve: ec.EllipticCurve) -> None:
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(SUITES)
    context.set_ecdh_curve(_NAMES.get(curve.name, curve.name))
    context.options |= ssl.OP_NO_RENEGOTIATION
