"""Revocation lists: issued, checked, honoured, and every way in which one must not count."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from protocol import pki
from protocol.errors import LocalProtocolError, RemoteProtocolError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WEEK = timedelta(days=7)
TIMES: dict[str, Any] = {"not_before": NOW - WEEK, "not_after": NOW + 50 * WEEK}
ROOT_KEY, SUB_KEY, LEAF_KEY = (ec.derive_private_key(n, ec.BrainpoolP256R1()) for n in (11, 22, 33))
ROOT = pki.issue(
    pki.Role.ROOT, pki.subject("R.CA"), ROOT_KEY.public_key(), issuer=None, issuer_key=ROOT_KEY, serial=1 << 70, **TIMES
)
SUB = pki.issue(
    pki.Role.SUB_CA, pki.subject("S.CA"), SUB_KEY.public_key(), issuer=ROOT, issuer_key=ROOT_KEY, serial=1 << 71,
    **TIMES,
)  # fmt: skip
LEAF = pki.issue(
    pki.Role.GATEWAY_SIGNATURE, pki.subject("ESTK0100000007.SMGW"), LEAF_KEY.public_key(), issuer=SUB,
    issuer_key=SUB_KEY, serial=1 << 72, **TIMES,
)  # fmt: skip


def pem(
    issuer: x509.Certificate, key: ec.EllipticCurvePrivateKey, *serials: int, number: int = 1,
    until: datetime = NOW + WEEK,
) -> bytes:  # fmt: skip
    made = pki.issue_revocation_list(
        issuer, key, [(serial, NOW) for serial in serials], number=number, this_update=NOW, next_update=until
    )
    return made.public_bytes(serialization.Encoding.PEM)


def lists(*parts: bytes) -> pki.RevocationLists:
    made = pki.RevocationLists()
    made.take(pki.load_revocation_lists(b"".join(parts), [ROOT, SUB]))
    return made


def reason(revocations: pki.RevocationLists, now: datetime = NOW) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        pki.verify_chain(LEAF, [SUB], ROOT, now, revocations=revocations)
    assert "RFC 5280" in caught.value.detail
    return caught.value.reason


def test_a_certificate_on_no_list_stands_until_the_first_list_ends() -> None:
    found = lists(pem(ROOT, ROOT_KEY, until=NOW + 2 * WEEK), pem(SUB, SUB_KEY, 5, 6))
    verified = pki.verify_chain(LEAF, [SUB], ROOT, NOW, revocations=found)
    assert verified.not_after == NOW + WEEK == found.next_update()
    assert not verified.holds_at(NOW + WEEK + timedelta(seconds=1))


def test_revoked_certificates_and_what_a_revoked_ca_issued_are_refused() -> None:
    assert reason(lists(pem(ROOT, ROOT_KEY), pem(SUB, SUB_KEY, LEAF.serial_number))) == "certificate_revoked"
    assert reason(lists(pem(ROOT, ROOT_KEY, SUB.serial_number), pem(SUB, SUB_KEY))) == "certificate_revoked"
    # Another CA's list that has the same number takes nothing.
    other = lists(pem(ROOT, ROOT_KEY, LEAF.serial_number), pem(SUB, SUB_KEY))
    pki.verify_chain(LEAF, [SUB], ROOT, NOW, revocations=other)


def test_a_ca_with_the_key_identifier_of_another_takes_no_revocation_back() -> None:
    rogue_key = ec.derive_private_key(44, ec.BrainpoolP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(SUB.subject)
        .issuer_name(ROOT.subject)
        .public_key(rogue_key.public_key())
        .serial_number(1 << 73)
        .not_valid_before(NOW - WEEK)
        .not_valid_after(NOW + 50 * WEEK)
    )
    for extension in SUB.extensions:  # the subject key identifier among them
        builder = builder.add_extension(extension.value, extension.critical)
    rogue = builder.sign(ROOT_KEY, hashes.SHA256())
    revoked = pem(SUB, SUB_KEY, LEAF.serial_number, number=7)
    forged = pki.issue_revocation_list(rogue, rogue_key, [], number=9, this_update=NOW, next_update=NOW + WEEK)
    with_identifier = (
        x509.CertificateRevocationListBuilder(rogue.subject, NOW, NOW + WEEK)
        .add_extension(
            x509.AuthorityKeyIdentifier(
                rogue.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest, None, None
            ),
            critical=False,
        )
        .add_extension(x509.CRLNumber(9), critical=False)
        .sign(rogue_key, hashes.SHA256())
    )
    for each in (forged, with_identifier):
        for order in ([ROOT, SUB, rogue], [rogue, SUB, ROOT]):
            found = pki.RevocationLists()
            parts = pem(ROOT, ROOT_KEY) + revoked + each.public_bytes(serialization.Encoding.PEM)
            found.take(pki.load_revocation_lists(parts, order))
            assert reason(found) == "certificate_revoked"


def test_without_a_current_list_nothing_stands() -> None:
    assert reason(pki.RevocationLists()) == "revocation_unknown"
    assert reason(lists(pem(SUB, SUB_KEY))) == "revocation_unknown"
    full = lists(pem(ROOT, ROOT_KEY), pem(SUB, SUB_KEY))
    assert reason(full, NOW + WEEK + timedelta(seconds=1)) == "revocation_stale"
    # A revoked one stays revoked however old the list is.
    assert reason(lists(pem(ROOT, ROOT_KEY), pem(SUB, SUB_KEY, LEAF.serial_number)), NOW + 2 * WEEK) == (
        "certificate_revoked"
    )


def test_an_older_list_played_back_takes_nothing_away() -> None:
    found = lists(pem(ROOT, ROOT_KEY), pem(SUB, SUB_KEY, LEAF.serial_number, number=2))
    for number in (1, 2):
        assert not found.take(pki.load_revocation_lists(pem(SUB, SUB_KEY, number=number), [SUB]))
        assert reason(found) == "certificate_revoked"
    assert found.take(pki.load_revocation_lists(pem(SUB, SUB_KEY, number=3), [SUB]))
    pki.verify_chain(LEAF, [SUB], ROOT, NOW, revocations=found)


def test_lists_that_are_none_or_somebody_elses_are_refused() -> None:
    def refused(data: bytes) -> str:
        with pytest.raises(RemoteProtocolError) as caught:
            pki.load_revocation_lists(data, [ROOT, SUB])
        return caught.value.reason

    def forged(*extensions: tuple[x509.ExtensionType, bool], by: Any = SUB_KEY, digest: Any = None) -> bytes:
        builder = x509.CertificateRevocationListBuilder(SUB.subject, NOW, NOW + WEEK)
        for value, critical in extensions:
            builder = builder.add_extension(value, critical=critical)
        return builder.sign(by, digest or hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    good = pem(SUB, SUB_KEY)
    mine = x509.AuthorityKeyIdentifier.from_issuer_public_key(SUB_KEY.public_key())
    delta = x509.DeltaCRLIndicator(1)
    assert refused(good.replace(b"\nM", b"\nX", 1)) == "revocation_malformed"
    assert refused(b"x" * (4 * 2**20 + 1)) == "revocation_malformed"
    assert refused(good * 10) == "revocation_malformed"
    assert refused(forged((mine, False))) == "revocation_malformed"
    assert refused(forged((mine, False), (x509.CRLNumber(1), False), (delta, True))) == "revocation_malformed"
    assert refused(forged((mine, False), (x509.CRLNumber(1), False), by=LEAF_KEY)) == "revocation_signature"
    theirs = x509.AuthorityKeyIdentifier.from_issuer_public_key(LEAF_KEY.public_key())
    other = forged((theirs, False), (x509.CRLNumber(1), False))
    assert pki.load_revocation_lists(other + good, [ROOT, SUB]) == pki.load_revocation_lists(good, [ROOT, SUB])
    weak = forged((mine, False), (x509.CRLNumber(1), False), digest=hashes.SHA224())
    assert refused(weak) == "certificate_algorithm"
    assert pki.load_revocation_lists(b"", [ROOT]) == []
    with pytest.raises(LocalProtocolError, match="does not belong"):
        pem(SUB, ROOT_KEY)


def test_a_bundle_brings_the_cas_that_its_lists_are_of() -> None:
    def bundle(*authorities: x509.Certificate) -> bytes:
        head = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in authorities)
        return head + pem(ROOT, ROOT_KEY) + pem(SUB, SUB_KEY, 5)

    found = pki.RevocationLists()
    assert found.take(pki.load_revocation_bundle(bundle(SUB), ROOT, NOW))
    assert pki.verify_chain(LEAF, [SUB], ROOT, NOW, revocations=found).not_after == NOW + WEEK
    assert [each.serials for each in pki.load_revocation_bundle(bundle(), ROOT, NOW)] == [frozenset()]
    with pytest.raises(RemoteProtocolError, match="unknown_issuer"):
        pki.load_revocation_bundle(bundle(SUB, LEAF), ROOT, NOW)
    with pytest.raises(RemoteProtocolError, match="revocation_malformed"):
        pki.load_revocation_bundle(bundle(*[SUB] * 20), ROOT, NOW)
