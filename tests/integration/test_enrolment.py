"""Enrolment: tokens, the directory, and everything that must be refused."""

from __future__ import annotations

import re
import stat
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import text
from typer.testing import CliRunner

from coordinator.config import DeclaredToken
from coordinator.gwa import ca
from coordinator.gwa.ca import CertificateAuthority
from coordinator.gwa.declared_tokens import declare
from coordinator.gwa.enrolment import Directory, Enrolment, EnrolmentRequest, IssuedTriple
from coordinator.gwa.leaving import Leaving
from coordinator.gwa.participants import administrator_keys, participant_keys, renew_web_certificate
from coordinator.gwa.reconcile import reconcile
from coordinator.gwa.renewal import Renewal
from coordinator.gwa.revocation import RevocationPublisher, offline_list, revoke_offline
from coordinator.storage.gateways import GatewayStatus
from coordinator.storage.irrevocable import IrrevocableLog
from coordinator.storage.store import Store
from protocol import cms, pki
from protocol.errors import LocalProtocolError, RemoteProtocolError, StromkreisError
from protocol.leave import leave_statement
from stromkreis.__main__ import build

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEYS = [ec.derive_private_key(n, ec.BrainpoolP256R1()) for n in range(100, 160)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pki") / "pki"


@pytest.fixture(scope="module")
def authority(home: Path) -> CertificateAuthority:
    return CertificateAuthority.create(home, NOW)


@pytest.fixture(scope="module")
def manufacturer(home: Path, authority: CertificateAuthority) -> CertificateAuthority:
    return CertificateAuthority.create_manufacturer(home, NOW, "Zaehlerwerk")


@pytest.fixture
def store(any_store: Store) -> Store:
    return any_store


@pytest.fixture
def publisher(store: Store, authority: CertificateAuthority, home: Path) -> RevocationPublisher:
    return RevocationPublisher(home, authority, store.certificates)


@pytest.fixture
def enrolment(store: Store, authority: CertificateAuthority, publisher: RevocationPublisher) -> Enrolment:
    return Enrolment(
        store.gateways,
        authority,
        publisher,
        coordinator_curve_key=b"c" * 32,
        list_key=b"l" * 32,
        log_key=b"k" * 32,
        endpoint="tcp://127.0.0.1:5555",
    )


@pytest.fixture
def renewal(store: Store, authority: CertificateAuthority) -> Renewal:
    return Renewal(store.gateways, store.certificates, authority)


def package(number: int, device: str | None = None) -> bytes:
    """Requests of keys `number`, `number` + 20 and `number` + 40."""
    device = device or pki.make_gateway_id(number)
    first, second, third = (pki.build_request(KEYS[number + step], device) for step in (0, 20, 40))
    return pki.build_package((first, second, third))


def request(token: str, number: int = 1, *, area: str = "Nordring", curve: int | None = None) -> EnrolmentRequest:
    device = pki.make_gateway_id(number)
    curve_key = bytes([curve or number]) * 32
    return EnrolmentRequest(token, device, area, package(number), curve_key)


def refused(enrolment: Enrolment, asked: EnrolmentRequest, now: datetime = NOW) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        enrolment.enrol(asked, now)
    return caught.value.reason


def test_a_gateway_enrols_and_its_chain_stands(
    store: Store, enrolment: Enrolment, authority: CertificateAuthority
) -> None:
    directory = Directory(store.gateways)
    answer = enrolment.enrol(request(directory.create_token(NOW)), NOW)
    assert (answer.coordinator_curve_key, answer.endpoint) == (b"c" * 32, "tcp://127.0.0.1:5555")
    leaf, *above = x509.load_pem_x509_certificates(answer.certificates.signature_chain.encode())
    others = (answer.certificates.encryption, answer.certificates.tls)
    triple = [leaf, *(x509.load_pem_x509_certificate(each.encode()) for each in others)]
    for role, certificate, number in zip(pki.GATEWAY_TRIPLE, triple, (1, 21, 41), strict=True):
        verified = pki.verify_chain(certificate, above, authority.root, NOW, role=role)
        assert verified.public_key == KEYS[number].public_key()
    assert pki.gateway_id(leaf) == "ESTK0100000001"
    (gateway,) = store.gateways.page()
    assert (gateway.area, gateway.status, gateway.curve_key) == ("Nordring", GatewayStatus.ACTIVE, b"\x01" * 32)
    assert gateway.certificate == pki.to_der(leaf)
    assert store.gateways.active_by_curve_key(b"\x01" * 32) == gateway
    assert store.gateways.some(["ESTK0100000001", "ESTK0199999999"]) == {"ESTK0100000001": gateway}
    assert store.gateways.active_by_curve_key(b"\x02" * 32) is None
    assert store.gateways.count_by_area() == {"Nordring": 1}


def test_a_lost_answer_is_given_again_without_another_use(store: Store, enrolment: Enrolment) -> None:
    asked = request(Directory(store.gateways).create_token(NOW))
    assert enrolment.enrol(asked, NOW) == enrolment.enrol(asked, NOW + timedelta(days=1))
    assert refused(enrolment, request(asked.token, 2)) == "token_used_up"


def test_tokens_have_limits(store: Store, enrolment: Enrolment) -> None:
    directory = Directory(store.gateways)
    assert refused(enrolment, request("stk_guess")) == "token_unknown"
    late = directory.create_token(NOW, validity=timedelta(hours=1))
    assert refused(enrolment, request(late), NOW + timedelta(hours=1)) == "token_expired"
    south = directory.create_token(NOW, area="Südhang")
    assert refused(enrolment, request(south)) == "token_area"
    enrolment.enrol(request(south, area="Südhang"), NOW)
    three = directory.create_token(NOW, uses=3)
    for number in (2, 3, 4):
        enrolment.enrol(request(three, number), NOW)
    assert refused(enrolment, request(three, 5)) == "token_used_up"
    for impossible in ({"uses": 0}, {"validity": timedelta(0)}):
        with pytest.raises(LocalProtocolError):
            directory.create_token(NOW, **impossible)


def test_a_stranger_waits_for_no_lock_and_holds_none(store: Store, enrolment: Enrolment) -> None:
    """While the round ledger writes, and with a request that is none: the token comes before everything else."""
    with store.database.write():
        assert refused(enrolment, replace(request("stk_guess"), package=b"junk")) == "token_unknown"


def test_a_token_is_kept_nowhere(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'coordinator.sqlite'}")
    token = Directory(store.gateways).create_token(NOW, label="Elm Street")
    with store.database.read() as connection:
        assert connection.execute(text("SELECT label FROM tokens")).scalar() == "Elm Street"
    files = [path.read_bytes() for path in tmp_path.iterdir()]
    assert files
    assert not any(token.removeprefix("stk_").encode() in data for data in files)
    store.close()


def test_refusals_spend_no_use(store: Store, enrolment: Enrolment) -> None:
    directory = Directory(store.gateways)
    first, token = directory.create_token(NOW), directory.create_token(NOW)
    enrolment.enrol(request(first), NOW)
    good = request(token, 2)
    forged = package(2)[:-3] + b"\x00\x00\x01"
    bad = {
        "duplicate_gateway": replace(request(token, 3), gateway_id="ESTK0100000001",
                                     package=package(3, "ESTK0100000001")),
        "duplicate_key": replace(good, curve_key=b"\x01" * 32),
        "gateway_id_mismatch": replace(good, gateway_id="ESTK0100000009"),
        "curve_key": replace(good, curve_key=b"short"),
        "area_name": replace(good, area=" \n"),
        "request_signature": replace(good, package=forged),
        "request_malformed": replace(good, package=b"\x30\x00"),
    }  # fmt: skip
    for reason, asked in bad.items():
        assert refused(enrolment, asked) == reason
    assert refused(enrolment, replace(good, curve_key=bytes(32))) == "curve_key"
    assert refused(enrolment, replace(request(token), area="Elsewhere")) == "duplicate_gateway"
    enrolment.enrol(good, NOW)
    assert [g.gateway_id for g in store.gateways.page()] == ["ESTK0100000001", "ESTK0100000002"]


def test_revoked_is_out_for_good(store: Store, enrolment: Enrolment) -> None:
    directory = Directory(store.gateways)
    asked = request(directory.create_token(NOW))
    enrolment.enrol(asked, NOW)
    assert directory.revoke(asked.gateway_id, NOW)
    assert not directory.revoke(asked.gateway_id, NOW)
    assert store.gateways.active_by_curve_key(asked.curve_key) is None
    assert store.gateways.count_by_area() == {}
    assert refused(enrolment, asked) == "gateway_revoked"
    assert refused(enrolment, replace(asked, token=directory.create_token(NOW))) == "gateway_revoked"


def test_a_revoked_token_admits_nobody_and_who_enrolled_stays(store: Store, enrolment: Enrolment) -> None:
    directory = Directory(store.gateways)
    token, other = directory.create_token(NOW, uses=5, label="Elm Street"), directory.create_token(NOW)
    enrolment.enrol(request(token), NOW)
    made = directory.revoke_token(token, NOW)
    assert (made.label, made.uses_left) == ("Elm Street", 4)
    assert refused(enrolment, request(token, 2)) == "token_revoked"
    assert store.gateways.count_by_area() == {"Nordring": 1}
    for name in (token, made.digest.hex()[:12]):
        with pytest.raises(LocalProtocolError, match="revoked already"):
            directory.revoke_token(name, NOW)
    for name in ("", made.digest.hex()[:7], "stk_guess"):
        with pytest.raises(LocalProtocolError, match="0 tokens are meant"):
            directory.revoke_token(name, NOW)
    enrolment.enrol(request(other, 2), NOW)


def test_tokens_are_listed_and_revoked_by_the_command(tmp_path: Path) -> None:
    config = tmp_path / "stromkreis.toml"
    config.write_text(f'[coordinator]\ndata_dir = "{tmp_path}"\n')
    run = partial(CliRunner().invoke, build(["pki"]))
    token = run(["pki", "token", "-c", str(config), "--uses", "3", "--label", "Elm Street", "--area", "default"]).stdout
    listed = run(["pki", "tokens", "-c", str(config)]).stdout
    assert re.search(r"([0-9a-f]{16}) +default +3 of 3 +[-0-9]{10} +until [-0-9]{10} +Elm Street", listed)
    assert token.strip().removeprefix("stk_") not in listed
    (name,) = re.findall(r"[0-9a-f]{16}", listed)
    assert run(["pki", "revoke-token", name, "-c", str(config)]).stdout == f"token {name} is revoked\n"
    assert "revoked" in run(["pki", "tokens", "-c", str(config)]).stdout
    again = run(["pki", "revoke-token", name, "-c", str(config)])
    assert (again.exit_code, again.stderr) == (1, "this token is revoked already\n")


def test_the_last_use_goes_to_one(store: Store, enrolment: Enrolment) -> None:
    token = Directory(store.gateways).create_token(NOW, uses=2)
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def one(number: int) -> None:
        asked = request(token, number)
        start.wait()
        try:
            enrolment.enrol(asked, NOW)
            outcomes.append("enrolled")
        except RemoteProtocolError as error:
            outcomes.append(error.reason)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["enrolled"] * 2 + ["token_used_up"] * 6
    assert store.gateways.count_by_area() == {"Nordring": 2}


def test_gateways_by_page_and_area(store: Store, enrolment: Enrolment) -> None:
    directory = Directory(store.gateways)
    token = directory.create_token(NOW, uses=5)
    for number in range(1, 6):
        enrolment.enrol(request(token, number, area="Nord" if number % 2 else "Süd"), NOW)
    first = store.gateways.page(limit=2)
    rest = store.gateways.page(after=first[-1].gateway_id)
    assert [int(g.gateway_id[-1]) for g in first + rest] == [1, 2, 3, 4, 5]
    assert [int(g.gateway_id[-1]) for g in store.gateways.page(area="Süd")] == [2, 4]


def test_the_demo_pki_on_disk(tmp_path: Path) -> None:
    home = tmp_path / "pki"
    made = CertificateAuthority.create(home, NOW, organisation="Stadtwerk", hosts=["gwa.example", "127.0.0.1", "::1"])
    for path in home.glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(list(home.glob("*.key"))) == 3
    loaded = CertificateAuthority.load(home)
    assert (loaded.root, loaded.sub_ca, loaded.administrator) == (made.root, made.sub_ca, "Stadtwerk.GWA")
    tls, *above = x509.load_pem_x509_certificates((home / ca.TLS_CHAIN_FILE).read_bytes())
    pki.verify_chain(tls, above, loaded.root, NOW, role=pki.Role.ADMINISTRATOR_TLS)
    names = tls.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(n.value) for n in names] == ["gwa.example", "127.0.0.1", "::1"]
    with pytest.raises(LocalProtocolError, match="already"):
        CertificateAuthority.create(home, NOW)
    with pytest.raises(LocalProtocolError, match="pki init"):
        CertificateAuthority.load(tmp_path)
    (home / "sub-ca.key").chmod(0o600)
    (home / "sub-ca.key").write_bytes((home / "root.key").read_bytes())
    with pytest.raises(LocalProtocolError, match="does not belong"):
        CertificateAuthority.load(home)
    (home / "sub-ca.pem").write_text("no certificate")
    with pytest.raises(LocalProtocolError, match="damaged"):
        CertificateAuthority.load(home)


