"""The security module over files and over a SoftHSM token: the same keys for the gateway, other places for them."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from coordinator.gwa.ca import CertificateAuthority
from node.security.backend import FileBackend, KeyBackend
from node.security.backends import open_backend
from node.security.module import GatewaySecurityModule, KeyDirectory
from node.security.token import TokenBackend
from protocol import cms, pki
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.errors import LocalProtocolError, RemoteProtocolError, StromkreisError
from protocol.link.entropy import SystemEntropy
from protocol.link.tls import client_context

SUITE = StandardSuite()
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAME = "ESTK0100000007"
Backend = Callable[[], KeyBackend]


@pytest.fixture(params=["files", "token"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Opens the backend, again and again: that is a restart of the node."""
    if request.param == "files":
        return FileBackend
    token = request.getfixturevalue("token")
    return lambda: TokenBackend(token.library, token.label, token.pin, may_make_store_key=True)


@pytest.fixture
def opened(backend: Backend, tmp_path: Path) -> Iterator[Callable[..., GatewaySecurityModule]]:
    directories = []

    def open_module(**options: Any) -> GatewaySecurityModule:
        directories.append(KeyDirectory(tmp_path / "keys", SUITE, backend=backend(), **options))
        return directories[-1].open(NAME)

    yield open_module
    for each in directories:
        each.close()


def authority(path: Path, curve: type[ec.EllipticCurve] = pki.CURVE) -> CertificateAuthority:
    return CertificateAuthority.create(path / "pki", NOW, hosts=["127.0.0.1"], curve=curve)


def enrol(module: GatewaySecurityModule, by: CertificateAuthority, sequence: int = 1) -> None:
    triple = by.issue_triple(pki.check_package(module.request_package()), NOW, sequence=sequence)
    module.install(tuple(map(pki.to_der, triple)), (pki.to_der(by.sub_ca),))


def own(module: GatewaySecurityModule) -> cms.AgreementKey:
    return module.encryption_keys[0]


Open = Callable[..., GatewaySecurityModule]


@pytest.mark.parametrize("curve", pki.CURVES, ids=lambda curve: curve.name)
def test_keys_sign_and_decrypt_and_are_the_same_after_a_restart(
    opened: Open, tmp_path: Path, curve: type[ec.EllipticCurve]
) -> None:
    module = opened(curve=curve)
    assert module.certificate is None
    with pytest.raises(LocalProtocolError, match="not enrolled"):
        module.sign(b"text")
    enrol(module, authority(tmp_path, curve))
    for each in (module, opened(curve=curve)):
        key = pki.load_certificate(each.certificate or b"").public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, curve)
        key.verify(each.sign(b"text"), b"text", ec.ECDSA(pki.signature_hash(key)))
        message = cms.protect(b"profile", own(each).certificate, each.signature_key, entropy=each)
        assert cms.unprotect(message, own(each), [each.signature_key.certificate]).content == b"profile"
        assert (each.curve, each.certificates) == (module.curve, module.certificates)
        assert each.blinding() != each.blinding()


def test_foreign_messages_decrypt_with_leading_zeros_in_the_shared_point(opened: Open, tmp_path: Path) -> None:
    module = opened()
    enrol(module, authority(tmp_path))
    recipient = own(module).certificate
    public_key = recipient.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    found = 0
    for number in range(2, 2000):
        peer = ec.derive_private_key(number, ec.BrainpoolP256R1())
        shared = peer.exchange(ec.ECDH(), public_key)
        if shared[0] == 0:
            assert own(module).agree(peer.public_key()) == shared
            found += 1
            break
    assert found == 1
    sealed = cms.seal(b"x", "1.2.840.113549.1.7.1", recipient, suite=cms.GCM_SUITE, entropy=SystemEntropy())
    assert cms.open_enveloped(sealed, own(module), cms.Limits())[0] == b"x"


