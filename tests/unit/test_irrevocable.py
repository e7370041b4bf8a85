"""What a restore of the database must not undo: kept line by line, whatever a crash or a backup does to the file."""

from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.gwa.reconcile import reconcile
from coordinator.storage.certificates import CertificateRecord
from coordinator.storage.gateways import GatewayRecord, GatewayStatus, TokenRecord
from coordinator.storage.irrevocable import IrrevocableLog
from coordinator.storage.store import Store
from protocol import pki

ACTIVE = GatewayStatus.ACTIVE
GATEWAY = GatewayRecord("ESTK0000000001", "Nord", b"der", b"k" * 32, b"c" * 32, ACTIVE, 1000, None, None)
CERTIFICATES = [
    CertificateRecord(f"a{number}", GATEWAY.gateway_id, role, 1, b"der", bytes([number]) * 32, 1000, 10**15)
    for number, role in enumerate(pki.GATEWAY_TRIPLE)
]
TOKEN = TokenRecord(b"t" * 32, "", None, 3, 3, 0, 10**15)


@pytest.fixture
def kept(tmp_path: Path) -> IrrevocableLog:
    return IrrevocableLog(tmp_path / "irrevocable.jsonl")


def test_what_was_kept_is_read_by_the_next_process(kept: IrrevocableLog) -> None:
    kept.revoke_gateway(GATEWAY, CERTIFICATES, 5000)
    kept.use_token(b"t" * 32, 2)
    kept.use_token(b"t" * 32, 1)
    kept.revoke_token(b"u" * 32, 7000)
    kept.call(7)
    kept.reach(7, 3)
    kept.reach(7, 3)
    kept.call(8)
    found = IrrevocableLog(kept.path).read()
    revoked = replace(GATEWAY, status=GatewayStatus.REVOKED, revoked_ms=5000)
    assert found.revoked == {GATEWAY.curve_key: (revoked, CERTIFICATES)}
    assert found.uses_left == {b"t" * 32: 1}
    assert found.tokens_revoked == {b"u" * 32: 7000}
    assert found.reached == {7: 3, 8: -1}
    assert len(kept.path.read_bytes().splitlines()) == 7  # a round is said once
    assert kept.path.stat().st_mode & 0o777 == 0o600


def test_no_file_says_nothing(kept: IrrevocableLog) -> None:
    assert kept.read().reached == {}
    assert not kept.path.exists()


@pytest.mark.parametrize("cut", [1, 10, 25])
def test_a_line_that_a_crash_cut_off_costs_no_other(kept: IrrevocableLog, cut: int) -> None:
    kept.use_token(b"t" * 32, 2)
    kept.reach(7, 3)
    kept.path.write_bytes(kept.path.read_bytes()[:-cut])
    after = IrrevocableLog(kept.path)
    after.reach(8, 1)
    found = after.read()
    assert found.uses_left == {b"t" * 32: 2}
    assert found.reached == ({7: 3, 8: 1} if cut == 1 else {8: 1})


def test_lines_of_a_backup_are_added_once(kept: IrrevocableLog, tmp_path: Path) -> None:
    other = IrrevocableLog(tmp_path / "other.jsonl")
    kept.use_token(b"t" * 32, 2)
    other.use_token(b"t" * 32, 2)
    other.reach(9, 1)
    for _ in range(2):
        kept.merge(other.path.read_bytes().splitlines())
    assert len(kept.path.read_bytes().splitlines()) == 2
    assert kept.read().reached == {9: 1}


@pytest.mark.parametrize("is_known", [True, False], ids=["in the database", "enrolled since the backup"])
def test_a_database_that_was_put_back_has_them_revoked_again(
    kept: IrrevocableLog, tmp_path: Path, *, is_known: bool
) -> None:
    store = Store(f"sqlite:///{tmp_path / 'coordinator.sqlite'}")
    store.gateways.add_token(TOKEN)
    if is_known:
        with store.gateways.enrolment() as transaction:
            assert transaction.add(GATEWAY, CERTIFICATES)
    kept.revoke_gateway(replace(GATEWAY, token=b"another that was made since" + bytes(5)), CERTIFICATES, 5000)
    kept.use_token(TOKEN.digest, 1)
    kept.revoke_token(TOKEN.digest, 6000)
    assert reconcile(store.gateways, kept.read()) == 3
    assert reconcile(store.gateways, kept.read()) == 0
    (gateway,) = store.gateways.page()
    assert (gateway.status, gateway.revoked_ms) == (GatewayStatus.REVOKED, 5000)
    assert store.gateways.active_by_curve_key(GATEWAY.curve_key) is None
    assert sorted(store.certificates.revoked(0)) == [(int(f"a{number}", 16), 5000) for number in range(3)]
    (token,) = store.gateways.tokens()
    assert (token.uses_left, token.revoked_ms) == (1, 6000)
    store.close()


