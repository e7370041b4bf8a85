"""Vectors in tests/data/cms, made by somebody who has not read the code; the format is described there."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from protocol import cms
from protocol.cms.compressed import compress
from protocol.cms.structures import COMPRESSED_DATA, DATA
from protocol.errors import RemoteProtocolError

FOLDER = Path(__file__).parents[1] / "data/cms"
VECTORS = [vector for file in sorted(FOLDER.glob("*.json")) for vector in json.loads(file.read_text(encoding="utf-8"))]
REASONS = {
    "signature": "cms_signature", "decryption": "cms_decryption", "profile": "cms_profile", "size": "cms_too_large",
    "algorithm": "cms_algorithm", "signer": "cms_signer", "recipient": "cms_recipient", "malformed": "cms_malformed",
    "compression": "cms_compression",
}  # fmt: skip


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


def named(vectors: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in vectors]


@pytest.mark.parametrize("vector", named([each for each in VECTORS if "content" in each]))
def test_a_foreign_message_opens_to_its_content(vector: dict[str, Any]) -> None:
    message = base64.b64decode(vector["message"])
    opened = cms.unprotect(message, recipient(vector), [certificate(vector["signer_certificate"])])
    assert opened.content == base64.b64decode(vector["content"])
    assert (opened.suite, opened.compressed) == (suite(vector), vector.get("compressed", False))


@pytest.mark.parametrize("vector", named([each for each in VECTORS if "refused" in each]))
def test_a_foreign_message_that_does_not_fit_is_refused(vector: dict[str, Any]) -> None:
    message = base64.b64decode(vector["message"])
    with pytest.raises(RemoteProtocolError) as caught:
        cms.unprotect(message, recipient(vector), [certificate(vector["signer_certificate"])])
    assert caught.value.reason == REASONS[vector["refused"]]


@pytest.mark.parametrize("vector", named([each for each in VECTORS if "reproduce" in each]))
def test_the_same_keys_give_the_same_enveloped_data(vector: dict[str, Any]) -> None:
    content, content_type = base64.b64decode(vector["content"]), DATA
    if vector.get("compressed", False):
        content, content_type = compress(content), COMPRESSED_DATA
    made = cms.seal(
        content, content_type, certificate(vector["recipient_certificate"]), suite=suite(vector),
        entropy=Scripted(vector["reproduce"]),
    )  # fmt: skip
    assert made == base64.b64decode(vector["reproduce"]["auth_enveloped_data"])
