"""What an operator does wrong is told in a sentence that names the thing, with exit status 1 or 2 and no traceback."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

import stromkreis.bill
from coordinator.gwa.ca import CertificateAuthority
from node.config import NodeConfig
from node.security.module import KeyDirectory
from node.wan.enrolment import Enroller, RingService
from protocol import pki
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.errors import StromkreisError
from stromkreis.__main__ import build, main
from stromkreis.config import load

ROOT = Path(__file__).parents[2]
NODE = '[node]\nroot_certificate = "{pki}/root.pem"\narea = "Nord"\ndata_dir = "{dir}/node"\nmetrics = "{metrics}"\n'
GATEWAY = '[[node.gateways]]\nid = "ESTK0000000001"\nmeters = ["sml+tcp://127.0.0.1:1"]\ntoken = "stk_x"\n'
Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Run a command in `tmp_path`: its exit status and what it said on stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["stromkreis", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            status = end.code
        else:
            status = 0
        return int(status or 0), capsys.readouterr().err

    return run


@pytest.fixture
def in_the_way(tmp_path: Path) -> Path:
    """A file where a directory is wanted: unusable for root as well."""
    file = tmp_path / "file"
    file.touch()
    return file / "data"


def coordinator(tmp_path: Path, **values: object) -> Path:
    path = tmp_path / "coordinator.toml"
    settings = {"listen": "tcp://127.0.0.1:0", "data_dir": str(tmp_path / "data")} | values
    web = settings.pop("web", ["http://127.0.0.1:0"])
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    path.write_text("\n".join(["[coordinator]", *lines, f"web.listen = {json.dumps(web)}"]))
    return path


def node(tmp_path: Path, metrics: str = "http://127.0.0.1:0") -> Path:
    CertificateAuthority.create(tmp_path / "pki", datetime.now(UTC))
    path = tmp_path / "node.toml"
    path.write_text(NODE.format(pki=tmp_path / "pki", dir=tmp_path, metrics=metrics) + GATEWAY)
    return path


def test_a_data_directory_that_cannot_be_made(call: Call, tmp_path: Path, in_the_way: Path) -> None:
    for arguments in (
        ("coordinator", "-c", coordinator(tmp_path), "--data-dir", in_the_way),
        ("node", "-c", node(tmp_path), "--data-dir", in_the_way),
        ("pki", "init", "--pki", in_the_way),
        ("demo", "--out", in_the_way),
    ):
        status, told = call(*arguments)
        assert status == 1, arguments
        assert str(in_the_way.parent) in told
        assert "Not a directory" in told or "File exists" in told


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+psycopg://user:geheim@127.0.0.1:1/x", "127.0.0.1:1/x: the database cannot be opened"),
        ("postgres://user:geheim@127.0.0.1/x", "postgresql+psycopg://"),
        ("geheim", "expected a URL such as sqlite:///PATH"),
    ],
)
def test_a_database_that_is_not_there(call: Call, tmp_path: Path, url: str, expected: str) -> None:
    path = coordinator(tmp_path, database=url)
    for arguments in (("coordinator", "-c", path), ("pki", "revoke", "X", "-c", path), ("pki", "token", "-c", path)):
        status, told = call(*arguments)
        assert status == 1, arguments
        assert expected in told
        assert "geheim" not in told


def test_a_file_that_is_no_database(call: Call, tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_text("no database at all, but some words in a file")
    status, told = call("coordinator", "-c", coordinator(tmp_path, database=f"sqlite:///{tmp_path}/x.sqlite"))
    assert status == 1
    assert "x.sqlite: the database cannot be opened (file is not a database)" in told


def test_a_token_wants_the_database_of_a_coordinator_and_one_of_its_areas(call: Call, tmp_path: Path) -> None:
    path = coordinator(tmp_path, areas=["Nord"])
    for arguments in (("token",), ("revoke", "ESTK0000000001")):
        status, told = call("pki", *arguments)
        assert status == 1
        assert "var/coordinator/coordinator.sqlite: no such file; start the coordinator once" in told
        assert not (tmp_path / "var").exists(), "what nobody reads would admit or shut out nobody"
    assert call("pki", "token", "-c", path, "--area", "Nord")[0] == 0
    status, told = call("pki", "token", "-c", path, "--area", "Noord")
    assert status == 1
    assert "Noord is none of coordinator.areas (Nord)" in told


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """In processes of their own: the sockets of a failed server are left to their end."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for arguments in (
            ("coordinator", "-c", coordinator(tmp_path, web=[address])),
            ("node", "-c", node(tmp_path, metrics=address)),
        ):
            command = [sys.executable, "-m", "stromkreis", *map(str, arguments)]
            environ = {**os.environ, "PYTHONPATH": str(ROOT)}
            done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
            status, told = done.returncode, done.stderr
            assert status == 1
            assert f"cannot listen on {address}: Address already in use" in told


