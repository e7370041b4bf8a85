"""
CMS messages a second, beside what the elliptic curve alone would allow.

    python -m loadtest.bench cms

A delivery of 4 KB, half of it repeated.  The peer is bare `cryptography`: to protect takes a signature, an ephemeral
key and a shared point, to unprotect a check of a signature and a shared point.  The ratio is what is left of that once
ASN.1, key derivation and AES are paid for.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from loadtest.bench.measure import Row, Spread, cpu_us, pairs
from protocol import cms
from protocol.link.entropy import SystemEntropy

_NOW = datetime(2026, 3, 1, tzinfo=UTC)
_CURVES: tuple[ec.EllipticCurve, ...] = (ec.BrainpoolP256R1(), ec.BrainpoolP384R1(), ec.SECP256R1(), ec.SECP384R1())


def _pair(curve: ec.EllipticCurve) -> cms.KeyPair:
    key = ec.generate_private_key(curve)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1 << 65, _NOW, _NOW + timedelta(days=9))
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return cms.KeyPair(builder.sign(key, hashes.SHA256()), key)


def _per_s(taken_us: Spread) -> Spread:
    return Spread(1e6 / taken_us.median, 1e6 / taken_us.high, 1e6 / taken_us.low, taken_us.count)


def _row(what: str, ours: Callable[[], object], limit: Callable[[], object], *, quick: bool, note: str = "") -> Row:
    times, count = (10, 3) if quick else (50, 15)
    mine, bare, ratio = pairs(lambda: cpu_us(ours, times), lambda: cpu_us(limit, times), count)
    return Row(what, "messages/s", _per_s(mine), "bare ECC", _per_s(bare), ratio, note=note)


def _both_ways(curve: ec.EllipticCurve, suite: cms.EncryptionSuite, *, compressed: bool, quick: bool) -> list[Row]:
    content = random.Random(1).randbytes(2048) + bytes(2048)
    entropy, sender, receiver = SystemEntropy(), _pair(curve), _pair(curve)
    algorithm = ec.ECDSA(cms.Digest.for_curve(curve).algorithm())
    peer = sender.private_key.public_key()
    signature = sender.private_key.sign(content, algorithm)

    def protect() -> bytes:
        return cms.protect(content, receiver.certificate, sender, entropy=entropy, suite=suite, compressed=compressed)

    def unprotect() -> cms.Opened:
        return cms.unprotect(message, receiver, [sender.certificate])

    def bare_protect() -> None:
        entropy.ephemeral_key(curve).exchange(ec.ECDH(), peer)
        sender.private_key.sign(content, algorithm)

    def bare_unprotect() -> None:
        receiver.private_key.exchange(ec.ECDH(), peer)
        peer.verify(signature, content, algorithm)

    message = protect()
    name = f"{curve.name}, {suite.cipher.name}{', compressed' if compressed else ''}"
    size = f"{len(message):,} octets"
    return [
        _row(f"CMS sign and encrypt, {name}", protect, bare_protect, quick=quick, note=size),
        _row(f"CMS verify and decrypt, {name}", unprotect, bare_unprotect, quick=quick),
    ]


def rows(*, quick: bool = False) -> list[Row]:
    """Both directions on the four curves, and the other suite and compression on the first."""
    first, *others = _CURVES
    variants = [(first, cms.GCM_SUITE, False), (first, cms.CBC_CMAC_SUITE, False), (first, cms.GCM_SUITE, True)]
    variants += [] if quick else [(curve, cms.GCM_SUITE, False) for curve in others]
    return [
        row
        for curve, suite, compressed in variants
        for row in _both_ways(curve, suite, compressed=compressed, quick=quick)
    ]
