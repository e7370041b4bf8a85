"""
The structures of chapter 5 in asn1crypto, each with the fields that tables 5.5 and 5.6 leave of it, and bounds.

A field that a table forbids ("x") is not in the structure, so a message that has it does not parse (`Structure`).
Where a table admits one variant of a CHOICE, the CHOICE has that one only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any as AnyType
from typing import Final

from asn1crypto.core import (
    Any,
    Choice,
    GeneralizedTime,
    Integer,
    ObjectIdentifier,
    OctetBitString,
    OctetString,
    Sequence,
    SequenceOf,
    SetOf,
    Void,
)

from protocol.cms.ber import is_one_element, to_definite
from protocol.errors import RemoteProtocolError

DATA: Final = "1.2.840.113549.1.7.1"
SIGNED_DATA: Final = "1.2.840.113549.1.7.2"
AUTH_ENVELOPED_DATA: Final = "1.2.840.113549.1.9.16.1.23"
COMPRESSED_DATA: Final = "1.2.840.113549.1.9.16.1.9"
CONTENT_TYPE: Final = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST: Final = "1.2.840.113549.1.9.4"
EC_PUBLIC_KEY: Final = "1.2.840.10045.2.1"

_IN_MESSAGE_MAX: Final = 16  # recipients, certificates, attributes: more than any profile needs


@dataclass(frozen=True, slots=True)
class Limits:
    """
    How much a received message may cost.

    `message_size` bounds what is parsed, `content_size` what comes out, both in octets; `ratio` is how many times
    larger decompression may make the content (deflate reaches 1032, COSEM XML about 20); `depth` and `elements` bound
    the ASN.1.  Memory is a small multiple of `message_size` plus `content_size`.
    """

    message_size: int = 16 * 2**20
    content_size: int = 32 * 2**20
    ratio: int = 200
    depth: int = 24
    elements: int = 20_000


class Structure(Sequence):
    """
    A SEQUENCE with its own fields and no other element.

    asn1crypto keeps what is behind the last field, and drops what is behind the value in an EXPLICIT tag: fields that
    tables 5.5 and 5.6 forbid there (unsignedAttrs, unauthAttrs) would pass, and nothing authenticates them.
    """

    children: AnyType

    def _parse_children(self, recurse: bool = False) -> None:
        super()._parse_children(recurse)
        children, self.children = self.children, None
        if len(children) > len(self._fields):
            raise ValueError("elements behind the last field")
        for (_, _, *options), child in zip(self._fields, children, strict=True):
            # What is not parsed yet is a tuple: class, method, tag, header, contents, trailer, ...
            if options and "explicit" in options[0] and isinstance(child, tuple) and not is_one_element(child[4]):
                raise ValueError("an EXPLICIT tag with more than its value")
        self.children = children


class AlgorithmIdentifier(Structure):  # noqa: D101 - RFC 5280 section 4.1.1.2
    _fields = [("algorithm", ObjectIdentifier), ("parameters", Any, {"optional": True})]


class Values(SetOf):  # noqa: D101
    _child_spec = Any


class Attribute(Structure):  # noqa: D101 - RFC 5652 section 5.3
    _fields = [("type", ObjectIdentifier), ("values", Values)]


class Attributes(SetOf):  # noqa: D101
    _child_spec = Attribute


class EncapsulatedContentInfo(Structure):  # noqa: D101 - RFC 5652 section 5.2
    _fields = [("content_type", ObjectIdentifier), ("content", OctetString, {"explicit": 0, "optional": True})]


# --- AuthEnvelopedData: RFC 5083, RFC 5652 section 6.2.2, table 5.5 --------------------------------------------------


class OriginatorPublicKey(Structure):  # noqa: D101
    _fields = [("algorithm", AlgorithmIdentifier), ("public_key", OctetBitString)]


class Originator(Choice):  # noqa: D101
    _alternatives = [("originator_key", OriginatorPublicKey, {"implicit": 1})]


class OtherKeyAttribute(Structure):  # noqa: D101
    _fields = [("id", ObjectIdentifier), ("attribute", Any, {"optional": True})]


class RecipientKeyIdentifier(Structure):
    """`date` is parsed in order to be refused by name: between two optional fields a parser takes it for the other."""

    _fields = [
        ("subject_key_identifier", OctetString),
        ("date", GeneralizedTime, {"optional": True}),
        ("other", OtherKeyAttribute, {"optional": True}),
    ]


class KeyAgreeRecipientIdentifier(Choice):  # noqa: D101
    _alternatives = [("r_key_id", RecipientKeyIdentifier, {"implicit": 0})]


class RecipientEncryptedKey(Structure):  # noqa: D101
    _fields = [("rid", KeyAgreeRecipientIdentifier), ("encrypted_key", OctetString)]


class RecipientEncryptedKeys(SequenceOf):  # noqa: D101
    _child_spec = RecipientEncryptedKey


class KeyAgreeRecipientInfo(Structure):  # noqa: D101
    _fields = [
        ("version", Integer),
        ("originator", Originator, {"explicit": 0}),
        ("key_encryption_algorithm", AlgorithmIdentifier),
        ("recipient_encrypted_keys", RecipientEncryptedKeys),
    ]


class RecipientInfo(Choice):  # noqa: D101
    _alternatives = [("kari", KeyAgreeRecipientInfo, {"implicit": 1})]


class RecipientInfos(SetOf):  # noqa: D101
    _child_spec = RecipientInfo


class EncryptedContentInfo(Structure):  # noqa: D101
    _fields = [
        ("content_type", ObjectIdentifier),
        ("content_encryption_algorithm", AlgorithmIdentifier),
        ("encrypted_content", OctetString, {"implicit": 0, "optional": True}),
    ]


class AuthEnvelopedData(Structure):  # noqa: D101
    _fields = [
        ("version", Integer),
        ("recipient_infos", RecipientInfos),
        ("auth_encrypted_content_info", EncryptedContentInfo),
        ("auth_attrs", Attributes, {"implicit": 1, "optional": True}),
        ("mac", OctetString),
    ]


class SharedInfo(Structure):
    """ECC-CMS-SharedInfo (RFC 5753 section 7.2) without entityUInfo, since table 5.5 has no ukm."""

    _fields = [("key_info", AlgorithmIdentifier), ("supp_pub_info", OctetString, {"explicit": 2})]


class GcmParameters(Structure):
    """RFC 5084 section 3.2; `icv_length` defaults to 12 there, so that REQ.CMS.AuthEnvelopedData.70 has it written."""

    _fields = [("nonce", OctetString), ("icv_length", Integer, {"default": 12})]


class CbcCmacParameters(Structure):
    """Section 5.4, CBC-CMAC-Param."""

    _fields = [("iv", OctetString), ("mac_length", Integer, {"default": 16})]


# --- SignedData: RFC 5652 section 5, table 5.6 -----------------------------------------------------------------------


class AlgorithmIdentifiers(SetOf):  # noqa: D101
    _child_spec = AlgorithmIdentifier


class SignerIdentifier(Choice):  # noqa: D101
    _alternatives = [("subject_key_identifier", OctetString, {"implicit": 0})]


class SignerInfo(Structure):  # noqa: D101
    _fields = [
        ("version", Integer),
        ("sid", SignerIdentifier),
        ("digest_algorithm", AlgorithmIdentifier),
        ("signed_attrs", Attributes, {"implicit": 0}),
        ("signature_algorithm", AlgorithmIdentifier),
        ("signature", OctetString),
    ]


class SignerInfos(SetOf):  # noqa: D101
    _child_spec = SignerInfo


class SignedData(Structure):  # noqa: D101
    _fields = [
        ("version", Integer),
        ("digest_algorithms", AlgorithmIdentifiers),
        ("encap_content_info", EncapsulatedContentInfo),
        ("certificates", Values, {"implicit": 0, "optional": True}),
        ("signer_infos", SignerInfos),
    ]


class ContentInfo(Structure):
    """RFC 5652 section 3; here it is always the outermost SignedData (REQ.CMS.ContentInfo.20)."""

    _fields = [("content_type", ObjectIdentifier), ("content", SignedData, {"explicit": 0})]


class CompressedData(Structure):  # noqa: D101 - RFC 3274 section 1.1
    _fields = [
        ("version", Integer),
        ("compression_algorithm", AlgorithmIdentifier),
        ("encap_content_info", EncapsulatedContentInfo),
    ]


# --- reading ---------------------------------------------------------------------------------------------------------


@contextmanager
def reading(what: str) -> Iterator[None]:
    """What asn1crypto raises on the way, as RemoteProtocolError `cms_malformed`: it parses a field when it is asked."""
    try:
        yield
    except (ValueError, TypeError):
        # Without the cause: its text can quote the bytes.
        raise RemoteProtocolError("cms_malformed", f"not the structure of {what}") from None


def load(kind: AnyType, data: bytes, limits: Limits, what: str) -> AnyType:
    """One structure of the kind from BER.  Raises RemoteProtocolError `cms_malformed`, `cms_too_large`."""
    if len(data) > limits.message_size:
        raise RemoteProtocolError("cms_too_large", f"{len(data)} octets, at most {limits.message_size}")
    definite = to_definite(data, depth_max=limits.depth, elements_max=limits.elements)
    with reading(what):
        return kind.load(definite, strict=True)


def require(fits: bool, detail: str) -> None:
    """Raises RemoteProtocolError `cms_profile` with the field and its table where a message does not fit."""
    if not fits:
        raise RemoteProtocolError("cms_profile", detail)


def few(items: AnyType, what: str) -> AnyType:
    """The items of a SET OF or SEQUENCE OF, a bounded number."""
    if len(items) > _IN_MESSAGE_MAX:
        raise RemoteProtocolError("cms_too_large", f"{len(items)} {what}, at most {_IN_MESSAGE_MAX}")
    return items


def attributes(items: AnyType, table: str) -> dict[str, AnyType]:
    """The single value of each attribute by type; none twice (RFC 5652 section 11)."""
    found: dict[str, AnyType] = {}
    for item in few(items, "attributes"):
        kind, values = item["type"].dotted, item["values"]
        require(len(values) == 1 and kind not in found, f"attribute {kind} has not exactly one value ({table})")
        found[kind] = values[0]
    return found


def present(field: AnyType) -> bool:
    """Whether an optional field is there."""
    return not isinstance(field, Void)


def has_parameters(algorithm: AnyType) -> bool:
    """Whether an AlgorithmIdentifier has parameters, an ASN.1 NULL included."""
    return present(algorithm["parameters"])
