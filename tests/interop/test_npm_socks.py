"""An npm package for SOCKS5 reaches a market participant: it knows neither the adapter nor SOCKS-TLS."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from tests.integration.cls_world import NAME, Stream, cls_home
from tests.integration.test_cls_adapter import Drawn, adapting

ROOT = Path(__file__).parents[2]
PEER = Path(os.environ.get("STROMKREIS_PEERS_NPM", ROOT / ".venv-peers-npm"))
CLIENT = Path(__file__).with_name("npm") / "client.js"
PAGE = b"limit 4200 W\n" * 20_000
pytestmark = pytest.mark.skipif(
    not os.environ.get("CI") and (shutil.which("node") is None or not (PEER / ".ready").exists()),
    reason="wants node and `make peers`",
)


async def web(stream: Stream) -> None:
    heard = b""
    while b"\r\n\r\n" not in heard and (data := await stream.receive_some()):
        heard += data
    found = heard.startswith(b"GET /limit HTTP/1.1\r\n") and f"host: {NAME}".encode() in heard.lower()
    status = b"200 OK" if found else b"404 Not Found"
    await stream.send_all(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(PAGE)) + PAGE)


async def read(port: int, url: str) -> subprocess.CompletedProcess[bytes]:
    return await trio.run_process(
        ["node", str(CLIENT), f"socks5h://127.0.0.1:{port}", url], capture_stdout=True, capture_stderr=True,
        check=False, env=os.environ | {"STROMKREIS_PEERS_NPM": str(PEER)},
    )  # fmt: skip


async def test_an_npm_client_reads_a_participants_page_and_hears_refusals(tmp_path: Path) -> None:
    with trio.fail_after(240):
        async with cls_home(tmp_path) as home, adapting(home, Drawn()) as port:
            home.participant.serve = web
            got = await read(port, f"http://{NAME}/limit")
            assert (got.stderr, got.stdout) == (b"", PAGE)
            refused = await read(port, "http://other.example/limit")
            assert refused.returncode == 1
            assert b"NotAllowed" in refused.stderr
    assert home.count("connected") == 1
    assert home.count("no_profile") == 1
