"""Wake-up messages octet by octet (BSI TR-03109-1, details, chapter 2), and what a gateway refuses."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from coordinator.gwa.ca import CertificateAuthority
from coordinator.gwa.participants import administrator_keys
from node.wan.wakeup import VERIFIED_A_SECOND_MAX, WINDOW_S, WakeUpListener
from protocol import cms
from protocol.cms import Digest
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.wakeup import WakeUp, make_wakeup

GATEWAY = "EBSI0112345678"
MADE_S = 1_342_177_280  # the example of table 2.1: 50000000h
SIGNED = bytes.fromhex(
    "5755"  # Header: WU
    "01"  # VersionId
    "0e 425349 01 00bc614e"  # RecipientId: communication, BSI, block 1, number from its highest octet
    "0000005000000000"  # Timestamp from its lowest octet
    "0b0b0b0b0b0b0b0b0b0b0b0b"  # Padding
)
NAMED = bytes.fromhex("01 0a 04007f00070101040103")  # plain format, ecdsa-plain-SHA256


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> cms.KeyPair:
    directory, now = tmp_path_factory.mktemp("pki"), datetime.now(UTC)
    return administrator_keys(directory, CertificateAuthority.create(directory, now), now).signature


def test_a_message_has_the_octets_of_table_2_1(key: cms.KeyPair) -> None:
    message = make_wakeup(GATEWAY, MADE_S, key)
    assert len(SIGNED) == 32
    assert message[:44] == SIGNED + NAMED
    assert len(message) == 44 + 2 * 32
    read = WakeUp.from_bytes(message)
    assert (read.recipient, read.timestamp_s, read.signed) == (GATEWAY, MADE_S, SIGNED)
    read.verify(key.certificate)


def test_openssl_agrees_on_what_is_signed(key: cms.KeyPair, tmp_path: Path) -> None:
    tool = shutil.which("openssl")
    assert tool is not None
    message = make_wakeup(GATEWAY, MADE_S, key)
    r, s = (int.from_bytes(part, "big") for part in (message[44:76], message[76:]))
    public = key.private_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for name, content in (("key", public), ("signature", encode_dss_signature(r, s)), ("signed", SIGNED)):
        (tmp_path / name).write_bytes(content)
    command = [tool, "dgst", "-sha256", "-verify", "key", "-signature", "signature", "signed"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=30, check=False)
    assert done.stdout == b"Verified OK\n"


@pytest.mark.parametrize(
    ("curve", "last", "size"), [(ec.BrainpoolP256R1, 3, 32), (ec.BrainpoolP384R1, 4, 48), (ec.SECP256R1, 3, 32),
                                (ec.SECP384R1, 4, 48)],
)  # fmt: skip
def test_the_keys_curve_says_hash_and_length(
    curve: type[ec.EllipticCurve], last: int, size: int, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    authority = CertificateAuthority.create(tmp_path / "pki", now, curve=curve)
    mine = administrator_keys(tmp_path / "pki", authority, now).signature
    message = make_wakeup(GATEWAY, MADE_S, mine)
    assert message[43] == last
    assert len(message) == 44 + 2 * size
    WakeUp.from_bytes(message).verify(mine.certificate)


def signed_by(key: cms.KeyPair, text: bytes, named: bytes, digest: Digest = Digest.SHA256) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    r, s = decode_dss_signature(key.sign(text, digest))
    return text + named + r.to_bytes(32, "big") + s.to_bytes(32, "big")


def test_a_longer_hash_than_the_keys_is_taken_by_its_identifier(key: cms.KeyPair) -> None:
    named = NAMED[:-1] + b"\x04"
    WakeUp.from_bytes(signed_by(key, SIGNED, named, Digest.SHA384)).verify(key.certificate)
    with pytest.raises(RemoteProtocolError, match="wakeup_signature"):
        WakeUp.from_bytes(signed_by(key, SIGNED, named, Digest.SHA256)).verify(key.certificate)


CHANGES = [
    pytest.param(0, b"wu", "Header", id="header"), pytest.param(2, b"\x02", "VersionId", id="version"),
    pytest.param(3, b"\x01", "RecipientId", id="medium"), pytest.param(4, b"bsi", "RecipientId", id="small letters"),
    pytest.param(7, b"\xff", "RecipientId", id="block"),
    pytest.param(8, b"\x05\xf5\xe1\x00", "RecipientId", id="nine digits"),
    pytest.param(31, b"\x01", "Padding", id="padding"), pytest.param(32, b"\x02", "SignatureFormat", id="format"),
    pytest.param(33, b"\x00", "OIDLength", id="no identifier"), pytest.param(33, b"\x0f", "OIDLength", id="15 octets"),
    pytest.param(43, b"\x02", "SignatureAlgorithmOID", id="SHA-224"),
    pytest.param(34, b"\x05", "SignatureAlgorithmOID", id="another identifier"),
]  # fmt: skip


@pytest.mark.parametrize(("at", "octets", "field"), CHANGES)
def test_a_field_off_the_table_is_named(key: cms.KeyPair, at: int, octets: bytes, field: str) -> None:
    message = make_wakeup(GATEWAY, MADE_S, key)
    with pytest.raises(RemoteProtocolError, match=rf"bad_wakeup: .*{field}"):
        WakeUp.from_bytes(message[:at] + octets + message[at + len(octets) :])


@pytest.mark.parametrize("cut", [0, 1, 31, 32, 35])
def test_a_message_cut_short_is_refused(key: cms.KeyPair, cut: int) -> None:
    with pytest.raises(RemoteProtocolError, match="bad_wakeup"):
        WakeUp.from_bytes(make_wakeup(GATEWAY, MADE_S, key)[:cut])


@given(bit=st.integers(0, 32 * 8 - 1))
def test_no_signed_bit_can_be_changed(key: cms.KeyPair, bit: int) -> None:
    message = bytearray(signed_by(key, SIGNED, NAMED))
    message[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RemoteProtocolError):
        WakeUp.from_bytes(bytes(message)).verify(key.certificate)


@given(st.binary(max_size=300))
def test_random_octets_raise_nothing_else(data: bytes) -> None:
    for each in (data, SIGNED + data):
        try:
            WakeUp.from_bytes(each)
        except RemoteProtocolError as error:
            assert error.reason == "bad_wakeup"  # noqa: PT017


def test_a_signature_of_another_length_is_refused(key: cms.KeyPair) -> None:
    with pytest.raises(RemoteProtocolError, match="Signature of 63 octets, expected 64"):
        WakeUp.from_bytes(make_wakeup(GATEWAY, MADE_S, key)[:-1]).verify(key.certificate)


@pytest.mark.parametrize("name", ["EBSI01123456789", "ebsi0112345678", "EBSIFF12345678", "1BSI0112345678"])
def test_what_is_no_gateways_id_wakes_nobody_up(key: cms.KeyPair, name: str) -> None:
    with pytest.raises(LocalProtocolError):
        make_wakeup(name, MADE_S, key)


# --- the gateway's side -----------------------------------------------------------------------------------------------


class Gateway:
    """A listener with a clock that the test sets."""

    def __init__(self, certificate: x509.Certificate) -> None:
        self.now_s = float(MADE_S)
        self.certificate = certificate
        self.woken: list[str] = []
        self.counts: Counter[str] = Counter()
        self.restart()

    def restart(self) -> None:
        self.listener = WakeUpListener(
            lambda name: self.certificate if name == GATEWAY else None, self.woken.append, lambda: self.now_s,
            lambda outcome: self.counts.update([outcome]),
        )  # fmt: skip


@pytest.fixture
async def gateway(key: cms.KeyPair) -> Gateway:
    return Gateway(key.certificate)


async def test_a_message_wakes_its_gateway_once(gateway: Gateway, key: cms.KeyPair) -> None:
    message = make_wakeup(GATEWAY, MADE_S, key)
    for _ in range(3):
        gateway.listener.take(message)
    gateway.listener.take(make_wakeup(GATEWAY, MADE_S + 1, key))
    gateway.listener.take(message)
    assert gateway.woken == [GATEWAY, GATEWAY]
    assert gateway.counts == {"taken": 2, "wakeup_replay": 3}


async def test_a_message_from_before_a_restart_counts_for_nothing(gateway: Gateway, key: cms.KeyPair) -> None:
    message = make_wakeup(GATEWAY, MADE_S, key)
    gateway.listener.take(message)
    gateway.now_s += 5
    gateway.restart()
    gateway.listener.take(message)
    assert gateway.counts == {"taken": 1, "wakeup_replay": 1}


@pytest.mark.parametrize(("off_s", "outcome"), [
    (WINDOW_S, "taken"), (WINDOW_S + 1, "wakeup_time"), (-WINDOW_S - 1, "wakeup_time"), (-WINDOW_S, "taken"),
])  # fmt: skip
async def test_the_time_window_has_both_ends(gateway: Gateway, key: cms.KeyPair, off_s: int, outcome: str) -> None:
    gateway.now_s -= 1_000
    gateway.restart()
    gateway.now_s += 1_000
    gateway.listener.take(make_wakeup(GATEWAY, MADE_S + off_s, key))
    assert gateway.counts == {outcome: 1}


async def test_others_messages_and_forged_ones_wake_nobody(
    gateway: Gateway, key: cms.KeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.listener.take(make_wakeup("EBSI0112345679", MADE_S, key))
    forger = cms.KeyPair(key.certificate, ec.generate_private_key(ec.BrainpoolP256R1()))
    gateway.listener.take(make_wakeup(GATEWAY, MADE_S, forger))
    gateway.listener.take(b"WU")
    assert gateway.woken == []
    assert gateway.counts == {"wakeup_recipient": 1, "wakeup_signature": 1, "bad_wakeup": 1}
    assert len(caplog.records) == 3
    gateway.listener.take(make_wakeup(GATEWAY, MADE_S, key))  # a forged one has used nothing up
    assert gateway.woken == [GATEWAY]


async def test_forged_messages_cost_a_bounded_number_of_verifications(gateway: Gateway, key: cms.KeyPair) -> None:
    message = make_wakeup(GATEWAY, MADE_S, key)
    forged = message[:-1] + bytes([message[-1] ^ 1])
    for _ in range(VERIFIED_A_SECOND_MAX + 7):
        gateway.listener.take(forged)
    assert gateway.counts == {"wakeup_signature": VERIFIED_A_SECOND_MAX, "wakeup_rate": 7}
    gateway.now_s += 1
    gateway.listener.take(message)
    assert gateway.woken == [GATEWAY]


async def test_datagrams_are_taken_from_a_real_socket(gateway: Gateway, key: cms.KeyPair) -> None:
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sender:
        async with trio.open_nursery() as nursery:
            port = await nursery.start(gateway.listener.serve, "127.0.0.1", 0)
            for data in (b"x" * 2_000, b"", make_wakeup(GATEWAY, MADE_S, key)):
                await sender.sendto(data, ("127.0.0.1", port))
            with trio.fail_after(120):
                while not gateway.woken:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert gateway.counts == {"bad_wakeup": 2, "taken": 1}
