"""CMS by chapter 5: every suite and curve both ways, and everything that must be refused."""

from __future__ import annotations

import hashlib
import traceback
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from asn1crypto.core import Integer, Null, ObjectIdentifier, OctetString
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from protocol import cms
from protocol.cms import ber, ciphers
from protocol.cms import structures as asn1
from protocol.cms.compressed import compress, decompress
from protocol.cms.enveloped import _content_keys
from protocol.cms.suites import CBC_CMAC_PARAMETERS, CURVES, WRAP_OIDS
from protocol.errors import LocalProtocolError, RemoteProtocolError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CONTENT = b"<reading>31415926 Wh</reading>" * 20
LIMITS = cms.Limits()
SUITES = [
    cms.EncryptionSuite(kdf, wrap_size, cipher)
    for kdf, wrap_size in ((cms.Digest.SHA256, 16), (cms.Digest.SHA384, 24), (cms.Digest.SHA512, 32))
    for cipher in cms.ContentCipher
    if cipher.key_size <= wrap_size
]


class Counted:
    """Randomness that can be told again: a hash chain."""

    def __init__(self, seed: bytes = b"seed") -> None:
        self._state = seed

    def random(self, size: int) -> bytes:
        self._state = hashlib.sha512(self._state).digest()
        return self._state[:size]

    def ephemeral_key(self, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        return ec.derive_private_key(int.from_bytes(self.random(31), "big"), curve)


@cache
def pair(name: str, curve: type[ec.EllipticCurve] = ec.BrainpoolP256R1) -> cms.KeyPair:
    key = ec.generate_private_key(curve())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1 << 65, NOW, NOW + timedelta(days=9))
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return cms.KeyPair(builder.sign(key, hashes.SHA256()), key)


def message(**options: Any) -> bytes:
    return cms.protect(CONTENT, pair("emt").certificate, pair("smgw"), entropy=Counted(), **options)


def opened(data: bytes, **options: Any) -> cms.Opened:
    return cms.unprotect(data, pair("emt"), [pair("gwa").certificate, pair("smgw").certificate], **options)


def refused(data: bytes, **options: Any) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        opened(data, **options)
    told = "".join(traceback.format_exception(caught.value))
    assert "31415926" not in told
    return f"{caught.value.reason} {caught.value.detail}"


def enveloped(change: Callable[[Any], None], suite: cms.EncryptionSuite = cms.GCM_SUITE, **options: Any) -> bytes:
    """A signed message whose AuthEnvelopedData was changed before it was signed."""
    content_type = options.pop("content_type", asn1.DATA)
    sealed = cms.seal(CONTENT, content_type, pair("emt").certificate, suite=suite, entropy=Counted(), **options)
    structure = asn1.AuthEnvelopedData.load(sealed)
    change(structure)
    return cms.sign(structure.dump(force=True), asn1.AUTH_ENVELOPED_DATA, pair("smgw"))


def signed(change: Callable[[Any], None]) -> bytes:
    """A message whose SignedData was changed after it was signed."""
    structure = asn1.ContentInfo.load(message())
    change(structure["content"])
    data: bytes = structure.dump(force=True)
    return data


def resigned(attributes: list[tuple[str, Any]], *, digest: cms.Digest = cms.Digest.SHA256) -> bytes:
    """A message with signed attributes of our choice and a signature that holds for them."""
    structure = asn1.ContentInfo.load(message())
    info = structure["content"]["signer_infos"][0]
    made = asn1.Attributes([asn1.Attribute({"type": kind, "values": [value]}) for kind, value in attributes])
    info["signed_attrs"] = made
    info["signature"] = pair("smgw").sign(made.dump(), digest)
    data: bytes = structure.dump(force=True)
    return data


def kari(structure: Any) -> Any:
    return structure["recipient_infos"][0].chosen


# --- what must work --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: f"{suite.kdf.name}-{suite.wrap_size}-{suite.cipher.name}")
@pytest.mark.parametrize("compressed", [False, True])
def test_every_suite_opens_to_what_was_protected(suite: cms.EncryptionSuite, compressed: bool) -> None:
    data = message(suite=suite, compressed=compressed)
    found = opened(data)
    assert (found.content, found.suite, found.compressed) == (CONTENT, suite, compressed)
    assert found.signer == pair("smgw").certificate
    assert CONTENT not in data


