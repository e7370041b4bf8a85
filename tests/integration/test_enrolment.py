"""Enrolment: tokens, the directory, and everything that must be refused."""

from __future__ import annotations

import stat
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import text

from coordinator.gwa import ca
from coordinator.gwa.ca import CertificateAuthority
from coordinator.gwa.enrolment import Directory, Enrolment, EnrolmentRequest
from coordinator.storage.gateways import GatewayStatus
from coordinator.storage.store import Store
from protocol import pki
from protocol.errors import LocalProtocolError, RemoteProtocolError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEYS = [ec.derive_private_key(n, ec.BrainpoolP256R1()) for n in range(100, 120)]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.create(tmp_path_factory.mktemp("pki") / "pki", NOW)


@pytest.fixture
def store(any_store: Store) -> Store:
    return any_store


@pytest.fixture
def enrolment(store: Store, authority: CertificateAuthority) -> Enrolment:
    return Enrolment(store.gateways, authority, coordinator_curve_key=b"c" * 32, endpoint="tcp://127.0.0.1:5555")


def request(token: str, number: int = 1, *, area: str = "Nordring", curve: int | None = None) -> EnrolmentRequest:
    device = pki.make_gateway_id(number)
    curve_key = bytes([curve or number]) * 32
    return EnrolmentRequest(token, device, area, pki.build_request(KEYS[number], device), curve_key)


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
    leaf, *above = x509.load_pem_x509_certificates(answer.certificate_chain.encode())
    verified = pki.verify_chain(leaf, above, authority.root, NOW)
    assert verified.public_key == KEYS[1].public_key()
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
        assert refused(enrolment, replace(request("stk_guess"), signing_request=b"junk")) == "token_unknown"


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
    forged = pki.build_request(KEYS[2], good.gateway_id)[:-3] + b"\x00\x00\x01"
    bad = {
        "duplicate_gateway": replace(request(token, 3), gateway_id="ESTK0100000001",
                                     signing_request=pki.build_request(KEYS[3], "ESTK0100000001")),
        "duplicate_key": replace(good, curve_key=b"\x01" * 32),
        "gateway_id_mismatch": replace(good, gateway_id="ESTK0100000009"),
        "curve_key": replace(good, curve_key=b"short"),
        "area_name": replace(good, area=" \n"),
        "request_signature": replace(good, signing_request=forged),
        "request_malformed": replace(good, signing_request=b"\x30\x00"),
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
