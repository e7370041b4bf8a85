"""Vectors in tests/data/cms, made by somebody who has not read the code; the format is described there."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asn1crypto.core import ObjectIdentifier
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from protocol import cms
from protocol.cms.ber import children, encode, value_of
from protocol.cms.compressed import compress, decompress
from protocol.cms.structures import AUTH_ENVELOPED_DATA, COMPRESSED_DATA, DATA
from protocol.cms.suites import CURVES, WRAPS
from protocol.errors import RemoteProtocolError

FOLDER = Path(__file__).parents[1] / "data/cms"
VECTORS = [vector for file in sorted(FOLDER.glob("*.json")) for vector in json.loads(file.read_text(encoding="utf-8"))]
_CONSTRUCTED, _NULL, _SHA256 = 0x20, b"\x05\x00", ObjectIdentifier(cms.Digest.SHA256.oid).dump()
REASONS = {
    "signature": "cms_signature", "decryption": "cms_decryption", "profile": "cms_profile", "size": "cms_too_large",
    "algorithm": "cms_algorithm", "signer": "cms_signer", "recipient": "cms_recipient", "malformed": "cms_malformed",
    "compression": "cms_compression",
}  # fmt: skip

# One message of each shape: plain, compressed, with parameters of CBC-CMAC, with a certificate.
WALKED = {
    "brainpoolP256r1 AES128_GCM 16 octets",
    "brainpoolP256r1 AES128_CBC_CMAC compressed 16 octets",
    "CBC-CMAC parameters with authenticated attribute",
    "signer certificate included",
}


class Scripted:
    """The vector's random octets and ephemeral key."""

    def __init__(self, reproduce: dict[str, Any]) -> None:
        self._left = bytes.fromhex(reproduce["random"])
        self._key = private_key(reproduce["ephemeral_key"])

    def random(self, size: int) -> bytes:
        taken, self._left = self._left[:size], self._left[size:]
        return taken

    def ephemeral_key(self, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        return self._key


def private_key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def recipient(vector: dict[str, Any]) -> cms.KeyPair:
    return cms.KeyPair(certificate(vector["recipient_certificate"]), private_key(vector["recipient_key"]))


def suite(vector: dict[str, Any]) -> cms.EncryptionSuite:
    named = vector["suite"]
    return cms.EncryptionSuite(cms.Digest[named["kdf"]], named["wrap_bits"] // 8, cms.ContentCipher[named["cipher"]])


def having(key: str) -> list[Any]:
    found = [pytest.param(vector, id=vector["name"]) for vector in VECTORS if key in vector]
    # pytest would skip a test without parameters.
    assert found, f"no vector with {key!r} in {FOLDER}"
    return found


def with_one_element_more(element: bytes) -> Iterator[bytes]:
    """The element with a NULL at the end of each constructed element in turn."""
    if not element[0] & _CONSTRUCTED:
        return
    parts = children(value_of(element))
    if parts[0] == _SHA256 and len(parts) == 1:
        return  # RFC 5754 section 2: a NULL there is one of two forms to be taken
    yield encode(element[0], b"".join([*parts, _NULL]))
    for index, part in enumerate(parts):
        for changed in with_one_element_more(part):
            yield encode(element[0], b"".join([*parts[:index], changed, *parts[index + 1 :]]))


def test_the_vectors_have_every_cipher_curve_and_refusal() -> None:
    keys = [private_key(vector["recipient_key"]) for vector in VECTORS if "content" in vector]
    suites = [vector["suite"] for vector in VECTORS if "content" in vector]
    assert {type(key.curve) for key in keys} == set(CURVES.values())
    assert {each["cipher"] for each in suites} == set(cms.ContentCipher.__members__)
    assert {each["kdf"] for each in suites} == set(cms.Digest.__members__)
    assert {each["wrap_bits"] // 8 for each in suites} == set(WRAPS.values())
    assert {vector["refused"] for vector in VECTORS if "refused" in vector} == set(REASONS)


@pytest.mark.parametrize("vector", having("content"))
def test_a_foreign_message_opens_to_its_content(vector: dict[str, Any]) -> None:
    message = base64.b64decode(vector["message"])
    opened = cms.unprotect(message, recipient(vector), [certificate(vector["signer_certificate"])])
    assert opened.content == base64.b64decode(vector["content"])
    assert (opened.suite, opened.compressed) == (suite(vector), vector.get("compressed", False))


@pytest.mark.parametrize("vector", having("refused"))
def test_a_foreign_message_that_does_not_fit_is_refused(vector: dict[str, Any]) -> None:
    message = base64.b64decode(vector["message"])
    with pytest.raises(RemoteProtocolError) as caught:
        cms.unprotect(message, recipient(vector), [certificate(vector["signer_certificate"])])
    assert caught.value.reason == REASONS[vector["refused"]]


@pytest.mark.parametrize("vector", having("reproduce"))
def test_the_same_keys_give_the_same_enveloped_data(vector: dict[str, Any]) -> None:
    content, content_type = base64.b64decode(vector["content"]), DATA
    if vector.get("compressed", False):
        content, content_type = compress(content), COMPRESSED_DATA
    made = cms.seal(
        content, content_type, certificate(vector["recipient_certificate"]), suite=suite(vector),
        entropy=Scripted(vector["reproduce"]),
    )  # fmt: skip
    assert made == base64.b64decode(vector["reproduce"]["auth_enveloped_data"])


@pytest.mark.parametrize("vector", [each for each in having("content") if each.id in WALKED])
def test_an_element_too_many_is_refused_wherever_it_is(vector: dict[str, Any]) -> None:
    message, limits = base64.b64decode(vector["message"]), cms.Limits()
    key, signers = recipient(vector), [certificate(vector["signer_certificate"])]
    sealed, _ = cms.verify(message, AUTH_ENVELOPED_DATA, signers, limits)
    content, content_type, _ = cms.open_enveloped(sealed, key, limits)
    for changed in with_one_element_more(message):
        with pytest.raises(RemoteProtocolError):
            cms.verify(changed, AUTH_ENVELOPED_DATA, signers, limits)
    for changed in with_one_element_more(sealed):
        with pytest.raises(RemoteProtocolError):
            cms.open_enveloped(changed, key, limits)
    if content_type == COMPRESSED_DATA:
        for changed in with_one_element_more(content):
            with pytest.raises(RemoteProtocolError):
                decompress(changed, limits)