def test_both_suites_of_table_5_1_have_their_identifiers() -> None:
    for suite, oid in ((cms.GCM_SUITE, "2.16.840.1.101.3.4.1.6"), (cms.CBC_CMAC_SUITE, "0.4.0.127.0.7.1.3.1.1.2")):
        structure = asn1.AuthEnvelopedData.load(
            cms.seal(CONTENT, asn1.DATA, pair("emt").certificate, suite=suite, entropy=Counted())
        )
        algorithm = kari(structure)["key_encryption_algorithm"]
        assert algorithm["algorithm"].dotted == "0.4.0.127.0.7.1.1.5.1.1.3"
        wrap = algorithm["parameters"].parse(asn1.AlgorithmIdentifier)
        assert wrap["algorithm"].dotted == "2.16.840.1.101.3.4.1.5"
        info = structure["auth_encrypted_content_info"]["content_encryption_algorithm"]
        assert info["algorithm"].dotted == oid
        assert asn1.has_parameters(info) is suite.cipher.is_gcm


@pytest.mark.parametrize("curve", list(CURVES.values()), ids=lambda curve: curve.name)
def test_every_curve_signs_and_decrypts(curve: type[ec.EllipticCurve]) -> None:
    sender, receiver = pair("smgw", curve), pair("emt", curve)
    data = cms.protect(CONTENT, receiver.certificate, sender, entropy=Counted())
    assert cms.unprotect(data, receiver, [sender.certificate]).content == CONTENT
    signer = asn1.ContentInfo.load(data)["content"]["signer_infos"][0]
    assert signer["digest_algorithm"]["algorithm"].dotted == cms.Digest.for_curve(curve()).oid


def test_detached_signature_holds_for_its_content_only() -> None:
    data = cms.sign_detached(CONTENT, pair("smgw"))
    assert cms.verify_detached(data, CONTENT, [pair("smgw").certificate], LIMITS) == pair("smgw").certificate
    for changed, signers in ((CONTENT + b" ", [pair("smgw")]), (CONTENT, [pair("gwa")])):
        with pytest.raises(RemoteProtocolError, match="cms_sign"):
            cms.verify_detached(data, changed, [each.certificate for each in signers], LIMITS)
    with pytest.raises(RemoteProtocolError, match=r"table 5\.2"):
        cms.verify_detached(cms.sign(CONTENT, asn1.DATA, pair("smgw")), CONTENT, [pair("smgw").certificate], LIMITS)
    with pytest.raises(RemoteProtocolError, match="eContent is missing"):
        cms.verify(data, asn1.DATA, [pair("smgw").certificate], LIMITS)


def test_the_certificate_may_be_left_out() -> None:
    data = message(with_certificate=False)
    assert opened(data).signer == pair("smgw").certificate
    assert len(message()) > len(data) + 300


@pytest.mark.parametrize("suite", [cms.GCM_SUITE, cms.CBC_CMAC_SUITE], ids=["GCM", "CBC-CMAC"])
def test_keys_and_nonces_are_fresh_for_every_message(suite: cms.EncryptionSuite) -> None:
    entropy, points, keys, nonces = Counted(), set(), set(), set()
    for _ in range(20):
        sealed = cms.seal(CONTENT, asn1.DATA, pair("emt").certificate, suite=suite, entropy=entropy, explicit_iv=True)
        structure = asn1.AuthEnvelopedData.load(sealed)
        points.add(bytes(kari(structure)["originator"].chosen["public_key"]))
        drawn, _ = _content_keys(structure["recipient_infos"], pair("emt"), suite.cipher)
        keys |= {drawn[: suite.cipher.key_size], drawn[-suite.cipher.key_size :]}
        parameters = structure["auth_encrypted_content_info"]["content_encryption_algorithm"]["parameters"]
        nonces.add(parameters.dump())
    # CBC-CMAC has two keys a message, and they differ.
    assert (len(points), len(keys), len(nonces)) == (20, 20 if suite.cipher.is_gcm else 40, 20)


def test_the_same_entropy_gives_the_same_enveloped_data() -> None:
    sealed = [
        cms.seal(CONTENT, asn1.DATA, pair("emt").certificate, suite=cms.GCM_SUITE, entropy=Counted()) for _ in range(2)
    ]
    assert sealed[0] == sealed[1]


