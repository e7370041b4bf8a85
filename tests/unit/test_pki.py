"""SM-PKI certificates: what stands, and every way in which one must not."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from protocol import pki
from protocol.errors import LocalProtocolError, RemoteProtocolError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
START = NOW - timedelta(days=30)
END = NOW + timedelta(days=365)
DEVICE = "ESTK0100000007"


@cache
def key(name: str, curve: type[ec.EllipticCurve] = ec.BrainpoolP256R1) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


@cache
def root(name: str = "root", end: datetime = END) -> x509.Certificate:
    return pki.issue(
        pki.Role.ROOT, pki.subject("SM-Demo-Root.CA"), key(name).public_key(), issuer=None, issuer_key=key(name),
        serial=1 << 70, not_before=START, not_after=end,
    )  # fmt: skip


@cache
def sub_ca(name: str = "sub", above: str = "root", end: datetime = END) -> x509.Certificate:
    return pki.issue(
        pki.Role.SUB_CA, pki.subject("Stromkreis.CA"), key(name).public_key(), issuer=root(above),
        issuer_key=key(above), serial=(1 << 70) + 1, not_before=START, not_after=end,
    )  # fmt: skip


@cache
def leaf(
    role: pki.Role = pki.Role.GATEWAY_SIGNATURE, name: str = f"{DEVICE}.SMGW", *, end: datetime = END,
    start: datetime = START, below: str = "sub", unit: str | None = None,
) -> x509.Certificate:  # fmt: skip
    return pki.issue(
        role, pki.subject(name, unit=unit or "Stromkreis.GWA"), key("leaf").public_key(), issuer=sub_ca(below),
        issuer_key=key(below), serial=(1 << 70) + 2, not_before=start, not_after=end,
    )  # fmt: skip


def forged(
    *, issuer: x509.Certificate, signer: ec.EllipticCurvePrivateKey, public_key: Any = None, ca: bool = False,
    path_length: int | None = None, usage: x509.KeyUsage | None = None, purposes: bool = False,
    unknown: bool = False, name: str = f"{DEVICE}.SMGW", identifier: x509.Certificate | None = None,
    digest: Any = None, leave_out: tuple[type, ...] = (),
) -> x509.Certificate:  # fmt: skip
    """A certificate that `issue` would refuse to make."""
    public = public_key or key("forged").public_key()
    issuer_key: Any = (identifier or issuer).public_key()
    builder = x509.CertificateBuilder(issuer.subject, pki.subject(name), public, 1 << 71, START, END)
    profile = pki.PROFILES[pki.Role.GATEWAY_SIGNATURE]
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca, path_length), True),
        (usage or profile.key_usage(), True),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), False),
    ]
    if purposes:
        extensions.append((x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]), False))
    if unknown:
        extensions.append((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True))
    for value, critical in extensions:
        if not isinstance(value, leave_out):
            builder = builder.add_extension(value, critical=critical)
    return builder.sign(signer, digest or hashes.SHA256())


def refused(certificate: x509.Certificate, *intermediates: x509.Certificate, now: datetime = NOW, **kw: object) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        pki.verify_chain(certificate, intermediates, root(), now, **kw)  # type: ignore[arg-type]
    return caught.value.reason


def test_a_gateway_certificate_stands_and_says_for_how_long() -> None:
    verified = pki.verify_chain(leaf(end=NOW + timedelta(days=9)), [sub_ca()], root(), NOW)
    assert verified.common_name == f"{DEVICE}.SMGW"
    assert verified.public_key == key("leaf").public_key()
    assert (verified.not_before, verified.not_after) == (START, NOW + timedelta(days=9))
    assert verified.holds_at(NOW)
    assert not verified.holds_at(NOW + timedelta(days=10))


def test_every_role_stands_for_itself_and_for_no_other() -> None:
    made = {
        pki.Role.ROOT: root(),
        pki.Role.SUB_CA: sub_ca(),
        pki.Role.GATEWAY_SIGNATURE: leaf(),
    }
    names = {".SMGW": f"{DEVICE}.SMGW", ".GWA": "Stromkreis.GWA", ".EMT": "Stadtwerk.EMT"}
    for role, profile in pki.PROFILES.items():
        if not profile.is_ca:
            made[role] = leaf(role, names[profile.name_suffix], unit="Zaehlerwerk.GWH" if profile.sealed else None)
    assert set(made) == set(pki.Role)
    for role, certificate in made.items():
        pki.verify_chain(certificate, [sub_ca()], root(), NOW, role=role)
        for other in set(made) - {role, *({pki.Role.ROOT, pki.Role.SUB_CA} if pki.PROFILES[role].is_ca else ())}:
            with pytest.raises(RemoteProtocolError):
                pki.verify_chain(certificate, [sub_ca()], root(), NOW, role=other)


def test_the_same_input_gives_the_same_certificate() -> None:
    assert pki.to_der(leaf.__wrapped__()) == pki.to_der(leaf.__wrapped__())
    assert pki.build_request(key("leaf"), DEVICE) == pki.build_request(key("leaf"), DEVICE)


def test_times() -> None:
    assert refused(leaf(end=NOW - timedelta(seconds=1)), sub_ca()) == "certificate_expired"
    assert refused(leaf(start=NOW + timedelta(seconds=1)), sub_ca()) == "certificate_not_yet_valid"
    assert refused(leaf(), sub_ca(), now=END + timedelta(seconds=1)) == "certificate_expired"
    soon = NOW + timedelta(days=1)
    old_ca = sub_ca(end=soon)
    assert refused(leaf(), old_ca, now=soon + timedelta(seconds=1)) == "certificate_expired"


def test_other_pki() -> None:
    assert refused(leaf()) == "unknown_issuer"
    assert refused(leaf(), root()) == "unknown_issuer"
    stranger = sub_ca("sub2", "root2")
    assert stranger.subject == sub_ca().subject
    assert refused(leaf(below="sub"), stranger) == "unknown_issuer"
    foreign = pki.issue(
        pki.Role.GATEWAY_SIGNATURE, pki.subject(f"{DEVICE}.SMGW"), key("leaf").public_key(), issuer=stranger,
        issuer_key=key("sub2"), serial=1 << 72, not_before=START, not_after=END,
    )  # fmt: skip
    assert refused(foreign, stranger) == "unknown_issuer"
    assert refused(foreign, stranger, root("root2")) == "unknown_issuer"
    # with the right names and key identifiers nothing but the signature is left to tell
    assert refused(forged(issuer=sub_ca(), signer=key("sub2")), sub_ca()) == "certificate_signature"


def test_a_sub_ca_that_the_root_did_not_sign_is_refused_every_time() -> None:
    """Signatures of CA certificates that held are remembered; one with the same name and key is another."""
    pki.verify_chain(leaf(), [sub_ca()], root(), NOW)
    false = forged(
        issuer=root(), signer=key("sub2"), public_key=key("sub").public_key(), ca=True, path_length=0,
        usage=pki.PROFILES[pki.Role.SUB_CA].key_usage(), name="Stromkreis.CA",
    )  # fmt: skip
    for _ in range(2):
        assert refused(leaf(), false) == "certificate_signature"
    pki.verify_chain(leaf(), [sub_ca()], root(), NOW)


def test_a_gateway_cannot_certify() -> None:
    child = forged(issuer=leaf(), signer=key("leaf"))
    assert refused(child, leaf(), sub_ca()) == "basic_constraints"


def test_path_length() -> None:
    ca_usage = pki.PROFILES[pki.Role.SUB_CA].key_usage()
    deep = forged(
        issuer=sub_ca(), signer=key("sub"), ca=True, path_length=0, usage=ca_usage, name="Deep.CA",
        public_key=key("deep").public_key(),
    )  # fmt: skip
    assert refused(forged(issuer=deep, signer=key("deep")), deep, sub_ca()) == "path_length"
    unbounded = forged(
        issuer=root(), signer=key("root"), ca=True, usage=ca_usage, name="Free.CA", public_key=key("deep").public_key()
    )
    assert refused(forged(issuer=unbounded, signer=key("deep")), unbounded) == "path_length"
    assert refused(leaf(), *[sub_ca()] * 5) == "path_length"


def test_wrong_usage() -> None:
    ca_usage = pki.PROFILES[pki.Role.SUB_CA].key_usage()
    assert refused(forged(issuer=sub_ca(), signer=key("sub"), usage=ca_usage), sub_ca()) == "key_usage"
    assert refused(forged(issuer=sub_ca(), signer=key("sub"), purposes=True), sub_ca()) == "key_usage"
    assert refused(leaf(pki.Role.GATEWAY_TLS), sub_ca()) == "key_usage"
    assert refused(leaf(), sub_ca(), role=pki.Role.GATEWAY_TLS) == "key_usage"
    assert refused(forged(issuer=sub_ca(), signer=key("sub"), ca=True, path_length=0), sub_ca()) == "basic_constraints"
    signing_ca = forged(
        issuer=root(), signer=key("root"), ca=True, path_length=0, name="Sign.CA", public_key=key("deep").public_key()
    )
    assert refused(forged(issuer=signing_ca, signer=key("deep")), signing_ca) == "key_usage"


def test_extensions() -> None:
    assert refused(forged(issuer=sub_ca(), signer=key("sub"), unknown=True), sub_ca()) == "certificate_extension"
    for kind in (x509.BasicConstraints, x509.KeyUsage, x509.AuthorityKeyIdentifier):
        bare = forged(issuer=sub_ca(), signer=key("sub"), leave_out=(kind,))
        assert refused(bare, sub_ca()) == "certificate_extension"


def test_algorithms() -> None:
    for curve in (ec.SECP224R1, ec.SECP256K1, ec.SECP521R1, ec.BrainpoolP512R1):
        other = key(curve.name, curve).public_key()
        told = refused(forged(issuer=sub_ca(), signer=key("sub"), public_key=other), sub_ca())
        assert told == "certificate_algorithm"
    weak = forged(issuer=sub_ca(), signer=key("sub"), digest=hashes.SHA224())
    assert refused(weak, sub_ca()) == "certificate_algorithm"


@pytest.mark.parametrize("name", [DEVICE, f"{DEVICE}.SM", "X.SMGW", f"{DEVICE}.SMGW.CA", f"{DEVICE}7.SMGW", "a.EMT"])
def test_names_that_are_no_gateway(name: str) -> None:
    assert refused(forged(issuer=sub_ca(), signer=key("sub"), name=name), sub_ca()) == "certificate_name"


def test_gateway_id() -> None:
    assert pki.gateway_id(leaf()) == DEVICE == pki.make_gateway_id(7)
    assert pki.gateway_id(leaf(name="estk0100000007.smgw")) == DEVICE  # common names compare without case
    with pytest.raises(RemoteProtocolError, match="certificate_name"):
        pki.gateway_id(sub_ca())
    for arguments in ({"number": 10**8}, {"number": 1, "block": 256}, {"number": 1, "manufacturer": "st"}):
        with pytest.raises(LocalProtocolError):
            pki.make_gateway_id(**arguments)


def test_issue_refuses_what_would_not_stand() -> None:
    with pytest.raises(LocalProtocolError, match="validity"):
        leaf(end=END + timedelta(seconds=1))
    with pytest.raises(LocalProtocolError, match="issuer"):
        pki.issue(
            pki.Role.SUB_CA, pki.subject("A.CA"), key("sub").public_key(), issuer=None, issuer_key=key("root"),
            serial=1, not_before=START, not_after=END,
        )  # fmt: skip


def test_signing_requests() -> None:
    data = pki.build_request(key("leaf"), DEVICE)
    assert pki.check_request(data) == pki.SigningRequest(DEVICE, key("leaf").public_key())
    with pytest.raises(LocalProtocolError):
        pki.build_request(key("leaf"), "gateway 7")

    def reason(form: bytes) -> str:
        with pytest.raises(RemoteProtocolError) as caught:
            pki.check_request(form)
        return caught.value.reason

    def other(name: str, by: ec.EllipticCurvePrivateKey, digest: Any) -> bytes:
        request = x509.CertificateSigningRequestBuilder(pki.subject(name)).sign(by, digest)
        return request.public_bytes(serialization.Encoding.DER)

    assert reason(data[:-4] + bytes(4)) in {"request_signature", "request_malformed"}
    assert reason(b"") == reason(bytes(5000)) == reason(pki.to_der(leaf())) == "request_malformed"
    assert reason(other("root.CA", key("leaf"), hashes.SHA256())) == "certificate_name"
    weak = key("weak", ec.SECP224R1)
    assert reason(other(f"{DEVICE}.SMGW", weak, hashes.SHA256())) == "certificate_algorithm"
    long = key("long", ec.SECP384R1)
    assert reason(other(f"{DEVICE}.SMGW", long, hashes.SHA256())) == "certificate_algorithm"
    assert pki.check_request(pki.build_request(long, DEVICE)).public_key == long.public_key()
    assert reason(other(f"{DEVICE}.SMGW", key("leaf"), hashes.SHA224())) == "certificate_algorithm"


@pytest.mark.parametrize("curve", pki.CURVES, ids=lambda curve: curve.name)
def test_a_pki_stands_on_each_curve(curve: type[ec.EllipticCurve]) -> None:
    keys = [ec.generate_private_key(curve()) for _ in range(3)]
    times: dict[str, Any] = {"not_before": START, "not_after": END}
    top = pki.issue(
        pki.Role.ROOT, pki.subject("R.CA"), keys[0].public_key(), issuer=None, issuer_key=keys[0], serial=1 << 70,
        **times,
    )  # fmt: skip
    below = pki.issue(
        pki.Role.SUB_CA, pki.subject("S.CA"), keys[1].public_key(), issuer=top, issuer_key=keys[0], serial=1 << 71,
        **times,
    )  # fmt: skip
    gateway = pki.issue(
        pki.Role.GATEWAY_ENCRYPTION, pki.subject(f"{DEVICE}.SMGW"), keys[2].public_key(), issuer=below,
        issuer_key=keys[1], serial=1 << 72, **times,
    )  # fmt: skip
    verified = pki.verify_chain(gateway, [below], top, NOW, role=pki.Role.GATEWAY_ENCRYPTION)
    assert verified.public_key == keys[2].public_key()
    assert isinstance(gateway.signature_hash_algorithm, type(pki.signature_hash(keys[0].public_key())))


def test_a_hash_shorter_than_the_issuers_key_is_refused() -> None:
    long = key("long", ec.BrainpoolP384R1)
    top = pki.issue(
        pki.Role.ROOT, pki.subject("SM-Demo-Root.CA"), long.public_key(), issuer=None, issuer_key=long,
        serial=1 << 70, not_before=START, not_after=END,
    )  # fmt: skip
    with pytest.raises(RemoteProtocolError, match=r"SHA384 \(BSI TR-03116-3\)"):
        pki.verify_chain(forged(issuer=top, signer=long), [], top, NOW)


def test_quality_seal_and_operational_certificates_are_not_exchangeable() -> None:
    seal = leaf(pki.Role.SEAL_SIGNATURE, unit="Zaehlerwerk.GWH")
    assert refused(seal, sub_ca()) == "certificate_name"
    assert refused(leaf(), sub_ca(), role=pki.Role.SEAL_SIGNATURE) == "certificate_name"


def test_each_refusal_names_its_clause() -> None:
    with pytest.raises(RemoteProtocolError, match=r"RFC 5280, 6\.1\.3 \(a\)\(2\)"):
        pki.verify_chain(leaf(), [sub_ca()], root(), END + timedelta(seconds=1))
    with pytest.raises(RemoteProtocolError, match=r"RFC 5280, 4\.2\.1\.3 .*TR-03109-4"):
        pki.verify_chain(leaf(), [sub_ca()], root(), NOW, role=pki.Role.GATEWAY_ENCRYPTION)
    text = "".join(path.read_text() for path in Path(pki.__file__).parent.glob("*.py"))
    used = set(re.findall(r'refusal\(\s*"(\w+)"', text))
    assert used == set(pki.CLAUSES)


def test_a_package_asks_for_three_keys_of_one_gateway() -> None:
    keys = [key(name) for name in ("one", "two", "three")]
    parts = [pki.build_request(each, DEVICE) for each in keys]
    checked = pki.check_package(pki.build_package((parts[0], parts[1], parts[2])))
    assert [each.public_key for each in checked] == [each.public_key() for each in keys]
    assert {each.gateway_id for each in checked} == {DEVICE}
    wrong = {
        "request_malformed": [
            pki.build_package((parts[0], parts[1], parts[0])), b"", b"junk", parts[0], bytes(13_000),
            pki.build_package((parts[0], parts[1], b"")), pki.build_package((parts[0], b"\x05\x00", parts[1])),
        ],
        "certificate_name": [
            pki.build_package((parts[0], parts[1], pki.build_request(keys[2], "ESTK0100000008"))),
        ],
    }  # fmt: skip
    for reason, packages in wrong.items():
        for data in packages:
            with pytest.raises(RemoteProtocolError) as caught:
                pki.check_package(data)
            assert caught.value.reason == reason


def test_load_certificate_is_bounded() -> None:
    for data in (b"", b"\x30\x82", bytes(pki.CERTIFICATE_SIZE_MAX + 1), pki.build_request(key("leaf"), DEVICE)):
        with pytest.raises(RemoteProtocolError, match="certificate_malformed"):
            pki.load_certificate(data)
    assert pki.load_certificate(pki.to_der(leaf())) == leaf()
