"""
The market participant's servers that systems at home connect to: mutual TLS with the gateway, and what is behind it.

`box` is the connection of the home's energy management, `ocpp` passes on to the central system.  Who may connect is a
gateway below the SM-PKI's root.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from loadtest.ems.tunnel import BROKEN, pipe
from protocol.link.tls import server_context

TlsStream = trio.SSLStream[trio.SocketStream]
Serve = Callable[[TlsStream], Awaitable[None]]


class Participant:
    """Set `central_system_port` and `serve_box` before anybody connects."""

    def __init__(self, pki: Path) -> None:
        self._context = server_context(pki / "emt-tls.pem", pki / "emt-tls.key", client_root=pki / "root.pem")
        self.central_system_port = 0
        self.serve_box: Serve | None = None

    async def start(self, nursery: trio.Nursery) -> dict[str, int]:
        """Listen on free ports; they are returned by service."""
        return {
            "box": await self._listen(nursery, self._box), "ocpp": await self._listen(nursery, self._ocpp),
        }  # fmt: skip

    async def _listen(self, nursery: trio.Nursery, serve: Serve) -> int:
        handler = partial(self._connection, serve)
        listeners = await nursery.start(partial(trio.serve_ssl_over_tcp, handler, 0, self._context, host="127.0.0.1"))
        port: int = listeners[0].transport_listener.socket.getsockname()[1]
        return port

    async def _connection(self, serve: Serve, stream: TlsStream) -> None:
        try:
            await stream.do_handshake()
            await serve(stream)
        except* BROKEN:
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _box(self, stream: TlsStream) -> None:
        if self.serve_box is not None:
            await self.serve_box(stream)

    async def _ocpp(self, stream: TlsStream) -> None:
        await pipe(stream, await trio.open_tcp_stream("127.0.0.1", self.central_system_port))