def test_recipients_are_told_without_decrypting() -> None:
    sealed = cms.seal(CONTENT, asn1.DATA, pair("emt").certificate, suite=cms.GCM_SUITE, entropy=Counted())
    identifier = x509.SubjectKeyIdentifier.from_public_key(pair("emt").private_key.public_key()).digest
    assert cms.recipients_of(sealed, LIMITS) == [identifier]


def test_one_of_several_recipients_finds_its_key() -> None:
    def add(structure: Any) -> None:
        other = asn1.AuthEnvelopedData.load(
            cms.seal(b"", asn1.DATA, pair("gwa").certificate, suite=cms.GCM_SUITE, entropy=Counted(b"x"))
        )
        structure["recipient_infos"] = [other["recipient_infos"][0], structure["recipient_infos"][0]]

    assert opened(enveloped(add)).content == CONTENT


def indefinite(data: bytes) -> bytes:
    """DER as a sender writes it that streams: constructed elements without a length, OCTET STRINGs in pieces."""
    made = b""
    while data:
        head = 2 + (data[1] & 0x7F if data[1] & 0x80 else 0)
        size = int.from_bytes(data[2:head], "big") if head > 2 else data[1]
        element, body, data = data[: head + size], data[head : head + size], data[head + size :]
        if element[0] & 0x20:
            made += element[:1] + b"\x80" + indefinite(body) + b"\0\0"
        elif element[0] == 0x04:
            made += b"\x24\x80" + ber.encode(4, body[:7]) + ber.encode(4, body[7:]) + b"\0\0"
        else:
            made += element
    return made


def test_indefinite_lengths_and_strings_in_pieces_are_read() -> None:
    streamed = indefinite(message())
    assert len(streamed) > len(message())
    assert opened(streamed).content == CONTENT


def test_an_empty_context_field_stays_what_it_is() -> None:
    """Of a PKCS#10 request, for one: no attributes are an empty [0], and no string."""
    data = ber.encode(0x30, ber.encode(0x30, b"") + ber.encode(0xA0, b""))
    assert ber.to_definite(data, depth_max=4, elements_max=4) == data


# --- SignedData ------------------------------------------------------------------------------------------------------


def test_another_signer_or_certificate_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match=r"cms_signer.*5\.2\.1"):
        cms.unprotect(message(), pair("emt"), [pair("gwa").certificate])
    # Same key and key identifier, another certificate than the one configured.
    key = pair("smgw").private_key
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "other")])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1 << 66, NOW, NOW + timedelta(days=9))
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    other = builder.sign(key, hashes.SHA256())
    with pytest.raises(RemoteProtocolError, match="not the configured one"):
        cms.unprotect(message(), pair("emt"), [other])
    assert cms.unprotect(message(with_certificate=False), pair("emt"), [other]).content == CONTENT
    # Both are configured while one follows the other: the message says which it is.
    both = cms.unprotect(message(), pair("emt"), [other, pair("smgw").certificate])
    assert both.signer == pair("smgw").certificate


def test_signed_data_off_the_profile_is_refused_with_its_clause() -> None:
    def put(path: tuple[str | int, ...], value: Any) -> Callable[[Any], None]:
        def change(structure: Any) -> None:
            for key in path[:-1]:
                structure = structure[key]
            structure[path[-1]] = value

        return change

    info = ("signer_infos", 0)
    cases = {
        "cms_profile version 1, expected 3 (table 5.6)": put(("version",), 1),
        "cms_profile version 1 of the signer, expected 3 (table 5.6)": put((*info, "version"), 1),
        "cms_algorithm hash 1.3.14.3.2.26 (5.3.3.2.1)": put((*info, "digest_algorithm", "algorithm"), "1.3.14.3.2.26"),
        "cms_algorithm signature 1.2.840.10045.4.3.3 does not go with hash 2.16.840.1.101.3.4.2.1 (5.3.3.2.2)": put(
            (*info, "signature_algorithm", "algorithm"), "1.2.840.10045.4.3.3"
        ),
        "cms_profile the signature algorithm has parameters (5.3.3.2.2)": put(
            (*info, "signature_algorithm", "parameters"), Null()
        ),
        "cms_profile the hash has parameters (5.3.3.2.1)": put((*info, "digest_algorithm", "parameters"), Integer(1)),
        "cms_profile the signer's hash is not among digestAlgorithms (table 5.6)": put(
            ("digest_algorithms",), [{"algorithm": cms.Digest.SHA384.oid}]
        ),
        "cms_profile eContentType 1.2.840.113549.1.7.1, expected 1.2.840.113549.1.9.16.1.23 (table 5.6)": put(
            ("encap_content_info", "content_type"), asn1.DATA
        ),
        "cms_profile 0 signers, expected one (table 5.6)": put(("signer_infos",), []),
        "cms_signature the content is not the one that was signed (RFC 5652, 5.6)": put(
            ("encap_content_info", "content"), b"other"
        ),
        "cms_signature the signature does not hold (RFC 5652, 5.6)": put((*info, "signature"), bytes(70)),
    }
    for told, change in cases.items():
        assert refused(signed(change)) == told
    assert opened(signed(put((*info, "digest_algorithm", "parameters"), Null()))).content == CONTENT