def test_renewal_replaces_the_keys_and_still_opens_what_was_sent_before(opened: Open, tmp_path: Path) -> None:
    module, ca = opened(), authority(tmp_path)
    enrol(module, ca)
    before, old = module.certificates, own(module).certificate
    enrol(module, ca, 2)
    assert not set(before) & set(module.certificates)
    assert [key.certificate for key in module.encryption_keys][1] == old
    sealed = cms.seal(b"late", "1.2.840.113549.1.7.1", old, suite=cms.GCM_SUITE, entropy=SystemEntropy())
    again = opened()
    assert cms.open_enveloped(sealed, again.encryption_keys[1], cms.Limits())[0] == b"late"
    enrol(module, ca, 3)
    assert len(module.encryption_keys) == 2
    assert old not in [key.certificate for key in module.encryption_keys]


def test_a_request_is_the_same_until_it_is_answered(opened: Open, tmp_path: Path) -> None:
    """A crash between the request and its answer: the answer to the repeated request fits."""
    module, ca = opened(), authority(tmp_path)
    keys = [each.public_key for each in pki.check_package(module.request_package())]
    restarted = opened()
    assert [each.public_key for each in pki.check_package(restarted.request_package())] == keys
    enrol(restarted, ca)
    other = CertificateAuthority.create(tmp_path / "other", NOW)
    request = pki.check_package(restarted.request_package())
    assert not any(each.public_key in keys for each in request)
    wrong = tuple(map(pki.to_der, other.issue_triple((request[1], request[0], request[2]), NOW)))
    with pytest.raises(RemoteProtocolError, match="wrong_certificate"):
        restarted.install(wrong, ())


def test_a_seal_endorses_until_there_is_an_operational_key(opened: Open, tmp_path: Path) -> None:
    module, ca = opened(), authority(tmp_path)
    maker = CertificateAuthority.create_manufacturer(tmp_path / "pki", NOW, "Zaehlerwerk")
    assert module.endorse(b"package") is None
    seal = maker.issue_triple(pki.check_package(module.seal_package()), NOW, roles=pki.SEAL_TRIPLE)
    module.install_seal(tuple(map(pki.to_der, seal)), (pki.to_der(maker.sub_ca),))
    with pytest.raises(StromkreisError, match="already"):
        module.seal_package()
    endorsed = opened().endorse(b"package")
    assert endorsed is not None
    leaf, *above = (pki.load_certificate(each) for each in endorsed[1])
    pki.verify_chain(leaf, above, ca.root, NOW, role=pki.Role.SEAL_SIGNATURE)
    cms.verify_detached(endorsed[0], b"package", [leaf], cms.Limits())
    enrol(module, ca)
    operational = module.endorse(b"package")
    assert operational is not None
    assert operational[1][0] == module.certificate


def test_the_tls_key_serves_a_handshake_and_lies_in_no_file(opened: Open, tmp_path: Path) -> None:
    module = opened()
    with pytest.raises(LocalProtocolError, match="no TLS certificate"):
        module.load_tls(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    ca = authority(tmp_path)
    enrol(module, ca)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), client_context(tmp_path / "pki" / "root.pem")
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    server.set_ecdh_curve("brainpoolP256r1")
    module.load_tls(server)
    client.check_hostname = False
    ends = [ssl.MemoryBIO() for _ in range(2)]
    sides = [client.wrap_bio(ends[0], ends[1]), server.wrap_bio(ends[1], ends[0], server_side=True)]
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert sides[0].getpeercert(binary_form=True) == module.certificates[2]


def test_epoch_seeds_and_the_storage_key_survive_a_restart(opened: Open) -> None:
    module = opened()
    key, number = module.epoch(7).public_key, module.random_bits(12)
    assert opened().epoch(7).public_key == key
    assert number < 1 << 12
    assert len(module.random(17)) == 17
    assert opened()._directory.storage_key("store") == module._directory.storage_key("store")
    module.fix_layout(7, b"digest")
    module.forget_epoch(7)
    with pytest.raises(RemoteProtocolError, match="past_epoch"):
        module.epoch(7)