def test_gateway_certificates_end_with_the_sub_ca(authority: CertificateAuthority) -> None:
    late = authority.sub_ca.not_valid_after_utc - timedelta(days=10)
    leaf = authority.issue_gateway("ESTK0100000001", KEYS[1].public_key(), late)
    assert leaf.not_valid_after_utc == authority.sub_ca.not_valid_after_utc
    pki.verify_chain(leaf, [authority.sub_ca], authority.root, late)


# --- quality seals ---------------------------------------------------------------------------------------------------


def sealed(asked: EnrolmentRequest, manufacturer: CertificateAuthority, number: int, key: int) -> EnrolmentRequest:
    """The request, signed by the quality seal of gateway `number`, whose signature key is `KEYS[key]`."""
    seal = manufacturer.issue_gateway(
        pki.make_gateway_id(number), KEYS[key].public_key(), NOW, role=pki.Role.SEAL_SIGNATURE
    )
    endorsement = cms.sign_detached(asked.package, cms.KeyPair(seal, KEYS[key]))
    return replace(asked, endorsement=endorsement, seal_chain=(pki.to_der(seal), pki.to_der(manufacturer.sub_ca)))


def test_a_sealed_gateway_enrols_where_a_seal_is_required(
    store: Store, authority: CertificateAuthority, manufacturer: CertificateAuthority, publisher: RevocationPublisher
) -> None:
    strict = Enrolment(
        store.gateways, authority, publisher, coordinator_curve_key=b"c" * 32, list_key=b"l" * 32, log_key=b"k" * 32, endpoint="tcp://127.0.0.1:5555",
        needs_seal=True,
    )  # fmt: skip
    asked = request(Directory(store.gateways).create_token(NOW))
    assert refused(strict, asked) == "quality_seal"
    strict.enrol(sealed(asked, manufacturer, 1, 7), NOW)
    assert len(store.gateways.page()) == 1