def test_two_signers_are_refused() -> None:
    def twice(structure: Any) -> None:
        first, second = structure["signer_infos"][0].copy(), structure["signer_infos"][0].copy()
        second["signature"] = b"other"
        structure["signer_infos"] = [first, second]

    assert "2 signers" in refused(signed(twice))


def test_forbidden_fields_do_not_parse() -> None:
    data = message()
    structure = asn1.ContentInfo.load(data)["content"]
    body = structure.untag().contents
    revocations = ber.encode(0xA1, b"")
    at = len(body) - len(structure["signer_infos"].dump())
    with_crls = ber.encode(0x30, body[:at] + revocations + body[at:])
    outer = ber.encode(0x30, ObjectIdentifier(asn1.SIGNED_DATA).dump() + ber.encode(0xA0, with_crls))
    assert refused(outer) == "cms_malformed not the structure of SignedData (RFC 5652, table 5.6)"


def test_signed_attributes_must_be_those_of_the_content() -> None:
    sealed = bytes(asn1.ContentInfo.load(message())["content"]["encap_content_info"]["content"])
    kind = (asn1.CONTENT_TYPE, ObjectIdentifier(asn1.AUTH_ENVELOPED_DATA))
    digest = (asn1.MESSAGE_DIGEST, OctetString(hashlib.sha256(sealed).digest()))
    assert opened(resigned([kind, digest])).content == CONTENT
    assert opened(resigned([kind, digest, ("1.2.3.4", Null())])).content == CONTENT
    assert "attribute is missing" in refused(resigned([kind]))
    assert "attribute is missing" in refused(resigned([digest]))
    assert "not exactly one value" in refused(resigned([kind, digest, digest]))
    assert "signed content type" in refused(resigned([(asn1.CONTENT_TYPE, ObjectIdentifier(asn1.DATA)), digest]))
    assert "not the one that was signed" in refused(resigned([kind, (asn1.MESSAGE_DIGEST, OctetString(bytes(32)))]))
    assert refused(resigned([kind, digest], digest=cms.Digest.SHA384)).startswith("cms_signature")
    assert refused(resigned([kind, digest] + [(f"1.2.3.{n}", Null()) for n in range(20)])).startswith("cms_too_large")


def test_a_hash_shorter_than_the_key_is_refused() -> None:
    sender = pair("long", ec.BrainpoolP384R1)

    class Short:
        certificate = sender.certificate

        def sign(self, text: bytes, digest: cms.Digest) -> bytes:
            return sender.sign(text, cms.Digest.SHA256)

    data = cms.protect(CONTENT, pair("emt").certificate, Short(), entropy=Counted())
    data = data.replace(ObjectIdentifier(cms.Digest.SHA384.oid).dump(), ObjectIdentifier(cms.Digest.SHA256.oid).dump())
    data = data.replace(
        ObjectIdentifier(cms.Digest.SHA384.ecdsa_oid).dump(), ObjectIdentifier(cms.Digest.SHA256.ecdsa_oid).dump()
    )
    with pytest.raises(RemoteProtocolError, match=r"cms_profile|cms_signature"):
        cms.unprotect(data, pair("emt"), [sender.certificate])


# --- AuthEnvelopedData -----------------------------------------------------------------------------------------------


