"""Mutated CMS messages: whatever the bytes are, the remote kind of error or the content as it was sent."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import cms
from protocol.cms import structures as asn1
from protocol.cms.ber import to_definite
from protocol.errors import RemoteProtocolError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CONTENT = b"content " * 8


class Fixed:
    """The same numbers each time."""

    def random(self, size: int) -> bytes:
        return hashlib.shake_256(b"seed").digest(size)

    def ephemeral_key(self, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        return ec.derive_private_key(77, curve)


def pair(number: int) -> cms.KeyPair:
    key = ec.derive_private_key(number, ec.BrainpoolP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, str(number))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1 << 65, NOW, NOW + timedelta(days=9))
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return cms.KeyPair(builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True), key)


SENDER, RECEIVER = pair(11), pair(22)
SUITES = [cms.GCM_SUITE, cms.CBC_CMAC_SUITE]
MESSAGES = [
    cms.protect(CONTENT, RECEIVER.certificate, SENDER, entropy=Fixed(), suite=suite, compressed=compressed)
    for suite in SUITES
    for compressed in (False, True)
]
SEALED = [
    cms.seal(CONTENT, asn1.DATA, RECEIVER.certificate, suite=suite, entropy=Fixed(), explicit_iv=True)
    for suite in SUITES
]


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 3))):
        data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
    data = data[: draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))]
    return bytes(data) + draw(st.binary(max_size=4))


@given(mutated(MESSAGES))
@settings(max_examples=600, deadline=None)
def test_a_mutated_message_is_refused_or_says_what_was_sent(data: bytes) -> None:
    try:
        opened = cms.unprotect(data, RECEIVER, [SENDER.certificate])
    except RemoteProtocolError:
        return
    # Some octets are neither signed nor secret: an optional list of hashes, a length in a longer form.
    assert opened.content == CONTENT


@given(mutated(SEALED))
@settings(max_examples=600, deadline=None)
def test_mutated_enveloped_data_is_refused_or_says_what_was_sent(data: bytes) -> None:
    try:
        content, content_type, _ = cms.open_enveloped(data, RECEIVER, cms.Limits())
    except RemoteProtocolError:
        return
    assert (content, content_type) == (CONTENT, asn1.DATA)


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda tail: MESSAGES[0][:60] + tail))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        cms.unprotect(data, RECEIVER, [SENDER.certificate])


@given(st.binary(max_size=200))
def test_definite_lengths_are_a_fixed_point(data: bytes) -> None:
    try:
        once = to_definite(data, depth_max=8, elements_max=50)
    except RemoteProtocolError:
        return
    assert to_definite(once, depth_max=8, elements_max=50) == once