def test_a_seal_that_does_not_hold_is_refused_and_spends_no_use(
    store: Store, enrolment: Enrolment, authority: CertificateAuthority, manufacturer: CertificateAuthority, home: Path
) -> None:
    asked = request(Directory(store.gateways).create_token(NOW))
    good = sealed(asked, manufacturer, 1, 8)
    operational = authority.issue_gateway(asked.gateway_id, KEYS[8].public_key(), NOW)
    other = CertificateAuthority.create_manufacturer
    assert refused(enrolment, sealed(asked, manufacturer, 2, 8)) == "gateway_id_mismatch"
    assert refused(enrolment, replace(good, package=package(1, "ESTK0100000001"), endorsement=b"junk")) == (
        "cms_malformed"
    )
    assert refused(enrolment, replace(good, package=package(2, "ESTK0100000001"))) == "cms_signature"
    assert refused(enrolment, replace(good, seal_chain=())) == "quality_seal"
    assert refused(enrolment, replace(good, seal_chain=good.seal_chain[:1])) == "unknown_issuer"
    assert refused(
        enrolment, replace(good, seal_chain=(pki.to_der(operational), pki.to_der(authority.sub_ca)))
    ) == "certificate_name"  # fmt: skip
    with pytest.raises(LocalProtocolError, match="already"):
        other(home, NOW, "Zaehlerwerk")
    late = NOW + timedelta(days=6 * 365)
    with pytest.raises(RemoteProtocolError, match="expired"):
        enrolment.enrol(good, late)
    enrolment.enrol(good, NOW)