def test_enveloped_data_off_the_profile_is_refused_with_its_clause() -> None:
    def algorithm(structure: Any) -> Any:
        return structure["auth_encrypted_content_info"]["content_encryption_algorithm"]

    def gcm(nonce: int, icv: int) -> Callable[[Any], None]:
        def change(structure: Any) -> None:
            algorithm(structure)["parameters"] = asn1.GcmParameters({"nonce": bytes(nonce), "icv_length": icv})

        return change

    def agreement(oid: str, wrap: dict[str, Any]) -> Callable[[Any], None]:
        def change(structure: Any) -> None:
            kari(structure)["key_encryption_algorithm"] = {
                "algorithm": oid, "parameters": asn1.AlgorithmIdentifier(wrap),
            }  # fmt: skip

        return change

    def originator(curve: str | None, point: bytes | None = None) -> Callable[[Any], None]:
        def change(structure: Any) -> None:
            old = kari(structure)["originator"].chosen
            fields: dict[str, Any] = {"algorithm": asn1.EC_PUBLIC_KEY}
            if curve is not None:
                fields["parameters"] = ObjectIdentifier(curve)
            new = asn1.OriginatorPublicKey(
                {"algorithm": fields, "public_key": bytes(old["public_key"]) if point is None else point}
            )
            kari(structure)["originator"] = asn1.Originator("originator_key", new)

        return change

    def setter(key: str, value: Any) -> Callable[[Any], None]:
        return lambda structure: structure.__setitem__(key, value)

    ecka, wrap128 = cms.Digest.SHA256.ecka_oid, {"algorithm": WRAP_OIDS[16]}
    cases = {
        "cms_profile version 2, expected 0 (table 5.5)": setter("version", 2),
        "cms_profile a nonce of 16 octets, expected 12 (5.3.2.2.4)": gcm(16, 16),
        "cms_profile aes-ICVlen 12, expected 16 (5.3.2.2.4)": gcm(12, 12),
        "cms_profile a MAC of 12 octets, expected 16 (5.3.2.2.3, 5.3.2.2.4)": setter("mac", bytes(12)),
        "cms_algorithm key agreement 1.3.132.1.11.1 (5.3.2.2.1)": agreement("1.3.132.1.11.1", wrap128),
        "cms_algorithm key wrap 1.2.840.113549.1.9.16.3.6 (5.3.2.2.2)": agreement(
            ecka, {"algorithm": "1.2.840.113549.1.9.16.3.6"}
        ),
        "cms_profile the key wrap has parameters (5.3.2.2.2)": agreement(ecka, {**wrap128, "parameters": Null()}),
        "cms_profile namedCurve 1.2.840.10045.3.1.7 is not the recipient's (table 5.5)": originator(
            "1.2.840.10045.3.1.7"
        ),
        "cms_profile the ephemeral key is no point of the curve (table 5.5)": originator(None, b"\x04" + bytes(64)),
        "cms_algorithm content encryption 2.16.840.1.101.3.4.1.2 (table 5.1)": lambda structure: algorithm(
            structure
        ).__setitem__("algorithm", "2.16.840.1.101.3.4.1.2"),
        "cms_profile version 4 of the recipient (table 5.5)": lambda structure: kari(structure).__setitem__(
            "version", 4
        ),
        "cms_decryption the content's key cannot be unwrapped (RFC 3394, 2.2)": agreement(
            cms.Digest.SHA384.ecka_oid, wrap128
        ),
    }
    for told, change in cases.items():
        assert refused(enveloped(change)) == told
    assert opened(enveloped(originator(None))).content == CONTENT


def test_a_point_off_the_curve_reaches_no_private_key() -> None:
    """An invalid curve attack: on a weak curve each answer would give away some bits of the key."""
    asked = []

    class Watched:
        certificate = pair("emt").certificate

        def agree(self, peer: ec.EllipticCurvePublicKey) -> bytes:
            asked.append(peer)
            return pair("emt").agree(peer)

    def off(structure: Any) -> None:
        old = kari(structure)["originator"].chosen
        point = bytearray(bytes(old["public_key"]))
        point[-1] ^= 1
        old["public_key"] = bytes(point)

    with pytest.raises(RemoteProtocolError, match="no point of the curve"):
        cms.unprotect(enveloped(off), Watched(), [pair("smgw").certificate])
    assert asked == []


def test_a_wrapping_key_shorter_than_the_contents_is_refused() -> None:
    suite = cms.EncryptionSuite(cms.Digest.SHA256, 16, cms.ContentCipher.AES256_GCM)
    assert "shorter than the content's" in refused(message(suite=suite))


