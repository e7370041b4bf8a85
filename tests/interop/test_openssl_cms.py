"""
CMS with the command line of OpenSSL, both ways.

OpenSSL refuses the identifiers of TR-03111 for the key agreement: that identifier alone is exchanged for SEC 1's with
the same derivation, dhSinglePass-stdDH-sha256kdf (the shared info has the key wrap's identifier, not this one).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asn1crypto.cms import ContentInfo
from asn1crypto.core import ObjectIdentifier
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from protocol import cms
from protocol.cms import structures as asn1
from protocol.cms.ber import encode, to_definite
from protocol.errors import RemoteProtocolError
from protocol.link.entropy import SystemEntropy

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(
    OPENSSL is None and "CI" not in os.environ, reason="no openssl command; in CI it must be there"
)
CONTENT = "Zählerstand\r\n".encode() * 40
LIMITS = cms.Limits()
CURVES = [ec.BrainpoolP256R1, ec.BrainpoolP384R1, ec.SECP256R1, ec.SECP384R1]
X963_SHA256 = {cms.Digest.SHA256: "1.3.132.1.11.1", cms.Digest.SHA384: "1.3.132.1.11.2"}


@dataclass(frozen=True)
class Party:
    """One end: as OpenSSL's files and as ours."""

    pair: cms.KeyPair
    certificate_file: Path
    key_file: Path


def party(folder: Path, name: str, curve: type[ec.EllipticCurve]) -> Party:
    key = ec.generate_private_key(curve())
    subject, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    builder = x509.CertificateBuilder(
        subject, subject, key.public_key(), 1 << 65, now - timedelta(days=1), now + timedelta(days=9)
    ).add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return Party(cms.KeyPair(certificate, key), *files)