def test_a_revoked_seal_is_refused(store: Store, tmp_path: Path) -> None:
    own = CertificateAuthority.create(tmp_path / "pki", NOW)
    maker = CertificateAuthority.create_manufacturer(tmp_path / "pki", NOW, "Zaehlerwerk")
    publisher = RevocationPublisher(tmp_path / "pki", own, store.certificates)
    strict = Enrolment(
        store.gateways,
        own,
        publisher,
        coordinator_curve_key=b"c" * 32,
        list_key=b"l" * 32,
        log_key=b"k" * 32,
        endpoint="tcp://127.0.0.1:1",
    )
    asked = sealed(request(Directory(store.gateways).create_token(NOW)), maker, 1, 9)
    serial = pki.load_certificate(asked.seal_chain[0]).serial_number
    revoke_offline(tmp_path / "pki", "manufacturer", serial, NOW)
    with pytest.raises(RemoteProtocolError, match=r"certificate_revoked.*RFC 5280"):
        strict.enrol(asked, NOW)
    with pytest.raises(LocalProtocolError, match="already"):
        revoke_offline(tmp_path / "pki", "manufacturer", serial, NOW)
    (tmp_path / "pki" / ca.MANUFACTURER_KEY_FILE).unlink()
    with pytest.raises(LocalProtocolError, match="without the CA's key"):
        revoke_offline(tmp_path / "pki", "manufacturer", serial + 1, NOW)
    # The list runs out and nobody here can make another: fail closed.
    other = sealed(request(Directory(store.gateways).create_token(NOW), 2), maker, 2, 10)
    with pytest.raises(RemoteProtocolError, match="revocation_stale"):
        strict.enrol(other, NOW + timedelta(days=366))


