"""
Authenticated content encryption: AES-GCM (RFC 5084) and AES-CBC with CMAC (section 5.4).

`aad` is the DER encoding of authAttrs with the tag of SET OF (RFC 5083 section 2.2), empty without attributes.  The
CMAC is over C || AAD (REQ.CMS.AesCbcCmac.30).  The MAC is checked before anything is decrypted.
"""

from __future__ import annotations

from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import cmac, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocol.cms.structures import (
    AlgorithmIdentifier,
    CbcCmacParameters,
    GcmParameters,
    has_parameters,
    reading,
    require,
)
from protocol.cms.suites import CBC_CMAC_PARAMETERS, ContentCipher
from protocol.errors import RemoteProtocolError

MAC_SIZE = 16
_NONCE_SIZE = 12
_BLOCK_SIZE = 16
_ZERO_IV = bytes(_BLOCK_SIZE)


def iv_size(cipher: ContentCipher, *, explicit_iv: bool) -> int:
    """Random octets that a message needs beside its keys."""
    return _NONCE_SIZE if cipher.is_gcm else _BLOCK_SIZE if explicit_iv else 0


def make_parameters(cipher: ContentCipher, iv: bytes) -> Any:
    """The AlgorithmIdentifier; an empty `iv` for CBC-CMAC leaves the parameters out (REQ.CMS.AuthEnvelopedData.50)."""
    fields: dict[str, Any] = {"algorithm": cipher.oid}
    if cipher.is_gcm:
        fields["parameters"] = GcmParameters({"nonce": iv, "icv_length": MAC_SIZE})
    elif iv:
        fields["parameters"] = CbcCmacParameters({"iv": iv, "mac_length": MAC_SIZE})
    return AlgorithmIdentifier(fields)


def read_parameters(algorithm: Any, attributes: dict[str, Any]) -> tuple[ContentCipher, bytes]:
    """
    The cipher and the IV of a received message; `attributes` are its authAttrs.

    Raises RemoteProtocolError `cms_algorithm`, `cms_profile`, `cms_malformed`.
    """
    with reading("ContentEncryptionAlgorithmIdentifier (table 5.5)"):
        oid, parametrised = algorithm["algorithm"].dotted, has_parameters(algorithm)
    cipher = next((each for each in ContentCipher if each.oid == oid), None)
    if cipher is None:
        raise RemoteProtocolError("cms_algorithm", f"content encryption {oid} (table 5.1)")
    if cipher.is_gcm:
        require(parametrised, "GCM without its parameters (5.3.2.2.4)")
        with reading("GCMParameters (RFC 5084, 3.2)"):
            gcm = algorithm["parameters"].parse(GcmParameters)
            nonce, icv_size = bytes(gcm["nonce"]), gcm["icv_length"].native
        require(len(nonce) == _NONCE_SIZE, f"a nonce of {len(nonce)} octets, expected 12 (5.3.2.2.4)")
        require(icv_size == MAC_SIZE, f"aes-ICVlen {icv_size}, expected 16 (5.3.2.2.4)")
        return cipher, nonce
    if not parametrised:
        return cipher, _ZERO_IV
    with reading("CBC-CMAC-Param (5.4)"):
        written = algorithm["parameters"].dump()
        cbc = algorithm["parameters"].parse(CbcCmacParameters)
        iv, mac_size = bytes(cbc["iv"]), cbc["mac_length"].native
        authenticated = attributes[CBC_CMAC_PARAMETERS].dump() if CBC_CMAC_PARAMETERS in attributes else None
    require(len(iv) == _BLOCK_SIZE, f"an IV of {len(iv)} octets, expected 16 (5.4)")
    require(mac_size == MAC_SIZE, f"aes-MacLen {mac_size}, expected 16 (5.4)")
    require(
        authenticated == written,
        "the parameters are not among the authenticated attributes (5.4)",
    )
    return cipher, iv


def encrypt(cipher: ContentCipher, keys: bytes, iv: bytes, content: bytes, aad: bytes) -> tuple[bytes, bytes]:
    """The encrypted content and the MAC of 16 octets."""
    if cipher.is_gcm:
        sealed = AESGCM(keys).encrypt(iv, content, aad)
        return sealed[:-MAC_SIZE], sealed[-MAC_SIZE:]
    encryption_key, mac_key = keys[: cipher.key_size], keys[cipher.key_size :]
    padder = padding.PKCS7(8 * _BLOCK_SIZE).padder()
    encryptor = Cipher(algorithms.AES(encryption_key), modes.CBC(iv or _ZERO_IV)).encryptor()
    sealed = encryptor.update(padder.update(content) + padder.finalize()) + encryptor.finalize()
    return sealed, _cmac(mac_key, sealed, aad).finalize()


def decrypt(cipher: ContentCipher, keys: bytes, iv: bytes, sealed: bytes, aad: bytes, mac: bytes) -> bytes:
    """Inverse of `encrypt`.  Raises RemoteProtocolError `cms_decryption`, the same for every cause."""
    try:
        if cipher.is_gcm:
            return AESGCM(keys).decrypt(iv, sealed + mac, aad)
        encryption_key, mac_key = keys[: cipher.key_size], keys[cipher.key_size :]
        _cmac(mac_key, sealed, aad).verify(mac)
        decryptor = Cipher(algorithms.AES(encryption_key), modes.CBC(iv)).decryptor()
        unpadder = padding.PKCS7(8 * _BLOCK_SIZE).unpadder()
        padded = decryptor.update(sealed) + decryptor.finalize()
        return unpadder.update(padded) + unpadder.finalize()
    except (InvalidTag, InvalidSignature, ValueError):
        raise RemoteProtocolError("cms_decryption", "the content was changed or is for another key") from None


def _cmac(key: bytes, sealed: bytes, aad: bytes) -> cmac.CMAC:
    mac = cmac.CMAC(algorithms.AES(key))
    mac.update(sealed)
    mac.update(aad)
    return mac
