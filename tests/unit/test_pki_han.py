"""HAN certificates by chapter 4: those we make, and what is said of others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocol import pki
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.pki import han

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TIMES: dict[str, Any] = {"not_before": NOW, "not_after": NOW + timedelta(days=700)}
GATEWAY = "ESTK0100000007"


@cache
def key(name: str, curve: type[ec.EllipticCurve] = ec.BrainpoolP256R1) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


@cache
def ca() -> x509.Certificate:
    return han.make_service_ca(pki.subject("Stromkreis-Service.CA"), key("ca"), serial=1 << 70, **TIMES)


def service() -> x509.Certificate:
    return han.issue_service(
        "technician-12", key("srv").public_key(), ca=ca(), ca_key=key("ca"), serial=1 << 71, **TIMES
    )


def other(
    *extensions: tuple[x509.ExtensionType, bool], name: x509.Name | None = None, issuer: x509.Name | None = None,
    serial: int = 1 << 70, signer: ec.EllipticCurvePrivateKey | None = None,
    curve: type[ec.EllipticCurve] = ec.BrainpoolP256R1,
) -> x509.Certificate:  # fmt: skip
    mine = key("other", curve)
    subject = name or han.make_self_signed(han.HanRole.GATEWAY, GATEWAY, key("g"), serial=1 << 70, **TIMES).subject
    builder = x509.CertificateBuilder(
        issuer or subject, subject, mine.public_key(), serial, TIMES["not_before"], TIMES["not_after"]
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    return builder.sign(signer or mine, hashes.SHA256())


def usage(*, digital: bool = True) -> x509.KeyUsage:
    return x509.KeyUsage(digital, False, False, False, not digital, False, False, False, False)


GOOD: list[tuple[x509.ExtensionType, bool]] = [
    (usage(), False),
    (x509.BasicConstraints(False, None), False),
    (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
]


@pytest.mark.parametrize("curve", pki.CURVES, ids=lambda curve: curve.name)
@pytest.mark.parametrize("role", list(han.HanRole))
def test_own_certificates_keep_the_profile(role: han.HanRole, curve: type[ec.EllipticCurve]) -> None:
    made = han.make_self_signed(role, GATEWAY, key("own", curve), serial=1 << 70, sequence=3, **TIMES)
    assert han.deviations(made) == []
    han.require_profile(made)
    assert made.subject == made.issuer
    assert made.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == f"{GATEWAY.lower()}.{role.value}"
    usage_ = made.extensions.get_extension_for_class(x509.KeyUsage)
    assert not usage_.critical
    assert usage_.value.digital_signature
    names = [e.value for e in made.extensions if isinstance(e.value, x509.SubjectAlternativeName)]
    device = role in {han.HanRole.GATEWAY, han.HanRole.CLS}
    assert [n.get_values_for_type(x509.DNSName) for n in names] == ([[f"{GATEWAY.lower()}.sm"]] if device else [])


def test_a_service_technicians_certificate_stands_below_its_ca_only() -> None:
    han.require_profile(service(), ca(), now=NOW)
    stranger = han.make_service_ca(pki.subject("Stromkreis-Service.CA"), key("ca2"), serial=1 << 70, **TIMES)
    with pytest.raises(RemoteProtocolError, match=r"signature does not hold \(table 4\.3\)"):
        han.require_profile(service(), stranger, now=NOW)
    with pytest.raises(RemoteProtocolError, match=r"issuer is not the CA \(table 4\.4\)"):
        han.require_profile(service(), other(*GOOD), now=NOW)
    with pytest.raises(RemoteProtocolError, match=r"out of date \(4\.3\.4\)"):
        han.require_profile(service(), ca(), now=NOW + timedelta(days=701))
    issued = han.deviations(other(*GOOD, issuer=service().subject, signer=key("srv")), service())
    assert "the issuer is no CA (4.6)" in issued


def test_time_does_not_count_for_self_signed_ones() -> None:
    made = han.make_self_signed(han.HanRole.CONSUMER, "kunde-1", key("con"), serial=1 << 70, **TIMES)
    han.require_profile(made, now=NOW + timedelta(days=10_000))


def test_each_deviation_is_named_with_its_section() -> None:
    assert han.deviations(other(*GOOD)) == []
    name = han.make_self_signed(han.HanRole.GATEWAY, GATEWAY, key("g"), serial=1 << 70, **TIMES).subject

    def renamed(oid: x509.ObjectIdentifier, value: str | None) -> x509.Name:
        kept = [attribute for attribute in name if attribute.oid != oid]
        return x509.Name([*kept, *([] if value is None else [x509.NameAttribute(oid, value)])])

    policies = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3"), None)])
    period = x509.PrivateKeyUsagePeriod(TIMES["not_before"], TIMES["not_after"])
    points = x509.CRLDistributionPoints(
        [x509.DistributionPoint([x509.UniformResourceIdentifier("http://example.org/")], None, None, None)]
    )
    host = x509.SubjectAlternativeName([x509.DNSName("a.sm")])
    cases = {
        "serial number is not a positive number of 8 to 20 octets (table 4.4)": other(*GOOD, serial=77),
        "issuer is not the subject (4.3.3)": other(*GOOD, issuer=pki.subject("x.CA")),
        "public key is not on a named curve of TR-03116-3 (4.3.2)": other(*GOOD, curve=ec.SECP224R1),
        "common name has no identification of DIN 43849 with medium E (table 4.6)": other(
            *GOOD, name=renamed(NameOID.COMMON_NAME, "1stk0100000007.smgw")
        ),
        "common name is not <id>.<function> (tables 4.6, 4.7)": other(
            *GOOD, name=renamed(NameOID.COMMON_NAME, "gateway")
        ),
        "organisation names an SM-PKI (table 4.6)": other(
            *GOOD, name=renamed(NameOID.ORGANIZATION_NAME, "SM-Test-PKI")
        ),
        "country or serial number is missing (table 4.6)": other(*GOOD, name=renamed(NameOID.COUNTRY_NAME, None)),
        "serial number of the subject is not 1 to 2^31-1 (tables 4.6, 4.7)": other(
            *GOOD, name=renamed(NameOID.SERIAL_NUMBER, "0")
        ),
        "KeyUsage is not digitalSignature, not critical (4.3.5.1)": other((usage(digital=False), False), *GOOD[1:]),
        "BasicConstraints is not cA FALSE, not critical (4.3.5.2)": other(
            GOOD[0], (x509.BasicConstraints(True, None), False), GOOD[2]
        ),
        "ExtendedKeyUsage is not for TLS servers and clients, not critical (4.3.5.4)": other(*GOOD[:2]),
        "SubjectAltName is critical (4.3.5.3)": other(*GOOD, (host, True)),
        "CertificatePolicies in a self-signed certificate (table 4.5)": other(*GOOD, (policies, False)),
        "PrivateKeyUsagePeriod in a self-signed certificate (table 4.5)": other(*GOOD, (period, False)),
        "CRLDistributionPoints in a self-signed certificate (table 4.5)": other(*GOOD, (points, False)),
        "signature does not hold (table 4.3)": other(*GOOD, signer=key("somebody")),
    }
    for told, certificate in cases.items():
        found = han.deviations(certificate)
        assert told in found, (told, found)
        assert found == [told] or told.startswith(("issuer", "KeyUsage"))


def test_extensions_beyond_the_table_are_for_self_signed_ones_only() -> None:
    own = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), False)
    assert han.deviations(other(*GOOD, own)) == []
    critical = [(value, not isinstance(value, x509.ExtendedKeyUsage)) for value, _ in GOOD]
    name = service().subject
    issued = other(*critical, own, name=name, issuer=ca().subject, signer=key("ca"))
    found = han.deviations(issued, ca())
    assert "extension 1.2.3.4 is not allowed (table 4.5)" in found
    assert "authorityKeyIdentifier is missing (table 4.5)" in found


def test_what_would_not_stand_is_not_made() -> None:
    with pytest.raises(LocalProtocolError, match=r"table 4\.4"):
        han.make_self_signed(han.HanRole.GATEWAY, GATEWAY, key("g"), serial=5, **TIMES)
    with pytest.raises(LocalProtocolError, match=r"table 4\.6"):
        han.make_self_signed(han.HanRole.GATEWAY, "GATEWAY7", key("g"), serial=1 << 70, **TIMES)


def test_the_gateways_sm_pki_certificate_serves_at_home_too() -> None:
    """Type C: the profile of the SM-PKI, at most two years (section 4.2)."""
    root_key, sub_key = key("root"), key("sub")
    root = pki.issue(
        pki.Role.ROOT, pki.subject("R.CA"), root_key.public_key(), issuer=None, issuer_key=root_key, serial=1 << 70,
        **TIMES,
    )  # fmt: skip
    sub = pki.issue(
        pki.Role.SUB_CA, pki.subject("S.CA"), sub_key.public_key(), issuer=root, issuer_key=root_key, serial=1 << 71,
        **TIMES,
    )  # fmt: skip
    tls = pki.issue(
        pki.Role.GATEWAY_TLS, pki.subject(f"{GATEWAY}.SMGW", unit="Stromkreis.GWA"), key("g").public_key(), issuer=sub,
        issuer_key=sub_key, serial=1 << 72, **TIMES,
    )  # fmt: skip
    assert pki.verify_chain(tls, [sub], root, NOW, role=pki.Role.GATEWAY_TLS).common_name == f"{GATEWAY}.SMGW"
