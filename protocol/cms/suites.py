"""
The algorithms of chapter 5: suites by name, object identifiers, curves.

Tables 5.1 and 5.2 name the two suites for encryption and the one for signatures that everybody has; the longer keys and
hashes beside them are those that sections 5.3.2.2 and 5.3.3.2 recommend.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

_BSI: Final = "0.4.0.127.0.7"
_ECKA_EG_X963: Final = f"{_BSI}.1.1.5.1.1"
_AUTH_ENCRYPTION: Final = f"{_BSI}.1.3.1.1"
# Section 5.4 prints this one without `algorithms(1)`; that of the other three is taken, whose next number it is.
CBC_CMAC_PARAMETERS: Final = f"{_AUTH_ENCRYPTION}.1"
_NIST_AES: Final = "2.16.840.1.101.3.4.1"

# Section 5.2.3, by the object identifier.
CURVES: Final[dict[str, type[ec.EllipticCurve]]] = {
    "1.2.840.10045.3.1.7": ec.SECP256R1,
    "1.3.132.0.34": ec.SECP384R1,
    "1.3.36.3.3.2.8.1.1.7": ec.BrainpoolP256R1,
    "1.3.36.3.3.2.8.1.1.11": ec.BrainpoolP384R1,
    "1.3.36.3.3.2.8.1.1.13": ec.BrainpoolP512R1,
}
CURVE_OIDS: Final = {curve: oid for oid, curve in CURVES.items()}


class Digest(Enum):
    """A hash with the identifiers that go with it: id-sha, ecdsa-with-SHA, ecka-eg-X963KDF-SHA (TR-03111)."""

    SHA256 = ("2.16.840.1.101.3.4.2.1", "1.2.840.10045.4.3.2", f"{_ECKA_EG_X963}.3", hashes.SHA256)
    SHA384 = ("2.16.840.1.101.3.4.2.2", "1.2.840.10045.4.3.3", f"{_ECKA_EG_X963}.4", hashes.SHA384)
    SHA512 = ("2.16.840.1.101.3.4.2.3", "1.2.840.10045.4.3.4", f"{_ECKA_EG_X963}.5", hashes.SHA512)

    def __init__(self, oid: str, ecdsa_oid: str, ecka_oid: str, algorithm: type[hashes.HashAlgorithm]) -> None:
        self.oid = oid
        self.ecdsa_oid = ecdsa_oid
        self.ecka_oid = ecka_oid
        self.algorithm = algorithm

    @classmethod
    def for_curve(cls, curve: ec.EllipticCurve) -> Digest:
        """The hash as long as the curve's order: no signature is weaker than its key."""
        return cls.SHA256 if curve.key_size <= 256 else cls.SHA384 if curve.key_size <= 384 else cls.SHA512


class ContentCipher(Enum):
    """Content encryption: the identifier, the length of a key in octets, whether it is GCM (else CBC-CMAC)."""

    AES128_GCM = (f"{_NIST_AES}.6", 16, True)
    AES192_GCM = (f"{_NIST_AES}.26", 24, True)
    AES256_GCM = (f"{_NIST_AES}.46", 32, True)
    AES128_CBC_CMAC = (f"{_AUTH_ENCRYPTION}.2", 16, False)
    AES192_CBC_CMAC = (f"{_AUTH_ENCRYPTION}.3", 24, False)
    AES256_CBC_CMAC = (f"{_AUTH_ENCRYPTION}.4", 32, False)

    def __init__(self, oid: str, key_size: int, is_gcm: bool) -> None:
        self.oid = oid
        self.key_size = key_size
        self.is_gcm = is_gcm

    @property
    def keys_size(self) -> int:
        """Octets that are wrapped: K for GCM, K_enc || K_MAC for CBC-CMAC."""
        return self.key_size if self.is_gcm else 2 * self.key_size


WRAPS: Final = {f"{_NIST_AES}.5": 16, f"{_NIST_AES}.25": 24, f"{_NIST_AES}.45": 32}  # id-aesXXX-wrap: octets of the key
WRAP_OIDS: Final = {size: oid for oid, size in WRAPS.items()}


@dataclass(frozen=True, slots=True)
class EncryptionSuite:
    """How content is encrypted: hash of the key derivation, octets of the wrapping key, cipher (table 5.1)."""

    kdf: Digest
    wrap_size: int
    cipher: ContentCipher


GCM_SUITE: Final = EncryptionSuite(Digest.SHA256, 16, ContentCipher.AES128_GCM)  # CMS_ECKAEG_AES_128_GCM
CBC_CMAC_SUITE: Final = EncryptionSuite(Digest.SHA256, 16, ContentCipher.AES128_CBC_CMAC)  # CMS_ECKAEG_AES_128_CBCCMAC