def successor(number: int) -> tuple[GatewayRecord, list[CertificateRecord]]:
    """The gateway that was enrolled as the `number`th under the same id, after the one before was released."""
    gateway = replace(
        GATEWAY, key_digest=bytes([number]) * 32, curve_key=bytes([number + 100]) * 32,
        enrolled_ms=GATEWAY.enrolled_ms + number,
    )  # fmt: skip
    certificates = [
        replace(each, serial=f"b{number}{at}", sequence=number + 1, key_digest=bytes([number + 50, at]) * 16)
        for at, each in enumerate(CERTIFICATES)
    ]
    return gateway, certificates


def test_keys_that_were_revoked_under_a_released_id_stay_out(kept: IrrevocableLog, tmp_path: Path) -> None:
    """The backup is from between the release and the second enrolment, whose gateway was revoked as well."""
    store = Store(f"sqlite:///{tmp_path / 'coordinator.sqlite'}")
    store.gateways.add_token(TOKEN)
    with store.gateways.enrolment() as transaction:
        assert transaction.add(GATEWAY, CERTIFICATES)
    store.gateways.revoke(GATEWAY.gateway_id, 5000)
    store.gateways.release(GATEWAY.gateway_id, 5000)
    second, certificates = successor(1)
    kept.revoke_gateway(GATEWAY, CERTIFICATES, 5000)
    kept.release_gateway(GATEWAY, 5000)
    kept.revoke_gateway(second, certificates, 6000)
    assert reconcile(store.gateways, kept.read()) == 1
    assert reconcile(store.gateways, kept.read()) == 0
    (gateway,) = store.gateways.page()
    assert (gateway.curve_key, gateway.status, gateway.released_ms) == (second.curve_key, GatewayStatus.REVOKED, None)
    assert len(store.certificates.revoked(0)) == 6
    with store.gateways.enrolment() as transaction:
        assert not transaction.take_over(replace(second, curve_key=bytes(31) + b"n"), certificates)
    store.close()


def test_an_id_that_was_released_since_the_backup_is_free_again(kept: IrrevocableLog, tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'coordinator.sqlite'}")
    store.gateways.add_token(TOKEN)
    with store.gateways.enrolment() as transaction:
        assert transaction.add(GATEWAY, CERTIFICATES)
    kept.revoke_gateway(GATEWAY, CERTIFICATES, 5000)
    kept.release_gateway(GATEWAY, 5001)
    assert reconcile(store.gateways, kept.read()) == 2
    (gateway,) = store.gateways.page()
    assert (gateway.status, gateway.released_ms) == (GatewayStatus.REVOKED, 5001)
    second, certificates = successor(1)
    with store.gateways.enrolment() as transaction:  # the gateway that has had the id since enrols again
        assert transaction.take_over(second, certificates)
    assert reconcile(store.gateways, kept.read()) == 0
    assert store.gateways.active_by_curve_key(second.curve_key) is not None
    store.close()


def test_who_was_enrolled_after_a_revocation_is_not_touched_by_it(kept: IrrevocableLog, tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'coordinator.sqlite'}")
    store.gateways.add_token(TOKEN)
    third, certificates = successor(2)
    with store.gateways.enrolment() as transaction:
        assert transaction.add(third, certificates)
    kept.revoke_gateway(GATEWAY, CERTIFICATES, 5000)
    kept.revoke_gateway(*successor(1), 6000)
    assert reconcile(store.gateways, kept.read()) == 2  # their certificates, which the database has forgotten
    assert reconcile(store.gateways, kept.read()) == 0
    assert store.gateways.active_by_curve_key(third.curve_key) is not None
    assert len(store.certificates.revoked(0)) == 6
    store.close()