def test_files_of_an_earlier_version_open_and_want_the_rest_of_their_triple(tmp_path: Path) -> None:
    ca, key = authority(tmp_path), ec.generate_private_key(ec.BrainpoolP256R1())
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    certificate = ca.issue_gateway(NAME, key.public_key(), NOW)
    old = {
        "signature_key": pem, "curve_secret": "11" * 32, "commitment_key": "22" * 32,
        "chain": [pki.to_der(certificate).hex(), pki.to_der(ca.sub_ca).hex()],
    }  # fmt: skip
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / f"{NAME}.json").write_text(json.dumps(old))
    directory = KeyDirectory(tmp_path / "keys", SUITE)
    module = directory.open(NAME)
    assert module.curve.secret == b"\x11" * 32
    key.public_key().verify(module.sign(b"x"), b"x", ec.ECDSA(hashes.SHA256()))
    assert module.certificate == pki.to_der(certificate)
    assert not module.encryption_keys
    assert directory.retired_commitment_key(NAME) == b"\x22" * 32
    assert directory.retired_commitment_key("ESTK0000000099") is None
    directory.forget_commitment_keys()
    assert directory.retired_commitment_key(NAME) is None
    assert "22" * 32 not in (tmp_path / "keys" / f"{NAME}.json").read_text()
    module = directory.open(NAME)
    enrol(module, ca, 2)
    assert len(module.certificates) == 3
    assert directory.open(NAME).curve == module.curve
    directory.close()


def test_a_damaged_record_is_told_without_its_content(tmp_path: Path) -> None:
    directory = KeyDirectory(tmp_path / "keys", SUITE)
    enrol(directory.open(NAME), authority(tmp_path))
    file = tmp_path / "keys" / f"{NAME}.json"
    good = json.loads(file.read_text())
    damaged: list[dict[str, Any]] = [
        good | {"curve_secret": "zz"}, good | {"curve_secret": "11"}, good | {"current": {}},
        good | {"current": good["current"] | {"signature_key": "no key"}},
        good | {"current": good["current"] | {"certificates": ["00"]}},
    ]  # fmt: skip
    for each in damaged:
        file.write_text(json.dumps(each))
        with pytest.raises(StromkreisError, match="backup") as caught:
            directory.open(NAME)
        assert good["curve_secret"] not in str(caught.value)
    file.write_text(json.dumps(good))
    assert directory.open(NAME).certificate is not None
    directory.close()


# --- the token -------------------------------------------------------------------------------------------------------


def test_nothing_that_the_token_guards_is_in_a_file(token: Any, tmp_path: Path) -> None:
    backend = TokenBackend(token.library, token.label, token.pin, may_make_store_key=True)
    directory = KeyDirectory(tmp_path / "keys", SUITE, backend=backend)
    module = directory.open(NAME)
    enrol(module, authority(tmp_path))
    module.epoch(3)
    stored = directory.storage_key("store")
    content = b"".join(path.read_bytes() for path in (tmp_path / "keys").iterdir())
    assert b"PRIVATE KEY" not in content
    secrets = [module.curve.secret, stored, b"PRIVATE KEY"]
    for secret in secrets:
        assert secret not in content
        assert secret.hex().encode() not in content
    key = own(module)
    assert isinstance(key, cms.KeyPair)
    for read in (key.private_key.private_numbers, lambda: key.private_key.private_bytes(None, None, None)):  # type: ignore[arg-type]
        with pytest.raises(UnsupportedAlgorithm, match="never leaves"):
            read()
    directory.close()


def test_a_token_key_signs_what_cryptography_asks_for(token: Any) -> None:
    backend = TokenBackend(token.library, token.label, token.pin, may_make_store_key=True)
    key = backend.load_key(backend.make_key(ec.SECP256R1(), NAME))
    digest = hashes.Hash(hashes.SHA512())
    digest.update(b"text")
    prehashed = ec.ECDSA(Prehashed(hashes.SHA512()))
    key.public_key().verify(key.sign(digest.finalize(), prehashed), b"text", ec.ECDSA(hashes.SHA512()))
    with pytest.raises(LocalProtocolError, match="one curve"):
        key.exchange(ec.ECDH(), ec.generate_private_key(ec.SECP384R1()).public_key())
    backend.close()


