"""`stromkreis pki` from a newcomer's seat."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner, Result

from protocol import pki
from stromkreis.pki import app

KEY = ec.derive_private_key(77, ec.BrainpoolP256R1())


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = run("init", "--pki", tmp_path / "pki", "--organisation", "Stadtwerk", "--host", "gwa.example")
    assert made.exit_code == 0, made.output
    return tmp_path / "pki"


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_init_makes_all_that_a_coordinator_reads_and_once(home: Path) -> None:
    before = contents(home)
    triples = {f"{who}-{use}.{kind}" for who in ("gwa", "emt") for use in ("signature", "encryption", "tls")
               for kind in ("key", "pem")}  # fmt: skip
    others = {f"{stem}.{kind}" for stem in ("root", "sub-ca", "coordinator-tls", "tariff") for kind in ("key", "pem")}
    assert set(before) == triples | others | {"root-crl.pem"}
    assert {path.stat().st_mode & 0o077 for path in home.glob("*.key")} == {0}
    again = run("init", "--pki", home)
    assert (again.exit_code, again.output) == (0, f"{home} has a whole SM-PKI already\n")
    assert contents(home) == before


def test_init_makes_what_is_missing_and_not_the_roots_key(home: Path) -> None:
    before = contents(home)
    for name in ("tariff.key", "tariff.pem", "root.key"):
        (home / name).unlink()
    again = run("init", "--pki", home)
    assert (again.exit_code, again.output.splitlines()[0]) == (0, f"made in {home}: tariff.key, tariff.pem")
    assert {name for name, data in before.items() if contents(home).get(name) != data} == {
        "root.key", "tariff.key", "tariff.pem",
    }  # fmt: skip


def test_init_takes_directory_and_names_from_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "stromkreis.toml"
    config.write_text(
        f'[coordinator]\npki_dir = "{tmp_path}/pki"\n[coordinator.web]\nlisten = ["https://0.0.0.0:1"]\n'
        'public_url = "https://gwa.example:7381"\n'
    )
    assert run("init", "-c", config, "--host", "other.example").exit_code == 0
    tls = x509.load_pem_x509_certificates((tmp_path / "pki" / "coordinator-tls.pem").read_bytes())[0]
    names = tls.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["gwa.example", "localhost", "other.example"]


def test_a_half_pki_is_not_completed(home: Path) -> None:
    (home / "root.pem").unlink()
    again = run("init", "--pki", home)
    assert (again.exit_code, "has sub-ca.pem but no root.pem" in again.stderr) == (1, True)


def test_issue_show_verify(home: Path, tmp_path: Path) -> None:
    request, chain = tmp_path / "request.der", tmp_path / "chain.pem"
    request.write_bytes(pki.build_request(KEY, "ESTK0100000001"))
    issued = run("issue", request, "--out", chain, "--pki", home)
    assert issued.exit_code == 0, issued.output
    assert "ESTK0100000001" in issued.output
    shown = run("show", chain)
    assert "CN=ESTK0100000001.SMGW" in shown.output
    assert "OU=Stadtwerk.GWA" in shown.output
    good = run("verify", chain, "--root", home / "root.pem")
    assert (good.exit_code, "good for gateway signature" in good.output) == (0, True)
    wrong = run("verify", chain, "--root", home / "root.pem", "--role", "gateway TLS")
    assert (wrong.exit_code, "key_usage" in wrong.stderr) == (1, True)
    run("init", "--pki", tmp_path / "other")
    foreign = run("verify", chain, "--root", tmp_path / "other" / "root.pem")
    assert (foreign.exit_code, "unknown_issuer" in foreign.stderr) == (1, True)
    pem = tmp_path / "request.pem"
    pem.write_bytes(x509.load_der_x509_csr(request.read_bytes()).public_bytes(Encoding.PEM))
    assert run("issue", pem, "--out", chain, "--pki", home).exit_code == 0


def test_what_is_wrong_is_said(home: Path, tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_text("nothing")
    assert "request_malformed" in run("issue", junk, "--out", tmp_path / "x", "--pki", home).stderr
    assert "no certificate" in run("show", junk).stderr
    request = tmp_path / "request.der"
    request.write_bytes(pki.build_request(KEY, "ESTK0100000001"))
    assert "pki init" in run("issue", request, "--out", tmp_path / "x", "--pki", tmp_path / "nowhere").stderr


def test_token(tmp_path: Path) -> None:
    (tmp_path / "coordinator.sqlite").touch()
    database = f"sqlite:///{tmp_path / 'coordinator.sqlite'}"
    first, second = (run("token", "--database", database, "--uses", 5, "--area", "Nord") for _ in range(2))
    assert first.output.startswith("stk_")
    assert first.output != second.output
    refused = run("token", "--database", database, "--area", " ")
    assert (refused.exit_code, "area_name" in refused.stderr) == (1, True)


NODE = """
[node]
root_certificate = "{home}/root.pem"
data_dir = "{data}"

[node.fleet]
count = 3
"""


def test_a_manufacturer_seals_the_gateways_of_a_node_once(home: Path, tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text(NODE.format(home=home, data=tmp_path / "node"))
    early = run("seal", "--config", config, "--pki", home)
    assert (early.exit_code, "manufacturer" in early.stderr) == (1, True)
    assert run("manufacturer", "Zaehlerwerk", "--pki", home).exit_code == 0
    again = run("manufacturer", "Zaehlerwerk", "--pki", home)
    assert (again.exit_code, "already" in again.stderr) == (1, True)
    sealed = run("seal", "--config", config, "--pki", home)
    assert (sealed.exit_code, sealed.output) == (0, "3 gateways got their quality seal from Zaehlerwerk.GWH\n")
    assert run("seal", "--config", config, "--pki", home).output.startswith("0 gateways")


def test_a_revoked_serial_is_on_the_list_and_refused(home: Path, tmp_path: Path) -> None:
    (sub_ca,) = x509.load_pem_x509_certificates((home / "sub-ca.pem").read_bytes())
    check = ("verify", home / "sub-ca.pem", "--root", home / "root.pem", "--role", "sub-CA")
    wrong = run("revoke-serial", "not hexadecimal", "--ca", "root", "--pki", home)
    assert (wrong.exit_code, "hexadecimal" in wrong.stderr) == (1, True)
    absent = run("revoke-serial", "77", "--ca", "manufacturer", "--pki", home)
    assert (absent.exit_code, "without the CA's key" in absent.stderr) == (1, True)
    assert run("revoke-serial", "77", "--ca", "root", "--pki", home).exit_code == 0
    good = run(*check, "--lists", home / "root-crl.pem")
    assert good.exit_code == 0, good.output
    assert run("revoke-serial", f"{sub_ca.serial_number:x}", "--ca", "root", "--pki", home).exit_code == 0
    bad = run(*check, "--lists", home / "root-crl.pem")
    assert (bad.exit_code, "certificate_revoked" in bad.stderr, "RFC 5280" in bad.stderr) == (1, True, True)
    assert run(*check).exit_code == 0


def test_a_pki_is_made_on_the_curve_asked_for(tmp_path: Path) -> None:
    assert run("init", "--pki", tmp_path / "pki", "--curve", "secp384r1").exit_code == 0
    (root,) = x509.load_pem_x509_certificates((tmp_path / "pki" / "root.pem").read_bytes())
    key = root.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp384r1"
    assert run("init", "--pki", tmp_path / "other", "--curve", "secp224r1").exit_code == 2
