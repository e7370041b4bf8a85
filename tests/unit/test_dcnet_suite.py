"""The primitives against the published vectors of their standards."""

import hashlib
import hmac
from typing import Any

import pytest

from protocol.dcnet.crypto.suite import StandardSuite, derive, digest, mac_equal
from protocol.errors import RemoteProtocolError

SUITE = StandardSuite()


def test_x25519_rfc_7748_section_6_1() -> None:
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    shared = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert SUITE.public_key(alice).hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    extracted = hmac.digest(b"salt", shared, hashlib.sha256)  # HKDF-Extract, RFC 5869 section 2.2
    assert SUITE.agree(alice, SUITE.public_key(bob), b"salt") == extracted
    assert SUITE.agree(bob, SUITE.public_key(alice), b"salt") == extracted


def test_aes_256_ctr_nist_sp_800_38a_f_5_5() -> None:
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    stream, block = 0xF0F1F2F3F4F5F6F7, 0xF8F9FAFBFCFDFEFF
    words = SUITE.keystream(key, stream, 16 * block, 16)
    plain = bytes.fromhex("6bc1bee22e409f96e93d7e117393172a")
    assert bytes(a ^ b for a, b in zip(words, plain, strict=True)).hex() == "601ec313775789a5b7a7f504bbf3d228"


def test_a_keystream_can_be_entered_at_any_block() -> None:
    whole = SUITE.keystream(bytes(32), 3, 0, 100)
    assert SUITE.keystream(bytes(32), 3, 32, 68) == whole[32:]
    assert SUITE.keystream(bytes(32), 4, 0, 100) != whole


def test_hmac_sha_256_rfc_4231_case_2_cut_to_16_bytes() -> None:
    mac = SUITE.mac(b"Jefe", b"what do ya want for nothing?")
    assert mac.hex() == "5bdcc146bf60754e6a042426089575c7"
    assert mac_equal(mac, bytes(mac))
    assert not mac_equal(mac, bytes(16))


def test_chacha20_poly1305_rfc_8439_section_2_8_2() -> None:
    key = bytes(range(0x80, 0xA0))
    nonce = int.from_bytes(bytes.fromhex("070000004041424344454647"), "big")
    aad = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    plain = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    sealed = SUITE.seal(key, nonce, plain, aad)
    assert sealed[:16].hex() == "d31a8d34648e60db7b86afbc53ef7ec2"
    assert sealed[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"
    assert SUITE.unseal(key, nonce, sealed, aad) == plain
    for changed in [(key, nonce + 1, sealed, aad), (key, nonce, sealed[:-1], aad), (key, nonce, sealed, b"")]:
        with pytest.raises(RemoteProtocolError, match="bad_seal"):
            SUITE.unseal(*changed)


def test_ed25519_rfc_8032_section_7_1_test_1() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public, secret = SUITE.verify_key(seed), SUITE.signing_key(seed)
    assert public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    signature = SUITE.sign(secret, b"")
    assert signature.hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"
    )
    assert SUITE.verify(public, b"", signature)
    assert not SUITE.verify(public, b"x", signature)
    assert not SUITE.verify(public, b"", bytes(64))
    assert not SUITE.verify(SUITE.verify_key(bytes(32)), b"", signature)


def test_no_two_lists_of_parts_hash_alike() -> None:
    lists: list[tuple[Any, ...]] = [
        ("a", b"bc"),
        ("a", b"b", b"c"),
        ("a", b"", b"bc"),
        ("ab", b"c"),
        ("a",),
        ("a", b""),
    ]
    assert len({digest(*each) for each in lists}) == len(lists)
    assert len({derive(bytes(32), *each) for each in lists}) == len(lists)
    assert len(derive(bytes(32), "x", size=64)) == 64
    assert derive(bytes(32), "x", size=64)[:32] == derive(bytes(32), "x")
