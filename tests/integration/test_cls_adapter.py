"""Programs that know SOCKS5 alone reach a participant: adapter, gateway and curl as they are."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from typer.testing import CliRunner

from node.mdns.lookup import Lookup
from protocol.errors import StromkreisError
from protocol.pki.han import deviations
from protocol.socks_tls import Reply
from stromkreis.__main__ import build
from stromkreis.cls_adapter import way_to
from stromkreis.socks_adapter import PAUSE_S, Gateway, SocksAdapter
from tests.integration.cls_world import NAME, ClsHome, Stream, cls_home
from tests.integration.gwa_world import ONE, SHA256
from tests.unit.socks_tls_pair import SYSTEM, client_side, credentials

PAGE = b"limit 4200 W\n" * 20_000
pytestmark = pytest.mark.skipif(
    not os.environ.get("CI") and shutil.which("curl") is None, reason="curl is not installed"
)


class Drawn(random.Random):
    """Pauses as the test wants them."""

    pause_s = 60.0

    def uniform(self, a: float, b: float) -> float:
        assert (a, b) == PAUSE_S == (5.0, 60.0)  # REQ.TA.SOCKSTLS.ConnectRequest.80
        return self.pause_s


async def web(stream: Stream) -> None:
    heard = b""
    while b"\r\n\r\n" not in heard and (data := await stream.receive_some()):
        heard += data
    assert heard.startswith(b"GET /limit HTTP/1.1\r\nHost: emp.example\r\n"), heard
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PAGE) + PAGE)


def fingerprint(home: ClsHome) -> str:
    pem = home.proxy._services.secrets.secret(ONE, "certificate")
    assert pem is not None
    return x509.load_pem_x509_certificate(pem).fingerprint(SHA256).hex()


@asynccontextmanager
async def adapting(home: ClsHome, rng: random.Random, **changed: Any) -> AsyncIterator[int]:
    host, port = home.address
    gateway = Gateway(host=host, port=port, fingerprint=fingerprint(home), context=client_side())
    async with trio.open_nursery() as nursery:
        yield await nursery.start(SocksAdapter(replace(gateway, **changed), rng).serve, "127.0.0.1", 0)
        nursery.cancel_scope.cancel()


async def curl(port: int, url: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    command = ["curl", "--silent", "--show-error", "--max-time", "90", *options]
    return await trio.run_process(
        [*command, "--socks5-hostname", f"127.0.0.1:{port}", url], capture_stdout=True, capture_stderr=True, check=False
    )


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[ClsHome]:
    with trio.fail_after(180):
        async with cls_home(tmp_path) as made:
            made.participant.serve = web
            yield made


async def test_curl_reads_a_participants_page_through_the_gateway(home: ClsHome) -> None:
    async with adapting(home, Drawn()) as port:
        got = await curl(port, f"http://{NAME}/limit")
        assert (got.returncode, got.stderr) == (0, b"")
        assert got.stdout == PAGE
        assert (await curl(port, f"http://{NAME.upper()}/limit", "--header", "Host: emp.example")).stdout == PAGE
    assert home.count("connected") == 2


async def test_a_refusal_reaches_the_program_and_is_not_asked_again_at_once(home: ClsHome) -> None:
    rng = Drawn()
    async with adapting(home, rng) as port:
        for _ in range(3):
            got = await curl(port, "http://other.example/")
            assert got.returncode == 97  # CURLE_PROXY
            assert b"(2)" in got.stderr  # not allowed by the rule set
        assert home.count("no_profile") == 1
        assert (await curl(port, f"http://{NAME}/limit")).stdout == PAGE  # another name does not wait
        assert (await curl(port, "http://no_name/")).returncode == 97
        assert home.count("no_profile") == 1
        rng.pause_s = 0.0
        await curl(port, "http://third.example/")
        await curl(port, "http://third.example/")
        assert home.count("no_profile") == 3


async def test_another_gateway_than_the_one_known_is_asked_nothing(
    home: ClsHome, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    async with adapting(home, Drawn(), fingerprint="11" * 32) as port:
        assert (await curl(port, f"http://{NAME}/limit")).returncode == 97
    assert f"its certificate has the SHA-256 {fingerprint(home)}" in caplog.text
    assert home.participant.seen == []


async def test_a_gateway_that_is_away_is_a_general_failure(home: ClsHome) -> None:
    async with adapting(home, Drawn(), port=1) as port:
        got = await curl(port, f"http://{NAME}/limit")
    assert got.returncode == 97
    assert b"(1)" in got.stderr


@pytest.mark.parametrize("octets", [b"\x05\x01\x02", b"\x04\x01", b"\x05\x01\x00\x05\x02\x00\x01" + bytes(6)])
async def test_a_program_that_asks_for_something_else_is_refused(octets: bytes) -> None:
    gateway = Gateway(host="127.0.0.1", port=1, fingerprint="11" * 32, context=client_side())
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(SocksAdapter(gateway, Drawn()).serve, "127.0.0.1", 0)
            async with await trio.open_tcp_stream("127.0.0.1", port) as local:
                await local.send_all(octets)
                heard = b""
                while data := await local.receive_some():
                    heard += data
            nursery.cancel_scope.cancel()
    refusals = {b"\x05\xff", b"", b"\x05\x00" + bytes((5, Reply.COMMAND_NOT_SUPPORTED, 0, 1)) + bytes(6)}
    assert heard in refusals


async def test_the_command_serves_curl_until_it_is_stopped(home: ClsHome, tmp_path: Path) -> None:
    file = tmp_path / "cls.pem"
    file.write_bytes(credentials(_role(), SYSTEM)[0])
    host, port = home.address
    command = [
        sys.executable, "-m", "stromkreis", "cls-adapter", "--certificate", str(file), "--gateway", f"{host}:{port}",
        "--gateway-sha256", fingerprint(home), "--listen", "127.0.0.1:0",
    ]  # fmt: skip
    async with trio.open_nursery() as nursery:
        run = trio.run_process
        process: trio.Process = await nursery.start(lambda **more: run(command, stderr=subprocess.PIPE, **more))
        assert process.stderr is not None
        said = b""
        while b"\n" not in said:
            said += await process.stderr.receive_some()
        assert said.startswith(b"SOCKS5 at 127.0.0.1:"), said
        local = int(said.split(b",")[0].rpartition(b":")[2])
        assert (await curl(local, f"http://{NAME}/limit")).stdout == PAGE
        process.terminate()
    assert process.returncode == 0


def test_the_command_makes_a_certificate_that_keeps_chapter_4(tmp_path: Path) -> None:
    file = tmp_path / "cls.pem"
    arguments = ["cls-adapter", "--certificate", str(file), "--id", "1ABC0012345678"]
    first = CliRunner().invoke(build(arguments), arguments)
    assert first.exit_code == 0, first.output
    made = x509.load_pem_x509_certificate(file.read_bytes())
    assert deviations(made) == []
    assert f"han[].certificate: {made.fingerprint(SHA256).hex()}" in first.output
    assert file.stat().st_mode & 0o777 == 0o600
    assert CliRunner().invoke(build(arguments), arguments).output == first.output  # kept


async def test_the_adapter_finds_its_gateway_by_id_or_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    async def service(_lookup: Lookup, *what: str) -> tuple[int, list[str]]:
        asked.append(what)
        return 1, ["127.0.0.1"]

    async def addresses(_lookup: Lookup, *what: str) -> list[str]:
        asked.append(what)
        return ["127.0.0.1"]

    monkeypatch.setattr(Lookup, "service", service)
    monkeypatch.setattr(Lookup, "addresses", addresses)
    for gateway, interface in (("estk0100000001", "eth0"), ("smgw.local:1", "eth0"), ("127.0.0.1:1", None)):
        host, port, dial = way_to(gateway, interface)
        with pytest.raises(OSError, match=r"127\.0\.0\.1:1 failed"):
            await dial(host, port)
    assert asked == [("SMGW ESTK0100000001", "_socks._tcp"), ("smgw.local",)]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--id", "x" * 70], "--id: xxx"),
        ([], "no such file; --id makes it"),
        (["--gateway", "there", "--gateway-sha256", "11" * 32, "--id", "1ABC0012345678"], "expected HOST:PORT"),
        (["--gateway", "there:1", "--gateway-sha256", "11", "--id", "1ABC0012345678"], "expected 64 hexadecimal"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path: Path, options: list[str], told: str) -> None:
    arguments = ["cls-adapter", "--certificate", str(tmp_path / "cls.pem"), *options]
    result = CliRunner().invoke(build(arguments), arguments)
    assert isinstance(result.exception, StromkreisError)
    assert told in str(result.exception)


def _role() -> Any:
    from protocol.pki.han import HanRole

    return HanRole.CLS