def test_damaged_keys_of_the_coordinator(call: Call, tmp_path: Path) -> None:
    path = coordinator(tmp_path, web=["https://127.0.0.1:0"])
    data = tmp_path / "data"
    CertificateAuthority.create(data / "pki", datetime.now(UTC))
    (data / "curve.json").write_text("{")
    status, told = call("coordinator", "-c", path)
    assert (status, "curve.json: no CURVE key pair" in told) == (1, True)
    (data / "curve.json").unlink()
    (data / "pki" / "coordinator-tls.pem").unlink()
    status, told = call("coordinator", "-c", path)
    assert (status, "coordinator-tls.pem: No such file or directory" in told) == (1, True)
    (data / "pki" / "root.pem").unlink()
    status, told = call("coordinator", "-c", path)
    assert (status, "root.pem" in told) == (1, True)
    assert not (data / "pki" / "root.pem").exists(), "what is left of a PKI is not replaced by another"


def test_damaged_keys_of_a_node(call: Call, tmp_path: Path) -> None:
    path = node(tmp_path)
    keys = tmp_path / "node" / "keys"
    keys.mkdir(parents=True)
    (keys / "ESTK0000000001.json").write_text('{"signature_key": "geheim"}')
    status, told = call("node", "-c", path)
    assert (status, "ESTK0000000001.json: no keys of a gateway" in told) == (1, True)
    assert "geheim" not in told


def test_a_node_that_knows_no_coordinator(call: Call, tmp_path: Path) -> None:
    """Enrolled, and `coordinator.json` is lost or damaged."""
    path = node(tmp_path)
    directory = KeyDirectory(tmp_path / "node" / "keys", StandardSuite())
    module = directory.open("ESTK0000000001")
    authority = CertificateAuthority.load(tmp_path / "pki")
    triple = authority.issue_triple(pki.check_package(module.request_package()), datetime.now(UTC))
    module.install(tuple(map(pki.to_der, triple)), ())
    directory.close()
    known = tmp_path / "node" / "coordinator.json"
    for content in (None, "{", "{}"):
        if content is not None:
            known.write_text(content)
        status, told = call("node", "-c", path)
        assert (status, f"{known}: no endpoint and keys of the coordinator" in told) == (1, True)