# --- renewal ---------------------------------------------------------------------------------------------------------


def endorsed(number: int, certificate: bytes, fresh: bytes) -> bytes:
    return cms.sign_detached(fresh, cms.KeyPair(pki.load_certificate(certificate), KEYS[number]))


@pytest.fixture
def enrolled(store: Store, enrolment: Enrolment) -> bytes:
    """The signature certificate of gateway 1."""
    enrolment.enrol(request(Directory(store.gateways).create_token(NOW)), NOW)
    (gateway,) = store.gateways.page()
    return gateway.certificate


SOON, LATER = NOW + timedelta(hours=1), NOW + timedelta(days=700)


def refused_renewal(renewal: Renewal, device: str, fresh: bytes, endorsement: bytes, *, now: datetime = LATER) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        renewal.renew(device, fresh, endorsement, now)
    return caught.value.reason


def test_a_gateway_renews_its_triple_with_new_keys(
    store: Store, renewal: Renewal, authority: CertificateAuthority, enrolled: bytes
) -> None:
    fresh = package(2, "ESTK0100000001")
    answer = renewal.renew("ESTK0100000001", fresh, endorsed(1, enrolled, fresh), LATER)
    leaf, *above = x509.load_pem_x509_certificates(answer.signature_chain.encode())
    verified = pki.verify_chain(leaf, above, authority.root, LATER)
    assert verified.public_key == KEYS[2].public_key()
    assert verified.not_after > LATER + timedelta(days=365)
    (gateway,) = store.gateways.page()
    assert gateway.certificate == pki.to_der(leaf)
    assert [each.sequence for each in store.certificates.of_gateway("ESTK0100000001")] == [2, 2, 2, 1, 1, 1]
    # The answer is lost: asked again by the key before, which is all the gateway has.
    assert renewal.renew("ESTK0100000001", fresh, endorsed(1, enrolled, fresh), LATER) == answer
    assert isinstance(answer, IssuedTriple)


