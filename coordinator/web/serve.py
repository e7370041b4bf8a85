"""
The web server: anycorn on trio, on any number of addresses, each with or without TLS.

Gateways enrol over HTTPS with an SM-PKI certificate; people open the dashboard over HTTP on loopback, or behind a
reverse proxy that has a certificate which browsers know.

anycorn shields its writes from cancellation, so a viewer that stops reading in the middle of an answer would keep the
whole process from ending.  The kernel breaks such connections for us: accepted sockets inherit the listener's
TCP_USER_TIMEOUT (Linux), which also ends a peer that acknowledges but never opens its window.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import anyio.to_thread
import trio
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from protocol.errors import LocalProtocolError
from protocol.link.tls import server_context
from protocol.link.web_server import HandshakeLines, ServerConfig, serve_asgi

# Requests that ask the database or draw, at once; more wait.  Raising it takes the interpreter from the rounds.
THREADS = 8


async def serve(
    app: FastAPI,
    listen: Sequence[str],
    *,
    certificate: Path | None = None,
    private_key: Path | None = None,
    client_root: Path | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """
    Serve until cancelled on addresses such as `http://127.0.0.1:7380` and `https://[::]:7381`; port 0 takes a free one.

    With `client_root` every client must show a certificate below it.  `task_status` gets the addresses really bound, in
    the order https, http.
    Raises LocalProtocolError for an https address without certificate, StromkreisError where an address is taken.
    """
    config = ServerConfig()
    secure = [_bind(address) for address in listen if address.startswith("https://")]
    plain = [_bind(address) for address in listen if address.startswith("http://")]
    if secure:
        if certificate is None or private_key is None:
            raise LocalProtocolError("an https address needs a certificate and its private key")
        config.context = server_context(certificate, private_key, client_root=client_root)
        config.bind, config.insecure_bind = secure, plain
    else:
        config.bind = plain
    config.read_timeout = None
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    # anycorn types ASGI and task status in its own and anyio's terms, which Starlette and trio do not match by name.
    asgi, started = cast(Any, LifespanStub(app)), cast(Any, task_status)
    lines, logger = HandshakeLines(), logging.getLogger("anyio.streams.tls")
    logger.addFilter(lines)
    try:
        await serve_asgi(asgi, config, started)
    finally:
        logger.removeFilter(lines)


class LifespanStub:
    """
    Answers the ASGI lifespan itself: the application has none, its parts are made and closed by whoever made them.

    Starlette reports a cancelled lifespan as a failed shutdown, so that every cancellation would end in an error.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the lifespan events, hand everything else to the application."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        kind = ""
        while kind != "lifespan.shutdown":
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})


def _bind(address: str) -> str:
    return address.split("://", 1)[1].rstrip("/")
