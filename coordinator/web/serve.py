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
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import anycorn
import anyio.to_thread
import trio
from anycorn.config import Sockets
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from protocol.errors import LocalProtocolError, StromkreisError
from protocol.link.tls import server_context
from protocol.link.web_server import HandshakeLines, serve_asgi

# Lowering it drops slow viewers (they reconnect by themselves), raising it delays the end of the process.
STALL_S = 5.0
# Requests that ask the database or draw, at once; more wait.  Raising it takes the interpreter from the rounds.
THREADS = 8


class _Config(anycorn.Config):
    """anycorn's settings with our TLS context: its own one has no way to choose the curve."""

    context: ssl.SSLContext | None = None

    def create_ssl_context(self) -> ssl.SSLContext | None:
        return self.context

    @property
    def ssl_enabled(self) -> bool:
        return self.context is not None

    def create_sockets(self) -> Sockets:
        try:
            sockets = super().create_sockets()
        except OSError as error:
            addresses = [f"https://{each}" for each in self.bind] if self.ssl_enabled else []
            addresses += [f"http://{each}" for each in (self.insecure_bind if self.ssl_enabled else self.bind)]
            raise StromkreisError(f"cannot listen on {' or '.join(addresses)}: {error.strerror}") from error
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            for listener in (*sockets.secure_sockets, *sockets.insecure_sockets):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALL_S * 1000))
        return sockets


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
    config = _Config()
    secure = [_bind(address) for address in listen if address.startswith("https://")]
    plain = [_bind(address) for address in listen if address.startswith("http://")]
    if secure:
        if certificate is None or private_key is None:
            raise LocalProtocolError("an https address needs a certificate and its private key")
        config.context = server_context(certificate, private_key, client_root=client_root)
        config.bind, config.insecure_bind = secure, plain
    else:
        config.bind = plain
    config.alpn_protocols = ["http/1.1"]
    config.accesslog = None
    config.loglevel = "WARNING"
    config.include_server_header = False
    config.graceful_timeout = 0.5  # event streams never end by themselves: waiting for them is waiting in vain
    config.shutdown_timeout = 1.0
    config.ssl_handshake_timeout = 10.0
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