def test_what_is_sealed_opens_with_its_label_and_token_only(token: Any, tokens: Any) -> None:
    backend = TokenBackend(token.library, token.label, token.pin, may_make_store_key=True)
    sealed = backend.seal("a", b"secret")
    assert backend.unseal("a", sealed) == b"secret"
    assert backend.seal("a", b"secret") != sealed
    for label, data in (("b", sealed), ("a", sealed[:-1] + bytes([sealed[-1] ^ 1])), ("a", b"")):
        with pytest.raises(StromkreisError, match="does not open") as caught:
            backend.unseal(label, data)
        assert "secret" not in str(caught.value)
    other = next(tokens)
    foreign = TokenBackend(other.library, other.label, other.pin, may_make_store_key=True)
    with pytest.raises(StromkreisError, match="another token's"):
        foreign.unseal("a", sealed)
    name = backend.make_key(ec.BrainpoolP256R1(), NAME)
    with pytest.raises(StromkreisError, match="is not on it"):
        foreign.load_key(name)
    backend.delete_key(name)
    with pytest.raises(StromkreisError, match="is not on it"):
        backend.load_key(name)
    backend.close()
    foreign.close()


def test_a_wrong_pin_library_or_token_is_told(token: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    with pytest.raises(StromkreisError, match="the PIN"):
        open_backend(keys, token.library, token.label, "0000")
    with pytest.raises(StromkreisError, match="cannot be used"):
        open_backend(keys, token.library, "no such token", token.pin)
    with pytest.raises(StromkreisError, match="cannot be used"):
        open_backend(keys, tmp_path / "none.so", token.label, token.pin)
    (keys / f"{NAME}.json").write_text("{}")
    with pytest.raises(StromkreisError, match="no store key"):
        open_backend(keys, token.library, token.label, token.pin)
    assert isinstance(open_backend(keys, None, token.label, None), FileBackend)


def test_files_are_not_taken_for_a_tokens_keys(token: Any, tmp_path: Path) -> None:
    directory = KeyDirectory(tmp_path / "keys", SUITE)
    enrol(directory.open(NAME), authority(tmp_path))
    directory.close()
    backend = TokenBackend(token.library, token.label, token.pin, may_make_store_key=True)
    with pytest.raises(StromkreisError):
        KeyDirectory(tmp_path / "keys", SUITE, backend=backend).open(NAME)
    with pytest.raises(StromkreisError, match="keys are in files"):
        backend.load_key("-----BEGIN PRIVATE KEY-----")
    backend.close()


@pytest.mark.filterwarnings("ignore:Exception ignored in. 'pkcs11")  # python-pkcs11 ends a search in a finaliser
def test_a_session_that_broke_is_opened_anew(token: Any) -> None:
    backend = TokenBackend(token.library, token.label, token.pin, may_make_store_key=True)
    sealed = backend.seal("a", b"x")
    backend._session.close()
    assert backend.unseal("a", sealed) == b"x"
    backend.close()


def test_a_node_that_is_killed_while_it_makes_keys_goes_on(token: Any, tmp_path: Path) -> None:
    """SIGKILL after the request was made durable: the next process asks with the same keys of the token."""
    program = f"""
import os, signal
from pathlib import Path
from node.security.backends import open_backend
from node.security.module import KeyDirectory
from protocol.dcnet.crypto.suite import StandardSuite
keys = Path({str(tmp_path / "keys")!r})
backend = open_backend(keys, Path({str(token.library)!r}), {token.label!r}, {token.pin!r})
module = KeyDirectory(keys, StandardSuite(), backend=backend).open({NAME!r})
print(module.request_package().hex(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    packages = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, cwd=Path.cwd()
        )
        assert done.returncode == -9, done.stderr
        packages.append(pki.check_package(bytes.fromhex(done.stdout.strip())))
    assert [each.public_key for each in packages[0]] == [each.public_key for each in packages[1]]
