"""A request to the home's interface whose TLS session ends is given up (REQ.Webservice.HttpServer.80)."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trio

from node.han.app import HanApplication
from node.han.page import Page
from protocol.link.web_server import ServerConfig, serve_asgi
from tests.integration.test_web_server import certificate
from tests.unit.test_han_app import Api, Login

__all__ = ["certificate"]  # a fixture


async def test_a_request_ends_when_its_tls_session_is_cut(
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("node.han.app.ANSWER_S", 1_000.0)
    api = Api()
    api.takes_s = 1_000
    application = HanApplication(Login(), api, Page(), lambda: 0.0)  # type: ignore[arg-type]
    here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    here.load_cert_chain(certificate)
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    there.check_hostname, there.verify_mode = False, ssl.CERT_NONE
    config = ServerConfig(here)
    config.bind = ["127.0.0.1:0"]
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: Any) -> None:
            await serve_asgi(application, config, task_status)

        (address,) = await nursery.start(serve)
        port = int(address.rpartition(":")[2])
        for is_in_order in (True, False):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            client = trio.SSLStream(stream, there, https_compatible=True)
            await client.send_all(b"GET /smgw/ HTTP/1.1\r\nHost: gateway\r\n\r\n")
            with trio.fail_after(120):
                while not api.under_way:
                    await trio.sleep(0.01)
                await (client if is_in_order else stream).aclose()
                while api.under_way:
                    await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert api.most == 1
