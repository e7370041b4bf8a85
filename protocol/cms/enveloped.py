"""
AuthEnvelopedData with ECKA-EG (section 5.3.2).

The sender makes an ephemeral key on the recipient's curve; X9.63 (TR-03111 section 4.3.3) turns the shared point's x
coordinate into a key that wraps the content's key (RFC 3394).  The shared info of the derivation is RFC 5753's
ECC-CMS-SharedInfo, with the wrapping algorithm and the length of its key: our reading, since TR-03111 leaves it to the
application; it is also what makes `openssl cms` agree once the key agreement's identifier is exchanged.
"""

from __future__ import annotations

from typing import Any, Protocol

from asn1crypto.core import ObjectIdentifier
from cryptography import x509
from cryptography.hazmat.primitives import keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF

from protocol.cms.ber import encode
from protocol.cms.ciphers import MAC_SIZE, decrypt, encrypt, iv_size, make_parameters, read_parameters
from protocol.cms.structures import (
    CONTENT_TYPE,
    DATA,
    EC_PUBLIC_KEY,
    AlgorithmIdentifier,
    Attribute,
    Attributes,
    AuthEnvelopedData,
    KeyAgreeRecipientIdentifier,
    KeyAgreeRecipientInfo,
    Limits,
    Originator,
    OriginatorPublicKey,
    RecipientEncryptedKey,
    RecipientInfo,
    RecipientKeyIdentifier,
    SharedInfo,
    attributes,
    few,
    has_parameters,
    load,
    present,
    reading,
    require,
)
from protocol.cms.suites import (
    CBC_CMAC_PARAMETERS,
    CURVE_OIDS,
    CURVES,
    WRAP_OIDS,
    WRAPS,
    ContentCipher,
    Digest,
    EncryptionSuite,
)
from protocol.errors import LocalProtocolError, RemoteProtocolError

_TABLE = "table 5.5"
_WHAT = "AuthEnvelopedData (RFC 5083, table 5.5)"
_SET_OF = 0x31