def test_renewals_that_must_not_be_are_refused(
    store: Store, enrolment: Enrolment, renewal: Renewal, enrolled: bytes
) -> None:
    device, fresh = "ESTK0100000001", package(2, "ESTK0100000001")
    good = endorsed(1, enrolled, fresh)
    assert refused_renewal(renewal, "ESTK0100000009", fresh, good) == "gateway_unknown"
    assert refused_renewal(renewal, device, fresh, endorsed(3, enrolled, fresh)) == "cms_signature"
    assert refused_renewal(renewal, device, package(3, device), good) == "cms_signature"
    assert refused_renewal(renewal, device, fresh, b"junk") == "cms_malformed"
    assert refused_renewal(renewal, device, fresh, good, now=NOW + timedelta(hours=1)) == "renewal_early"
    assert refused_renewal(renewal, device, fresh, good, now=NOW + timedelta(days=731)) == "certificate_expired"
    foreign = package(2, "ESTK0100000002")
    assert refused_renewal(renewal, device, foreign, endorsed(1, enrolled, foreign)) == "gateway_id_mismatch"
    first, _, third = (pki.build_request(KEYS[n], device) for n in (2, 22, 42))
    reused = pki.build_package((first, pki.build_request(KEYS[21], device), third))
    assert refused_renewal(renewal, device, reused, endorsed(1, enrolled, reused)) == "duplicate_key"
    assert len(store.certificates.of_gateway(device)) == 3
    renewal.renew(device, fresh, good, LATER)
    again = package(3, device)
    much_later = LATER + timedelta(days=2)
    assert refused_renewal(renewal, device, again, endorsed(1, enrolled, again), now=much_later) == "cms_signer"
    assert Directory(store.gateways).revoke(device, LATER)
    assert refused_renewal(renewal, device, fresh, good) == "gateway_revoked"


