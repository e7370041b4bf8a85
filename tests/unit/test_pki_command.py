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


def test_init_does_not_overwrite(home: Path) -> None:
    again = run("init", "--pki", home)
    assert again.exit_code == 1
    assert "already" in again.stderr


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