def openssl(*arguments: str | Path, data: bytes) -> bytes:
    assert OPENSSL is not None, "the openssl command is missing"
    done = subprocess.run(
        [OPENSSL, "cms", "-binary", *map(str, arguments)], input=data, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def with_agreement(data: bytes, old: str, new: str) -> bytes:
    """The message with another identifier of the key agreement, and nothing else."""
    info = asn1.AuthEnvelopedData.load(data)
    algorithm = info["recipient_infos"][0].chosen["key_encryption_algorithm"]
    assert algorithm["algorithm"].dotted == old
    algorithm["algorithm"] = new
    changed: bytes = info.dump(force=True)
    return changed


def content_info(content_type: str, content: bytes) -> bytes:
    return encode(0x30, ObjectIdentifier(content_type).dump() + encode(0xA0, content))


def enveloped(made: bytes) -> bytes:
    """AuthEnvelopedData out of its ContentInfo, which a gateway never sends alone."""
    info = ContentInfo.load(to_definite(made, depth_max=20, elements_max=200))
    assert info["content_type"].dotted == asn1.AUTH_ENVELOPED_DATA
    content: bytes = info["content"].untag().dump()
    return content


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_openssl_verifies_what_we_sign(tmp_path: Path, curve: type[ec.EllipticCurve]) -> None:
    signer = party(tmp_path, "signer", curve)
    options = ("-verify", "-inform", "DER", "-CAfile", signer.certificate_file, "-purpose", "any")
    assert openssl(*options, data=cms.sign(CONTENT, asn1.DATA, signer.pair)) == CONTENT
    (tmp_path / "content").write_bytes(CONTENT)
    detached = cms.sign_detached(CONTENT, signer.pair)
    assert openssl(*options, "-content", tmp_path / "content", data=detached) == CONTENT
    bare = cms.sign(CONTENT, asn1.DATA, signer.pair, with_certificate=False)
    assert openssl(*options, "-certfile", signer.certificate_file, data=bare) == CONTENT


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
@pytest.mark.parametrize("stream", [(), ("-stream",)], ids=["DER", "BER"])
def test_we_verify_what_openssl_signs(tmp_path: Path, curve: type[ec.EllipticCurve], stream: tuple[str, ...]) -> None:
    signer = party(tmp_path, "signer", curve)
    made = openssl(
        "-sign", "-nodetach", "-keyid", "-nosmimecap", "-md", cms.Digest.for_curve(curve()).name.lower(),
        "-outform", "DER", "-signer", signer.certificate_file, "-inkey", signer.key_file, *stream, data=CONTENT,
    )  # fmt: skip
    content, found = cms.verify(made, asn1.DATA, [signer.pair.certificate], LIMITS)
    assert (content, found) == (CONTENT, signer.pair.certificate)
    with pytest.raises(RemoteProtocolError, match="cms_"):
        cms.verify(made.replace(b"hlerstand", b"hlerstanD", 1), asn1.DATA, [signer.pair.certificate], LIMITS)


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
@pytest.mark.parametrize("bits", [128, 192, 256])
def test_openssl_decrypts_what_we_encrypt(tmp_path: Path, curve: type[ec.EllipticCurve], bits: int) -> None:
    receiver = party(tmp_path, "receiver", curve)
    digest = cms.Digest.for_curve(curve())
    suite = cms.EncryptionSuite(digest, bits // 8, cms.ContentCipher[f"AES{bits}_GCM"])
    sealed = cms.seal(CONTENT, asn1.DATA, receiver.pair.certificate, suite=suite, entropy=SystemEntropy())
    exchanged = with_agreement(sealed, digest.ecka_oid, X963_SHA256[digest])
    data = content_info(asn1.AUTH_ENVELOPED_DATA, exchanged)
    options = ("-decrypt", "-inform", "DER", "-recip", receiver.certificate_file, "-inkey", receiver.key_file)
    assert openssl(*options, data=data) == CONTENT


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
@pytest.mark.parametrize("stream", [(), ("-stream",)], ids=["DER", "BER"])
def test_we_decrypt_what_openssl_encrypts(
    tmp_path: Path, curve: type[ec.EllipticCurve], stream: tuple[str, ...]
) -> None:
    receiver = party(tmp_path, "receiver", curve)
    digest = cms.Digest.for_curve(curve())
    made = openssl(
        "-encrypt", "-aes-128-gcm", "-outform", "DER", "-recip", receiver.certificate_file, "-keyid",
        "-keyopt", f"ecdh_kdf_md:{digest.name.lower()}", *stream, data=CONTENT,
    )  # fmt: skip
    exchanged = with_agreement(enveloped(made), X963_SHA256[digest], digest.ecka_oid)
    content, content_type, suite = cms.open_enveloped(exchanged, receiver.pair, LIMITS)
    assert (content, content_type) == (CONTENT, asn1.DATA)
    assert (suite.kdf, suite.cipher) == (digest, cms.ContentCipher.AES128_GCM)


def test_a_whole_message_goes_both_ways(tmp_path: Path) -> None:
    """OpenSSL checks our outer signature, then decrypts what is inside; and we open what it put together."""
    sender, receiver = (party(tmp_path, name, ec.BrainpoolP256R1) for name in ("sender", "receiver"))
    ours, theirs = cms.Digest.SHA256.ecka_oid, X963_SHA256[cms.Digest.SHA256]
    message = cms.protect(CONTENT, receiver.pair.certificate, sender.pair, entropy=SystemEntropy())
    inner = openssl("-verify", "-inform", "DER", "-CAfile", sender.certificate_file, "-purpose", "any", data=message)
    data = content_info(asn1.AUTH_ENVELOPED_DATA, with_agreement(inner, ours, theirs))
    options = ("-decrypt", "-inform", "DER", "-recip", receiver.certificate_file, "-inkey", receiver.key_file)
    assert openssl(*options, data=data) == CONTENT

    made = openssl(
        "-encrypt", "-aes-128-gcm", "-outform", "DER", "-recip", receiver.certificate_file, "-keyid",
        "-keyopt", "ecdh_kdf_md:sha256", data=CONTENT,
    )  # fmt: skip
    inner = with_agreement(enveloped(made), theirs, ours)
    signed = openssl(
        "-sign", "-nodetach", "-keyid", "-nosmimecap", "-md", "sha256", "-outform", "DER", "-econtent_type",
        "id-smime-ct-authEnvelopedData", "-signer", sender.certificate_file, "-inkey", sender.key_file, data=inner,
    )  # fmt: skip
    opened = cms.unprotect(signed, receiver.pair, [sender.pair.certificate])
    assert opened.content == CONTENT
