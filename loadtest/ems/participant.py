"""
The market participant's servers for controllable systems: mutual TLS with the gateway, and what is behind it.

`box` takes connections of the home, each of which says with its first line what it is for; `ocpp` passes on to the
central system.  Who may connect is a gateway below the SM-PKI's root.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import trio

from loadtest.ems.tunnel import BROKEN, pipe
from protocol.errors import RemoteProtocolError
from protocol.link.tls import server_context

TlsStream = trio.SSLStream[trio.SocketStream]
_FIRST_LINE_S: Final = 30.0
_FIRST_LINE_SIZE: Final = 16


class Participant:
    """`boxes` are the newest connections by what they are for; `changed` is set, and replaced, when one comes."""

    def __init__(self, pki: Path) -> None:
        self._context = server_context(pki / "emt-tls.pem", pki / "emt-tls.key", client_root=pki / "root.pem")
        self.boxes: dict[str, TlsStream] = {}
        self.changed = trio.Event()
        self.central_system_port = 0
        self.handlers: dict[str, Callable[[TlsStream], Awaitable[None]]] = {}

    async def start(self, nursery: trio.Nursery) -> dict[str, int]:
        """Listen on free ports; they are returned by service."""
        return {
            "box": await self._listen(nursery, self._box), "ocpp": await self._listen(nursery, self._ocpp),
        }  # fmt: skip

    async def wait_for(self, kind: str) -> TlsStream:
        """The newest connection of a kind, as soon as there is one."""
        while kind not in self.boxes:
            await self.changed.wait()
        return self.boxes[kind]

    async def _listen(self, nursery: trio.Nursery, serve: Callable[[TlsStream], Awaitable[None]]) -> int:
        handler = partial(self._connection, serve)
        listeners = await nursery.start(partial(trio.serve_ssl_over_tcp, handler, 0, self._context, host="127.0.0.1"))
        port: int = listeners[0].transport_listener.socket.getsockname()[1]
        return port

    async def _connection(self, serve: Callable[[TlsStream], Awaitable[None]], stream: TlsStream) -> None:
        try:
            await stream.do_handshake()
            await serve(stream)
        except BROKEN:
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _ocpp(self, stream: TlsStream) -> None:
        await pipe(stream, await trio.open_tcp_stream("127.0.0.1", self.central_system_port))

    async def _box(self, stream: TlsStream) -> None:
        kind = await _first_line(stream)
        self.boxes[kind] = stream
        changed, self.changed = self.changed, trio.Event()
        changed.set()
        try:
            handler = self.handlers.get(kind)
            if handler is None:
                await trio.sleep_forever()  # whoever commands uses the stream, and closes it where it fails
            else:
                await handler(stream)
        finally:
            if self.boxes.get(kind) is stream:
                del self.boxes[kind]

    async def drop(self, kind: str, stream: TlsStream) -> None:
        """A connection that has failed."""
        if self.boxes.get(kind) is stream:
            del self.boxes[kind]
        await trio.aclose_forcefully(stream)


async def _first_line(stream: TlsStream) -> str:
    line = b""
    with trio.move_on_after(_FIRST_LINE_S):
        while not line.endswith(b"\n") and len(line) < _FIRST_LINE_SIZE:
            if not (data := await stream.receive_some(1)):
                break
            line += data
    if not line.endswith(b"\n"):
        raise RemoteProtocolError("no_kind", "a connection that does not say what it is for")
    return line.decode("ascii", "replace").strip()
