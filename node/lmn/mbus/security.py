"""
Security modes of EN 13757-7 / OMS volume 2: 5 (AES-CBC), 7 (AES-CBC and CMAC with derived keys), 10 (AES-CCM).

Mode 5 has no check sum under the key: that the plaintext begins 2F 2F is the only sign of the right key.  Mode 7
derives a fresh pair of keys from the message counter and authenticates the whole transport layer in the fragmentation
layer (AFL) before anything is decrypted.  Mode 10 does both in one step.  The extended link layer has a session
encryption of its own (AES-CTR).  Whatever fails raises; no half-checked octets leave this file.
"""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, CTR
from cryptography.hazmat.primitives.cmac import CMAC

from node.lmn.mbus.device import DeviceAddress
from protocol.errors import RemoteProtocolError

BLOCK_SIZE: Final = 16
VERIFICATION: Final = b"\x2f\x2f"
MODE_NONE: Final = 0
MODE_5: Final = 5
MODE_7: Final = 7
MODE_10: Final = 10

# Derivation constants of the key derivation function A (EN 13757-7 clause 9.6.2).
DERIVE_ENCRYPTION_FROM_METER: Final = 0x00
DERIVE_MAC_FROM_METER: Final = 0x01

# AFL authentication types (EN 13757-7 table 6): octets of AES-CMAC.
CMAC_SIZES: Final = {3: 2, 4: 4, 5: 8, 6: 12, 7: 16}
# MACs of two and four octets are no authentication any more (OMS profile B asks for eight).
CMAC_SIZE_MIN: Final = 8


def cmac(key: bytes, data: bytes) -> bytes:
    """AES-128-CMAC (RFC 4493), 16 octets."""
    mac = CMAC(AES(key))
    mac.update(data)
    return mac.finalize()


def derive(key: bytes, constant: int, counter: bytes, address: DeviceAddress) -> bytes:
    """Key derivation function A: the meter's key, a constant, the message counter as sent, the meter's number."""
    number = address.to_transport()[:4]
    return cmac(key, bytes([constant]) + counter + number + b"\x07" * 7)


def verify_cmac(key: bytes, data: bytes, mac: bytes) -> None:
    """Compare in constant time.  Raises RemoteProtocolError where the MAC is another or too short."""
    if len(mac) < CMAC_SIZE_MIN:
        raise RemoteProtocolError("mac_too_short", f"{len(mac)} octets")
    if not hmac.compare_digest(cmac(key, data)[: len(mac)], mac):
        raise RemoteProtocolError("mac_mismatch", "wrong key or altered telegram")


def mode5_vector(address: DeviceAddress, access: int) -> bytes:
    """Initialisation vector of mode 5: manufacturer, number, version, type, then the access number eight times."""
    return address.to_link() + bytes([access]) * 8


def decrypt_cbc(key: bytes, vector: bytes, data: bytes, block_count: int) -> bytes:
    """
    The first `block_count` blocks of `data`, decrypted and checked for 2F 2F.

    Raises RemoteProtocolError where there are fewer octets than declared or the key is wrong.
    """
    size = block_count * BLOCK_SIZE
    if len(data) < size:
        raise RemoteProtocolError("ciphertext_short", f"{block_count} blocks declared, {len(data)} octets there")
    decryptor = Cipher(AES(key), CBC(vector)).decryptor()
    plain = decryptor.update(data[:size]) + decryptor.finalize()
    if plain[:2] != VERIFICATION:
        raise RemoteProtocolError("wrong_key", "the plaintext does not begin 2F 2F")
    return plain


def encrypt_cbc(key: bytes, vector: bytes, plain: bytes) -> bytes:
    """The other direction, for simulated meters and commands; `plain` is whole blocks beginning 2F 2F."""
    encryptor = Cipher(AES(key), CBC(vector)).encryptor()
    return encryptor.update(plain) + encryptor.finalize()


def ell_vector(address: DeviceAddress, communication: int, session: bytes) -> bytes:
    """Counter block of the extended link layer: M, A, CC, session number, frame number and block counter 0."""
    return address.to_link() + bytes([communication]) + session + b"\0\0\0"


def crypt_ctr(key: bytes, vector: bytes, data: bytes) -> bytes:
    """AES-CTR, the same in both directions."""
    cipher = Cipher(AES(key), CTR(vector)).encryptor()
    return cipher.update(data) + cipher.finalize()


def mode10_nonce(address: DeviceAddress, counter: bytes) -> bytes:
    """13 octets (BSI details table 10.1): address as on the link, 00, message counter most significant octet first."""
    return address.to_link() + b"\0" + counter[::-1]


def decrypt_ccm(key: bytes, nonce: bytes, data: bytes, associated: bytes, tag_size: int) -> bytes:
    """Ciphertext and tag to plaintext.  Raises RemoteProtocolError where the tag does not fit."""
    if len(data) < tag_size:
        raise RemoteProtocolError("ciphertext_short", "no room for the authentication tag")
    try:
        return AESCCM(key, tag_length=tag_size).decrypt(nonce, data, associated)
    except InvalidTag:
        raise RemoteProtocolError("mac_mismatch", "wrong key or altered telegram") from None


def encrypt_ccm(key: bytes, nonce: bytes, plain: bytes, associated: bytes, tag_size: int) -> bytes:
    """The other direction."""
    return AESCCM(key, tag_length=tag_size).encrypt(nonce, plain, associated)
