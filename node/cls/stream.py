"""
A SOCKS-TLS connection on a socket: moves octets between trio and the protocol's core (protocol.socks_tls).

Nothing is queued: what is received is handed on before more is read, and what is sent has left before `send_all`
returns, so a peer that does not read holds up its own connection and no memory.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Final, Generic, Protocol, TypeVar

import trio

from protocol.errors import RemoteProtocolError
from protocol.socks_tls import Closed, Data, Event

CLOSE_S: Final = 5.0
"""From a closing handshake to the end of the transport (REQ.TA.SOCKSTLS.ClosingHandshake.20)."""
CHUNK_SIZE: Final = 16_384
_LINGER_S: Final = 1.0
_LINGER_SIZE: Final = 256 * 1024


class Connection(Protocol):
    """`SocksTlsServer` or `SocksTlsClient`."""

    @property
    def is_over(self) -> bool: ...  # noqa: D102
    def take(self) -> bytes: ...  # noqa: D102
    def receive(self, data: bytes) -> list[Event]: ...  # noqa: D102
    def send(self, content: bytes) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


_C = TypeVar("_C", bound=Connection)


class SocksTlsStream(Generic[_C]):
    """
    Data in both directions, by two tasks at most; `core` is for requests and replies, with `flush` after them.

    Every method but `aclose` raises RemoteProtocolError for what the peer must not send, and trio.BrokenResourceError.
    """

    def __init__(self, transport: trio.SocketStream, core: _C) -> None:
        self._transport = transport
        self.core = core
        self._events: deque[Event] = deque()
        self._sending = trio.Lock()
        self._is_cut = False

    def push_back(self, events: list[Event]) -> None:
        """Events that `next_event` shall return first."""
        self._events.extendleft(reversed(events))

    async def next_event(self) -> Event:
        """The next one; Closed again and again in the end."""
        while not self._events:
            if self.core.is_over:
                return Closed(is_clean=True)
            data = await self._transport.receive_some(CHUNK_SIZE)
            try:
                self._events.extend(self.core.receive(bytes(data)))
            finally:
                if not self._sending.locked():  # whoever sends takes answers along; a reader that waits stops both
                    await self.flush()
        return self._events.popleft()

    async def receive_some(self) -> bytes:
        """Application data, none at the end.  Raises RemoteProtocolError for anything else."""
        event = await self.next_event()
        if isinstance(event, Data):
            return event.content
        if isinstance(event, Closed):
            return b""
        raise RemoteProtocolError("bad_state", f"{type(event).__name__} in the data flow")

    async def send_all(self, content: bytes) -> None:
        """Send application data."""
        self.core.send(content)
        await self.flush()

    async def flush(self) -> None:
        """Send what the core has to send, in its order."""
        async with self._sending:
            while data := self.core.take():
                if self._is_cut:  # part of a frame has left: nothing that follows could be read
                    raise trio.BrokenResourceError("cut off in a frame")
                self._is_cut = True
                await self._transport.send_all(data)
                self._is_cut = False

    async def aclose(self) -> None:
        """The closing handshake, as far as the peer takes part in it, and the end of the transport in any case."""
        closing = trio.move_on_after(CLOSE_S - _LINGER_S, shield=True)
        with closing, suppress(RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            self.core.close()
            await self.flush()
            while not self.core.is_over:
                await self.next_event()
                self._events.clear()
        with trio.move_on_after(_LINGER_S, shield=True):
            await self._linger()
        await trio.aclose_forcefully(self._transport)

    async def _linger(self) -> None:
        """Let the last words arrive: a transport that is closed over unread octets takes back what was sent."""
        left = _LINGER_SIZE
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._transport.send_eof()
            while left > 0 and (data := await self._transport.receive_some(CHUNK_SIZE)):
                left -= len(data)