def test_a_certificate_that_is_due_stays_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A mounted Secret: the coordinator starts with what is there while it holds, and says so."""
    home = tmp_path / "pki"
    authority = CertificateAuthority.create(home, NOW)
    participant_keys(home, authority, NOW)
    before = {path.name: path.read_bytes() for path in home.iterdir()}
    monkeypatch.setattr("os.access", lambda *_: False)
    participant_keys(home, authority, NOW + timedelta(days=700))
    assert {path.name: path.read_bytes() for path in home.iterdir()} == before
    assert "cannot be written" in caplog.text
    monkeypatch.undo()
    participant_keys(home, authority, NOW + timedelta(days=700))
    changed = {path.name for path in home.iterdir() if before[path.name] != path.read_bytes()}
    assert changed == {"emt-signature.pem", "emt-encryption.pem", "emt-tls.pem"}


# --- declared tokens -------------------------------------------------------------------------------------------------


def test_a_declared_token_is_known_once_with_the_uses_it_has_left(
    store: Store, enrolment: Enrolment, kept: IrrevocableLog, tmp_path: Path
) -> None:
    file, directory = tmp_path / "token", Directory(store.gateways, kept)
    token = "stk_" + "x" * 43
    file.write_text(f"{token}\n")
    declared = [DeclaredToken(file=file, uses=2, area="Nordring", days=30)]
    assert declare(directory, declared, NOW) == 1
    enrolment.enrol(request(token, 1), NOW)
    assert declare(directory, declared, NOW) == 0
    enrolment.enrol(request(token, 2), NOW)
    assert refused(enrolment, request(token, 3)) == "token_used_up"
    directory.revoke_token(token, NOW)
    assert declare(directory, declared, NOW) == 0
    assert refused(enrolment, request(token, 3)) == "token_revoked"


@pytest.mark.parametrize("text", [None, "", "short", "two words of which each is long enough for some", "ü" * 40])
def test_a_file_without_a_good_token_is_refused_unsaid(store: Store, tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "token"
    if text is not None:
        file.write_text(text)
    with pytest.raises(StromkreisError, match=r"token: (expected one token|cannot be read)") as caught:
        declare(Directory(store.gateways), [DeclaredToken(file=file, uses=2)], NOW)
    assert not text or text not in str(caught.value)
    assert store.gateways.tokens() == []


# --- release ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> IrrevocableLog:
    return IrrevocableLog(tmp_path / "irrevocable.jsonl")


def other_keys(token: str) -> EnrolmentRequest:
    """The id of gateway 1, whose volume is lost, with the keys of number 3."""
    device = pki.make_gateway_id(1)
    return EnrolmentRequest(token, device, "Nordring", package(3, device), bytes([3]) * 32)


def left_by(store: Store, directory: Directory, number: int, certificate: x509.Certificate) -> str:
    """Why gateway 1 does not leave by the signature of a key, empty where it does."""
    device = pki.make_gateway_id(1)
    signed = cms.sign_detached(leave_statement(device), cms.KeyPair(certificate, KEYS[number]))
    try:
        Leaving(store.gateways, store.certificates, directory).leave(device, signed, SOON)
    except RemoteProtocolError as error:
        return error.reason
    return ""


def test_a_released_id_is_enrolled_with_other_keys_and_never_with_its_old(
    store: Store, enrolment: Enrolment, publisher: RevocationPublisher, kept: IrrevocableLog
) -> None:
    directory = Directory(store.gateways, kept)
    token = directory.create_token(NOW, uses=5)
    old = request(token)
    first = x509.load_pem_x509_certificate(enrolment.enrol(old, NOW).certificates.signature_chain.encode())
    assert refused(enrolment, other_keys(token)) == "duplicate_gateway"
    directory.release(old.gateway_id, SOON)
    assert refused(enrolment, old) == "gateway_revoked"
    assert store.gateways.active_by_curve_key(old.curve_key) is None
    enrolment.enrol(other_keys(token), SOON)
    (gateway,) = store.gateways.page()
    assert (gateway.status, gateway.curve_key, gateway.released_ms) == (GatewayStatus.ACTIVE, bytes([3]) * 32, None)
    assert refused(enrolment, old) == "duplicate_gateway"
    triples = store.certificates.of_gateway(old.gateway_id)
    assert [(each.sequence, each.revoked_ms is None) for each in triples] == [(2, True)] * 3 + [(1, False)] * 3
    with pytest.raises(RemoteProtocolError, match="certificate_revoked"):
        pki.verify_chain(
            first, [enrolment.authority.sub_ca], enrolment.authority.root, SOON, revocations=publisher.lists(SOON)
        )
    # The next start of the coordinator must not take the new gateway for the old one, nor forget a second loss.
    assert reconcile(store.gateways, kept.read()) == 0
    directory.release(old.gateway_id, SOON)
    assert len(kept.read().revoked) == 2
    assert reconcile(store.gateways, kept.read()) == 0
    assert store.gateways.active_by_curve_key(bytes([3]) * 32) is None


def test_who_has_the_lost_keys_of_an_id_says_nothing_for_whoever_has_it_now(store: Store, enrolment: Enrolment) -> None:
    directory = Directory(store.gateways)
    token = directory.create_token(NOW, uses=2)
    lost = x509.load_pem_x509_certificate(enrolment.enrol(request(token), NOW).certificates.signature_chain.encode())
    directory.release(pki.make_gateway_id(1), SOON)
    answer = enrolment.enrol(other_keys(token), SOON)
    present = x509.load_pem_x509_certificate(answer.certificates.signature_chain.encode())
    assert left_by(store, directory, 1, lost) == "cms_signer"
    assert store.gateways.active_by_curve_key(bytes([3]) * 32) is not None
    assert [left_by(store, directory, 3, present) for _ in range(2)] == ["", ""], "also where the answer was lost"
    assert store.gateways.active_by_curve_key(bytes([3]) * 32) is None


def test_only_an_active_gateways_id_is_released(store: Store, enrolment: Enrolment, kept: IrrevocableLog) -> None:
    directory = Directory(store.gateways, kept)
    token = directory.create_token(NOW, uses=5)
    for number in (1, 2):
        enrolment.enrol(request(token, number), NOW)
    assert directory.revoke(pki.make_gateway_id(2), NOW)
    for number, expected in ((2, "its id is not given out again"), (9, "there is none")):
        with pytest.raises(LocalProtocolError, match=expected):
            directory.release(pki.make_gateway_id(number), SOON)
    directory.release(pki.make_gateway_id(1), SOON)
    with pytest.raises(LocalProtocolError, match="released already"):
        directory.release(pki.make_gateway_id(1), SOON)
    assert refused(enrolment, replace(other_keys(token), gateway_id=pki.make_gateway_id(2))) == "gateway_id_mismatch"
    device = pki.make_gateway_id(2)
    assert refused(enrolment, replace(other_keys(token), gateway_id=device, package=package(3, device))) == (
        "duplicate_gateway"
    )


# --- revocation lists ------------------------------------------------------------------------------------------------


def test_a_revoked_gateway_is_on_the_list_at_once(
    store: Store, authority: CertificateAuthority, publisher: RevocationPublisher, enrolled: bytes
) -> None:
    leaf = pki.load_certificate(enrolled)

    def check(now: datetime) -> None:
        lists = publisher.lists(now)
        pki.verify_chain(leaf, [authority.sub_ca], authority.root, now, revocations=lists)

    check(NOW)
    first = publisher.bundle(NOW)
    assert publisher.bundle(NOW + timedelta(minutes=59)) == first
    assert publisher.bundle(NOW + timedelta(minutes=61)) != first
    assert Directory(store.gateways).revoke("ESTK0100000001", NOW)
    with pytest.raises(RemoteProtocolError, match="certificate_revoked"):
        check(NOW + timedelta(seconds=1))
    revoked = store.certificates.revoked(round(NOW.timestamp() * 1000))
    assert len(revoked) == 3
    # Certificates that have run out need no list.
    assert store.certificates.revoked(round((NOW + timedelta(days=731)).timestamp() * 1000)) == []


def test_offline_lists_are_renewed_in_the_second_half_of_their_time(tmp_path: Path) -> None:
    home = tmp_path / "pki"
    assert offline_list(home, "root", NOW) is None
    CertificateAuthority.create(home, NOW)
    revoke_offline(home, "root", 77, NOW)
    first = offline_list(home, "root", NOW + timedelta(days=180))
    assert first == (home / "root-crl.pem").read_bytes()
    second = offline_list(home, "root", NOW + timedelta(days=190))
    assert second is not None
    assert second != first
    assert [each.serial_number for each in x509.load_pem_x509_crl(second)] == [77]
    (home / "root-crl.pem").write_text("junk")
    with pytest.raises(LocalProtocolError, match="revocation list"):
        offline_list(home, "root", NOW)


# --- participants ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "roles"), [(administrator_keys, pki.ADMINISTRATOR_TRIPLE),
                                             (participant_keys, pki.PARTICIPANT_TRIPLE)])  # fmt: skip
def test_participants_have_a_triple_that_is_renewed_in_its_last_tenth(
    tmp_path: Path, make: Any, roles: tuple[pki.Role, ...]
) -> None:
    authority = CertificateAuthority.create(tmp_path / "pki", NOW, curve=ec.SECP384R1)
    made = make(tmp_path / "keys", authority, NOW)
    tls, *above = x509.load_pem_x509_certificates(made.tls_chain.read_bytes())
    for role, certificate in zip(roles, (made.signature.certificate, made.encryption.certificate, tls), strict=True):
        pki.verify_chain(certificate, above, authority.root, NOW, role=role)
    assert made.tls_key.stat().st_mode & 0o777 == 0o600
    kept = make(tmp_path / "keys", authority, NOW + timedelta(days=600))
    assert kept.signature.certificate == made.signature.certificate
    renewed = make(tmp_path / "keys", authority, NOW + timedelta(days=700))
    assert renewed.signature.certificate != made.signature.certificate
    assert renewed.signature.certificate.public_key() == made.signature.certificate.public_key()


def test_the_web_certificate_is_renewed_in_the_last_tenth_of_its_life(tmp_path: Path) -> None:
    home = tmp_path / "pki"
    authority = CertificateAuthority.create(home, NOW, hosts=["gwa.example", "127.0.0.1"])
    before = (home / ca.TLS_CHAIN_FILE).read_bytes()
    renew_web_certificate(home, authority, NOW + timedelta(days=600))
    assert (home / ca.TLS_CHAIN_FILE).read_bytes() == before
    later = NOW + timedelta(days=700)
    renew_web_certificate(home, authority, later)
    tls, *above = x509.load_pem_x509_certificates((home / ca.TLS_CHAIN_FILE).read_bytes())
    verified = pki.verify_chain(tls, above, authority.root, later, role=pki.Role.ADMINISTRATOR_TLS)
    assert verified.not_after > later + timedelta(days=600)
    names = tls.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["gwa.example", "127.0.0.1"]
    (home / ca.TLS_CHAIN_FILE).write_text("junk")
    with pytest.raises(LocalProtocolError, match="certificates in PEM"):
        renew_web_certificate(home, authority, later)
    (home / ca.TLS_CHAIN_FILE).unlink()
    renew_web_certificate(home, authority, later)
    assert not (home / ca.TLS_CHAIN_FILE).exists()