def test_a_list_is_called_a_list(call: Call, tmp_path: Path) -> None:
    status, told = call("coordinator", "-c", coordinator(tmp_path, areas="Nord"))
    assert status == 2
    assert "coordinator.areas: found 'Nord'; expected a list" in told


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    import stromkreis.__main__ as command_line

    def broken(_arguments: object) -> Callable[[], None]:
        def defect() -> None:
            raise ExceptionGroup("", [OSError("no file's name"), ValueError()])

        return defect

    monkeypatch.setattr(command_line, "build", broken)
    with pytest.raises(ExceptionGroup):
        command_line.main()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"json": {"reason": "token_area", "detail": "for another area"}}, "status 403: token_area: for another area"),
        ({"text": "<html>not today</html>"}, "status 403: <html>not today</html>"),
    ],
)
async def test_a_refused_enrolment_is_told_by_its_reason(tmp_path: Path, answer: dict[str, Any], expected: str) -> None:
    settings = load(NodeConfig, "node", node(tmp_path))
    directory = KeyDirectory(tmp_path / "keys", StandardSuite())
    async with Enroller(settings) as enroller:
        await enroller._client.aclose()
        enroller._client = httpx.AsyncClient(
            transport=httpx.MockTransport(lambda _request: httpx.Response(403, **answer)), base_url="https://c"
        )
        with pytest.raises(StromkreisError) as caught:
            await enroller.enrol(directory.open("ESTK0000000001"), settings.gateways[0])
    directory.close()
    assert str(caught.value) == f"gateway ESTK0000000001: enrolment refused with {expected}"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"coordinator_curve_key": "ab" * 32, "coordinator_list_key": "cd" * 32,
          "coordinator_log_key": "ab" * 32, "endpoint": "tcp://new:1"}, None),
        ({"coordinator_curve_key": "ee" * 32, "coordinator_list_key": "cd" * 32,
          "coordinator_log_key": "ab" * 32, "endpoint": "tcp://new:1"},
         "has another CURVE or list key"),
        ({"coordinator_curve_key": "ab" * 32, "coordinator_list_key": "cd" * 31,
          "coordinator_log_key": "ab" * 32, "endpoint": "tcp://new:1"},
         "expected a coordinator of this release"),
        ({"coordinator_curve_key": "ab" * 32}, "expected a coordinator of this release"),
    ],
    ids=["said", "another coordinator", "a short key", "an older release"],
)  # fmt: skip
async def test_a_node_that_enrolled_before_lists_were_signed_asks_for_their_key(
    tmp_path: Path, answer: dict[str, Any], expected: str | None
) -> None:
    settings = load(NodeConfig, "node", node(tmp_path))
    known = tmp_path / "node" / "coordinator.json"
    known.parent.mkdir(exist_ok=True)
    kept = {"endpoint": "tcp://kept:1", "curve_key": "ab" * 32}
    known.write_text(json.dumps(kept))
    async with Enroller(settings) as enroller:
        await enroller._client.aclose()
        enroller._client = httpx.AsyncClient(
            transport=httpx.MockTransport(lambda _request: httpx.Response(200, json=answer)), base_url="https://c"
        )
        if expected is not None:
            with pytest.raises(StromkreisError, match=expected):
                await enroller._stored()
            assert json.loads(known.read_text()) == kept
            return
        service = await enroller._stored()
        assert service == RingService("tcp://kept:1", b"\xab" * 32, b"\xcd" * 32, b"\xab" * 32)
        assert json.loads(known.read_text()) == {**kept, "list_key": "cd" * 32, "log_key": "ab" * 32}
        await enroller._client.aclose()
        assert await enroller._stored() == service, "kept: nobody is asked again"


def test_waiting_for_bills_tells_why_they_were_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[dict[str, Any]] = [
        {"bills": 2, "intervals": 8, "nothing_left": 0, "unranged": 0}, {"items": [], "next": None},
        {"items": [{"status": "declined", "reason": "price_range"}, {"status": "asked", "reason": ""}], "next": None},
    ]  # fmt: skip
    monkeypatch.setattr(stromkreis.bill, "call", lambda *_call, **_how: answers.pop(0))
    period = ("--from", "2026-11-01", "--to", "2026-11-02")
    arguments = ["bill", "ask", "--area", "Nord", *period, "--tariff", "00", "--wait"]
    told = CliRunner().invoke(build(arguments), arguments).output
    assert told.splitlines()[-1] == "1 asked, 1 declined (price_range)"
