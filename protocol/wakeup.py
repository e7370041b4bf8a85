"""
The wake-up message, version 1 (BSI TR-03109-1, detailed specifications 2.0, chapter 2, tables 2.1 and 2.2).

The administrator cannot call a gateway; it sends this datagram, and the gateway opens the management channel.  Octets:

    "WU" | version 01h | recipient (9) | timestamp (8) | 12 x 0Bh | 01h | n | OID (n) | r | s

The recipient's number begins with its highest octet, the timestamp with its lowest one.  The signature is over
everything before the 01h that says how it is written: plain, r and s as long as the key's field (TR-03111, 5.2.2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from protocol.cms import Digest, SignatureKey
from protocol.errors import LocalProtocolError, RemoteProtocolError

SIZE_MAX: Final = 256
_HEADER: Final = b"WU"
_VERSION: Final = 1
_MEDIUM: Final = 0x0E  # communication (DIN 43849)
_PADDING: Final = b"\x0b" * 12
_PLAIN: Final = 1
_SIGNED_SIZE: Final = 32
_OID_SIZE_MAX: Final = 14
_BLOCK_MAX: Final = 0xFE
_NUMBER_MAX: Final = 99_999_999
_ID: Final = re.compile(r"E([A-Z]{3})([0-9A-F]{2})([0-9]{8})")
# ecdsa-plain-signatures 0.4.0.127.0.7.1.1.4.1.x (TR-03111, 5.2.1.1), as content octets of an OBJECT IDENTIFIER.
_ECDSA_PLAIN: Final = bytes.fromhex("04007f000701010401")
_OIDS: Final = {
    Digest.SHA256: _ECDSA_PLAIN + b"\x03", Digest.SHA384: _ECDSA_PLAIN + b"\x04", Digest.SHA512: _ECDSA_PLAIN + b"\x05",
}  # fmt: skip
_DIGESTS: Final = {oid: digest for digest, oid in _OIDS.items()}


def _bad(detail: str) -> RemoteProtocolError:
    return RemoteProtocolError("bad_wakeup", f"{detail} (table 2.1)")


@dataclass(frozen=True, slots=True)
class WakeUp:
    """
    A wake-up message whose signature was not checked yet; `timestamp_s` is when it was made (Unix, s).

    `signature` is r and s, plain; `signed` the octets that it is over.
    """

    recipient: str
    timestamp_s: int
    digest: Digest
    signature: bytes
    signed: bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> WakeUp:
        """Read a datagram.  Raises RemoteProtocolError `bad_wakeup`, which says which field does not fit."""
        if not data.startswith(_HEADER):
            raise _bad("Header: expected WU")
        if not _SIGNED_SIZE + 3 < len(data) <= SIZE_MAX:
            raise _bad(f"{len(data)} octets, expected {_SIGNED_SIZE + 4} to {SIZE_MAX}")
        if data[2] != _VERSION:
            raise _bad(f"VersionId {data[2]}, expected {_VERSION}")
        if data[20:_SIGNED_SIZE] != _PADDING:
            raise _bad("Padding: expected twelve times 0Bh")
        recipient = _read_recipient(data[3:12])
        timestamp_s = int.from_bytes(data[12:20], "little", signed=True)
        if data[_SIGNED_SIZE] != _PLAIN:
            raise _bad(f"SignatureFormat {data[_SIGNED_SIZE]}, expected {_PLAIN}")
        size, rest = data[_SIGNED_SIZE + 1], data[_SIGNED_SIZE + 2 :]
        if not 1 <= size <= _OID_SIZE_MAX:
            raise _bad(f"SignatureAlgorithmOIDLength {size}, expected 1 to {_OID_SIZE_MAX}")
        digest = _DIGESTS.get(rest[:size])
        if digest is None:
            raise _bad("SignatureAlgorithmOID: expected ecdsa-plain-SHA256, -SHA384 or -SHA512")
        return cls(recipient, timestamp_s, digest, rest[size:], data[:_SIGNED_SIZE])

    def verify(self, certificate: x509.Certificate) -> None:
        """
        Return if the administrator's signature certificate (GWA_WAN_SIG_CRT) belongs to the signature.

        Its curve says how long r and s are, the message which hash (REQ.WakeUp.Datenstruktur.20, .30); a hash shorter
        than the key is refused.  Raises RemoteProtocolError `bad_wakeup` or `wakeup_signature`.
        """
        public_key = certificate.public_key()
        if not isinstance(public_key, ec.EllipticCurvePublicKey):
            raise LocalProtocolError("a signature certificate has a key on an elliptic curve")
        size = _field_size(public_key.curve)
        if len(self.signature) != 2 * size:
            raise _bad(f"Signature of {len(self.signature)} octets, expected {2 * size}")
        wanted = Digest.for_curve(public_key.curve)
        if self.digest.algorithm().digest_size < wanted.algorithm().digest_size:
            raise _bad("SignatureAlgorithmOID: a hash shorter than the key")
        r, s = (int.from_bytes(part, "big") for part in (self.signature[:size], self.signature[size:]))
        try:
            public_key.verify(encode_dss_signature(r, s), self.signed, ec.ECDSA(self.digest.algorithm()))
        except InvalidSignature:
            raise RemoteProtocolError("wakeup_signature", "the signature does not hold (2.1)") from None


def make_wakeup(gateway_id: str, timestamp_s: int, key: SignatureKey) -> bytes:
    """
    The datagram that wakes a gateway up, signed with the administrator's key.

    Raises LocalProtocolError for an id that is no gateway's (DIN 43849: 14 characters such as ESTK0100000001).
    """
    match = _ID.fullmatch(gateway_id)
    if match is None or int(match[2], 16) > _BLOCK_MAX:
        raise LocalProtocolError("expected a gateway's id, 14 characters such as ESTK0100000001")
    public_key = key.certificate.public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise LocalProtocolError("a signature certificate has a key on an elliptic curve")
    number = int(match[3]).to_bytes(4, "big")
    recipient = bytes([_MEDIUM]) + match[1].encode() + bytes.fromhex(match[2]) + number
    signed = _HEADER + bytes([_VERSION]) + recipient + timestamp_s.to_bytes(8, "little", signed=True) + _PADDING
    digest, size = Digest.for_curve(public_key.curve), _field_size(public_key.curve)
    r, s = decode_dss_signature(key.sign(signed, digest))
    oid = _OIDS[digest]
    return signed + bytes([_PLAIN, len(oid)]) + oid + r.to_bytes(size, "big") + s.to_bytes(size, "big")


def _read_recipient(octets: bytes) -> str:
    number = int.from_bytes(octets[5:], "big")
    manufacturer = octets[1:4]
    if octets[0] != _MEDIUM or not manufacturer.isalpha() or not manufacturer.isupper():
        raise _bad("RecipientId: expected medium 0Eh and three capital letters")
    if octets[4] > _BLOCK_MAX or number > _NUMBER_MAX:
        raise _bad("RecipientId: expected a block up to FEh and a number of eight digits")
    return f"E{manufacturer.decode('ascii')}{octets[4]:02X}{number:08d}"


def _field_size(curve: ec.EllipticCurve) -> int:
    return (curve.key_size + 7) // 8