def test_content_that_is_not_data_has_its_type_authenticated() -> None:
    def drop(structure: Any) -> None:
        structure["auth_attrs"] = None

    def other(structure: Any) -> None:
        structure["auth_attrs"] = [{"type": asn1.CONTENT_TYPE, "values": [ObjectIdentifier(asn1.DATA)]}]

    for change in (drop, other):
        assert "authAttrs do not have the content type" in refused(enveloped(change, content_type=asn1.COMPRESSED_DATA))
    told = refused(enveloped(lambda _: None, content_type="1.2.3.4"))
    assert told == "cms_profile encrypted content of type 1.2.3.4 (table 5.1)"


@pytest.mark.parametrize("suite", [cms.GCM_SUITE, cms.CBC_CMAC_SUITE], ids=["GCM", "CBC-CMAC"])
def test_changed_content_mac_or_attributes_are_refused_alike(suite: cms.EncryptionSuite) -> None:
    def flip(structure: Any) -> None:
        info = structure["auth_encrypted_content_info"]
        data = bytearray(bytes(info["encrypted_content"]))
        data[0] ^= 1
        info["encrypted_content"] = bytes(data)

    def mac(structure: Any) -> None:
        structure["mac"] = bytes(16)

    def attribute(structure: Any) -> None:
        structure["auth_attrs"] = [
            {"type": asn1.CONTENT_TYPE, "values": [ObjectIdentifier(asn1.DATA)]},
            {"type": "1.2.3.4", "values": [Null()]},
        ]

    for change in (flip, mac, attribute):
        assert refused(enveloped(change, suite)) == "cms_decryption the content was changed or is for another key"


def test_a_message_for_somebody_else_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="cms_recipient"):
        cms.unprotect(message(), pair("gwa"), [pair("smgw").certificate])


def test_more_recipients_than_any_profile_needs_are_refused() -> None:
    def many(structure: Any) -> None:
        kari(structure)["recipient_encrypted_keys"] = [kari(structure)["recipient_encrypted_keys"][0].copy()] * 17

    assert refused(enveloped(many)).startswith("cms_too_large")


# --- AES-CBC-CMAC, section 5.4 ---------------------------------------------------------------------------------------