class Entropy(Protocol):
    """What draws random numbers: the security module (section 5.5), or a generator with a seed in a test."""

    def random(self, size: int) -> bytes:
        """So many random octets."""
        ...

    def ephemeral_key(self, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        """A fresh key for one message."""
        ...


class AgreementKey(Protocol):
    """A recipient's private key, behind the security module or in memory, and the certificate that it belongs to."""

    @property
    def certificate(self) -> x509.Certificate:
        """The recipient's encryption certificate."""
        ...

    def agree(self, peer: ec.EllipticCurvePublicKey) -> bytes:
        """The x coordinate of the shared point (ECKA, TR-03111 section 4.3), as long as the field."""
        ...


def seal(
    content: bytes,
    content_type: str,
    recipient: x509.Certificate,
    *,
    suite: EncryptionSuite,
    entropy: Entropy,
    explicit_iv: bool = False,
) -> bytes:
    """
    Encrypt `content` to the owner of a certificate: AuthEnvelopedData, DER.

    `explicit_iv` writes the parameters of CBC-CMAC (section 5.4), which section 5.3.2.2.3 leaves out.
    Raises LocalProtocolError for a certificate without a key that can be used.
    """
    public_key = recipient.public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or type(public_key.curve) not in CURVE_OIDS:
        raise LocalProtocolError("the recipient's certificate has no key on a curve of section 5.2.3")
    ephemeral = entropy.ephemeral_key(public_key.curve)
    keys = entropy.random(suite.cipher.keys_size)
    iv = entropy.random(iv_size(suite.cipher, explicit_iv=explicit_iv))
    algorithm = make_parameters(suite.cipher, iv)
    authenticated = _auth_attributes(content_type, None if suite.cipher.is_gcm or not iv else algorithm["parameters"])
    sealed, mac = encrypt(suite.cipher, keys, iv, content, _aad(authenticated))
    wrap = AlgorithmIdentifier({"algorithm": WRAP_OIDS[suite.wrap_size]})
    wrapping_key = _derive(ephemeral.exchange(ec.ECDH(), public_key), suite.kdf, suite.wrap_size, wrap)
    named = {"algorithm": EC_PUBLIC_KEY, "parameters": ObjectIdentifier(CURVE_OIDS[type(public_key.curve)])}
    rid = KeyAgreeRecipientIdentifier(
        "r_key_id", RecipientKeyIdentifier({"subject_key_identifier": key_identifier(recipient)})
    )
    encrypted = RecipientEncryptedKey({"rid": rid, "encrypted_key": keywrap.aes_key_wrap(wrapping_key, keys)})
    originator = OriginatorPublicKey({"algorithm": named, "public_key": _point(ephemeral.public_key())})
    kari = KeyAgreeRecipientInfo(
        {
            "version": 3,
            "originator": Originator("originator_key", originator),
            "key_encryption_algorithm": {"algorithm": suite.kdf.ecka_oid, "parameters": wrap},
            "recipient_encrypted_keys": [encrypted],
        }
    )
    fields: dict[str, Any] = {
        "version": 0,
        "recipient_infos": [RecipientInfo("kari", kari)],
        "auth_encrypted_content_info": {
            "content_type": content_type,
            "content_encryption_algorithm": algorithm,
            "encrypted_content": sealed,
        },
        "mac": mac,
    }
    if authenticated is not None:
        fields["auth_attrs"] = authenticated
    return bytes(AuthEnvelopedData(fields).dump())


def open_enveloped(data: bytes, key: AgreementKey, limits: Limits) -> tuple[bytes, str, EncryptionSuite]:
    """
    Decrypt AuthEnvelopedData: the content, its type, and the suite.

    Raises RemoteProtocolError: `cms_malformed`, `cms_too_large`, `cms_profile`, `cms_algorithm`, `cms_recipient`,
    `cms_decryption`.
    """
    message = load(AuthEnvelopedData, data, limits, _WHAT)
    with reading(_WHAT):
        require(message["version"].native == 0, f"version {message['version'].native}, expected 0 ({_TABLE})")
        info = message["auth_encrypted_content_info"]
        content_type = info["content_type"].dotted
        authenticated = message["auth_attrs"] if present(message["auth_attrs"]) else None
        found = {} if authenticated is None else attributes(authenticated, _TABLE)
        sealed, mac = _octets(info["encrypted_content"]), bytes(message["mac"])
        algorithm = info["content_encryption_algorithm"]
        recipients = list(few(message["recipient_infos"], "recipients"))
    if content_type != DATA or found:
        with reading("the content-type attribute (RFC 5083, 2.1)"):
            stated = found[CONTENT_TYPE].parse(ObjectIdentifier).dotted if CONTENT_TYPE in found else None
        require(stated == content_type, f"authAttrs do not have the content type {content_type} ({_TABLE})")
    cipher, iv = read_parameters(algorithm, found)
    require(len(mac) == MAC_SIZE, f"a MAC of {len(mac)} octets, expected 16 (5.3.2.2.3, 5.3.2.2.4)")
    aad = b"" if authenticated is None else encode(_SET_OF, authenticated.contents)
    keys, suite = _content_keys(recipients, key, cipher)
    return decrypt(cipher, keys, iv, sealed, aad, mac), content_type, suite


def recipients_of(data: bytes, limits: Limits) -> list[bytes]:
    """For whom AuthEnvelopedData is: the subject key identifiers.  Raises RemoteProtocolError as `open_enveloped`."""
    message = load(AuthEnvelopedData, data, limits, _WHAT)
    with reading(_WHAT):
        recipients = list(few(message["recipient_infos"], "recipients"))
        return [identifier for recipient in recipients for identifier, _ in _encrypted_keys(recipient.chosen)]


def key_identifier(certificate: x509.Certificate) -> bytes:
    """The subject key identifier.  Raises LocalProtocolError for a certificate without one."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound as error:
        raise LocalProtocolError("a certificate without a subject key identifier cannot be named in CMS") from error


def _octets(field: Any) -> bytes:
    return bytes(field) if present(field) else b""


def _auth_attributes(content_type: str, parameters: Any) -> Any:
    """RFC 5083 section 2.1: none for plain data, otherwise at least the content type."""
    found = []
    if content_type != DATA or parameters is not None:
        found.append(Attribute({"type": CONTENT_TYPE, "values": [ObjectIdentifier(content_type)]}))
    if parameters is not None:
        found.append(Attribute({"type": CBC_CMAC_PARAMETERS, "values": [parameters]}))
    return Attributes(found) if found else None


def _aad(authenticated: Any) -> bytes:
    return b"" if authenticated is None else bytes(authenticated.dump())


def _encrypted_keys(kari: Any) -> list[tuple[bytes, bytes]]:
    """Subject key identifier and wrapped keys of each recipient."""
    found = []
    for each in few(kari["recipient_encrypted_keys"], "recipients"):
        rid = each["rid"].chosen
        require(not present(rid["date"]), f"the recipient's identifier has a date ({_TABLE})")
        found.append((bytes(rid["subject_key_identifier"]), bytes(each["encrypted_key"])))
    return found


def _content_keys(recipients: Any, key: AgreementKey, cipher: ContentCipher) -> tuple[bytes, EncryptionSuite]:
    wanted = key_identifier(key.certificate)
    for recipient in recipients:
        with reading(_WHAT):
            kari = recipient.chosen
            require(kari["version"].native == 3, f"version {kari['version'].native} of the recipient ({_TABLE})")
            wrapped = next((each for identifier, each in _encrypted_keys(kari) if identifier == wanted), None)
            originator, algorithm = kari["originator"].chosen, kari["key_encryption_algorithm"]
        if wrapped is None:
            continue
        digest, wrap_size, wrap = _key_encryption(algorithm)
        peer = _originator_key(originator, key.certificate)
        require(wrap_size >= cipher.key_size, "the wrapping key is shorter than the content's (table 5.1)")
        wrapping_key = _derive(key.agree(peer), digest, wrap_size, wrap)
        return _unwrap(wrapping_key, wrapped, cipher), EncryptionSuite(digest, wrap_size, cipher)
    raise RemoteProtocolError("cms_recipient", "the message is for no key of ours (RecipientKeyIdentifier, table 5.5)")


def _key_encryption(algorithm: Any) -> tuple[Digest, int, Any]:
    with reading("KeyEncryptionAlgorithmIdentifier (table 5.5)"):
        oid = algorithm["algorithm"].dotted
        wrap = algorithm["parameters"].parse(AlgorithmIdentifier)
        wrap_oid, parametrised = wrap["algorithm"].dotted, has_parameters(wrap)
    digest = next((each for each in Digest if each.ecka_oid == oid), None)
    if digest is None:
        raise RemoteProtocolError("cms_algorithm", f"key agreement {oid} (5.3.2.2.1)")
    if wrap_oid not in WRAPS:
        raise RemoteProtocolError("cms_algorithm", f"key wrap {wrap_oid} (5.3.2.2.2)")
    require(not parametrised, "the key wrap has parameters (5.3.2.2.2)")
    return digest, WRAPS[wrap_oid], wrap


def _originator_key(originator: Any, certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    """The ephemeral key, a point of the recipient's curve: anything else could tell about the private key."""
    own = certificate.public_key()
    if not isinstance(own, ec.EllipticCurvePublicKey):
        raise LocalProtocolError("an encryption certificate has a key on an elliptic curve")
    with reading("OriginatorPublicKey (RFC 5652, 6.2.2)"):
        oid, point = originator["algorithm"]["algorithm"].dotted, bytes(originator["public_key"])
        named = None
        if has_parameters(originator["algorithm"]):
            named = originator["algorithm"]["parameters"].parse(ObjectIdentifier).dotted
    require(oid == EC_PUBLIC_KEY, f"the ephemeral key is {oid}, expected id-ecPublicKey ({_TABLE})")
    require(
        named is None or CURVES.get(named) is type(own.curve), f"namedCurve {named} is not the recipient's ({_TABLE})"
    )
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(own.curve, point)
    except ValueError:
        raise RemoteProtocolError("cms_profile", f"the ephemeral key is no point of the curve ({_TABLE})") from None


def _derive(shared: bytes, digest: Digest, size: int, wrap: Any) -> bytes:
    info = SharedInfo({"key_info": wrap, "supp_pub_info": (8 * size).to_bytes(4, "big")})
    return X963KDF(digest.algorithm(), size, info.dump()).derive(shared)


def _unwrap(wrapping_key: bytes, wrapped: bytes, cipher: ContentCipher) -> bytes:
    try:
        keys = keywrap.aes_key_unwrap(wrapping_key, wrapped)
    except (keywrap.InvalidUnwrap, ValueError):
        keys = b""
    if len(keys) != cipher.keys_size:
        raise RemoteProtocolError("cms_decryption", "the content's key cannot be unwrapped (RFC 3394, 2.2)")
    return keys


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