def test_cbc_cmac_against_the_primitives() -> None:
    """K_enc || K_MAC, IV 0, padding of RFC 5652, CMAC over C || AAD: built here by hand."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.cmac import CMAC

    keys, aad = bytes(range(32)), b"\x31\x02ab"
    sealed, mac = ciphers.encrypt(cms.ContentCipher.AES128_CBC_CMAC, keys, b"", b"0123456789abcdef", aad)
    encryptor = Cipher(algorithms.AES(keys[:16]), modes.CBC(bytes(16))).encryptor()
    assert sealed == encryptor.update(b"0123456789abcdef" + b"\x10" * 16)
    expected = CMAC(algorithms.AES(keys[16:]))
    expected.update(sealed + aad)
    assert mac == expected.finalize()


def test_cbc_cmac_takes_parameters_only_authenticated() -> None:
    suite = cms.CBC_CMAC_SUITE
    assert opened(enveloped(lambda _: None, suite, explicit_iv=True)).content == CONTENT

    def parameters(iv: bytes, mac: int, *, attribute: bool = True) -> Callable[[Any], None]:
        def change(structure: Any) -> None:
            made = asn1.CbcCmacParameters({"iv": iv, "mac_length": mac})
            structure["auth_encrypted_content_info"]["content_encryption_algorithm"]["parameters"] = made
            found = [{"type": asn1.CONTENT_TYPE, "values": [ObjectIdentifier(asn1.DATA)]}]
            if attribute:
                found.append({"type": CBC_CMAC_PARAMETERS, "values": [made]})
            structure["auth_attrs"] = found

        return change

    assert refused(enveloped(parameters(bytes(8), 16), suite)) == "cms_profile an IV of 8 octets, expected 16 (5.4)"
    assert refused(enveloped(parameters(bytes(16), 12), suite)) == "cms_profile aes-MacLen 12, expected 16 (5.4)"
    told = refused(enveloped(parameters(bytes(16), 16, attribute=False), suite))
    assert told == "cms_profile the parameters are not among the authenticated attributes (5.4)"

    def swapped(structure: Any) -> None:
        parameters(b"\x01" * 16, 16)(structure)
        made = asn1.CbcCmacParameters({"iv": bytes(16), "mac_length": 16})
        structure["auth_encrypted_content_info"]["content_encryption_algorithm"]["parameters"] = made

    assert "not among the authenticated" in refused(enveloped(swapped, suite))


def test_an_explicit_iv_is_drawn_anew_and_hides_equal_content() -> None:
    entropy, seen = Counted(), set()
    for _ in range(10):
        sealed = cms.seal(
            CONTENT, asn1.DATA, pair("emt").certificate, suite=cms.CBC_CMAC_SUITE, entropy=entropy, explicit_iv=True
        )
        algorithm = asn1.AuthEnvelopedData.load(sealed)["auth_encrypted_content_info"]["content_encryption_algorithm"]
        seen.add(bytes(algorithm["parameters"].parse(asn1.CbcCmacParameters)["iv"]))
    assert len(seen) == 10
    assert {len(iv) for iv in seen} == {16}


# --- CompressedData and bounds ---------------------------------------------------------------------------------------


def packed(data: bytes, **changes: Any) -> bytes:
    structure = asn1.CompressedData.load(compress(b""))
    structure["encap_content_info"]["content"] = data
    for key, value in changes.items():
        structure[key] = value
    made: bytes = structure.dump(force=True)
    return made


def test_decompression_is_bounded_in_size_and_ratio() -> None:
    assert decompress(compress(CONTENT), LIMITS) == CONTENT
    assert decompress(compress(b""), LIMITS) == b""
    bomb = compress(bytes(10_000_000))
    assert len(bomb) < 11_000
    with pytest.raises(RemoteProtocolError, match="cms_too_large"):
        decompress(bomb, LIMITS)
    with pytest.raises(RemoteProtocolError, match="cms_too_large"):
        decompress(compress(CONTENT), cms.Limits(content_size=len(CONTENT) - 1))


def test_compressed_data_off_the_profile_is_refused() -> None:
    stream = zlib.compress(CONTENT)
    cases = {
        "cms_compression": packed(stream[:-1]), "cms_profile": packed(stream, version=1),
        "cms_algorithm": packed(stream, compression_algorithm={"algorithm": "1.2.3"}),
    }  # fmt: skip
    cases |= {"cms_compression ": packed(stream + b"x"), "cms_compression  ": packed(b"junk")}
    for reason, data in cases.items():
        with pytest.raises(RemoteProtocolError) as caught:
            decompress(data, LIMITS)
        assert caught.value.reason == reason.strip()


def test_size_depth_and_elements_are_bounded() -> None:
    data = message()
    assert refused(data, limits=cms.Limits(message_size=len(data) - 1)).startswith("cms_too_large")
    assert refused(data, limits=cms.Limits(content_size=len(CONTENT) - 1)).startswith("cms_too_large")
    assert refused(data, limits=cms.Limits(elements=10)) == "cms_too_large more elements than admitted"
    deep = b"\x30\x80" * 100_000
    assert refused(deep) == "cms_too_large nested deeper than 24"
    wide = ber.encode(0x30, b"\x05\x00" * 100_000)
    assert refused(wide) == "cms_too_large more elements than admitted"


@pytest.mark.parametrize(
    "data", [b"", b"\x30", b"\x30\x05\x00", b"\x04\x80\0\0", b"\x1f\x01\x00", b"\x30\x85" + bytes(9), b"\x30\x80\x05",
             b"\x24\x02\x05\x00", b"\x30\x00\x00", b"\x30\x82\x01"]
)  # fmt: skip
def test_what_is_no_ber_is_refused(data: bytes) -> None:
    assert refused(data).startswith("cms_malformed")


def test_certificates_without_a_usable_key_are_our_mistake() -> None:
    weak = pair("weak", ec.SECP224R1)
    with pytest.raises(LocalProtocolError, match=r"5\.2\.3"):
        cms.sign(CONTENT, asn1.DATA, weak)
    with pytest.raises(LocalProtocolError, match=r"5\.2\.3"):
        cms.seal(CONTENT, asn1.DATA, weak.certificate, suite=cms.GCM_SUITE, entropy=Counted())
    key = weak.private_key
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bare")])
    bare = x509.CertificateBuilder(subject, subject, key.public_key(), 1 << 65, NOW, NOW + timedelta(days=9))
    with pytest.raises(LocalProtocolError, match="subject key identifier"):
        cms.verify(message(), asn1.AUTH_ENVELOPED_DATA, [bare.sign(key, hashes.SHA256())], LIMITS)
