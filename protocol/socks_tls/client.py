"""
The client's side, which is that of a controllable system's communication adapter (chapter 11.2).

One connection is for one CONNECT (REQ.TA.SOCKSTLS.ConnectRequest.10).  Whoever uses it compares the gateway's
certificate in `Authenticated` before `connect` is called: nothing is asked before that.
"""

from __future__ import annotations

import ssl
from enum import Enum, auto

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.socks_tls import messages
from protocol.socks_tls.channel import TlsChannel
from protocol.socks_tls.events import Authenticated, Closed, Data, Event, Replied
from protocol.socks_tls.messages import Destination, Reply


class _Phase(Enum):
    SELECTION = auto()
    HANDSHAKE = auto()
    READY = auto()
    REQUESTED = auto()
    OPEN = auto()
    OVER = auto()


class SocksTlsClient:
    """One connection; `context` has the client's certificate, `server_hostname` goes into the handshake."""

    def __init__(self, context: ssl.SSLContext, server_hostname: str | None = None) -> None:
        self._channel = TlsChannel(context, server_side=False, server_hostname=server_hostname)
        self._phase = _Phase.SELECTION
        self._waiting = bytearray()
        self._plain = bytearray(messages.greeting(bytes((messages.TLS_METHOD,))))

    @property
    def is_over(self) -> bool:
        """Whether nothing more is received."""
        return self._phase is _Phase.OVER

    def take(self) -> bytes:
        """What is to be sent."""
        plain = bytes(self._plain)
        self._plain.clear()
        return plain + self._channel.take()

    def connect(self, destination: Destination) -> None:
        """Ask to be connected.  Raises LocalProtocolError before `Authenticated`, or a second time."""
        if self._phase is not _Phase.READY:
            raise LocalProtocolError("one request, after the handshake")
        self._channel.send(messages.request(destination))
        self._phase = _Phase.REQUESTED

    def receive(self, data: bytes) -> list[Event]:
        """
        Take octets from the server, none for the end of the transport.

        Raises RemoteProtocolError: `bad_greeting`, `bad_method`, `bad_reply`, `early_data`, and what TlsChannel.receive
        raises.
        """
        if self._phase is _Phase.OVER:
            return []
        if not data:
            self._phase = _Phase.OVER
            return [Closed(is_clean=False)]
        try:
            if self._phase is _Phase.SELECTION:
                data = self._selected(data)
            return self._receive(data) if data else []
        except RemoteProtocolError:
            self._channel.close()
            self._phase = _Phase.OVER
            raise

    def send(self, content: bytes) -> None:
        """Send application data.  Raises LocalProtocolError before the reply; RemoteProtocolError `closed`."""
        if self._phase is _Phase.OVER or self._channel.is_closed_here:
            raise RemoteProtocolError("closed", "the connection is over")
        if self._phase is not _Phase.OPEN:
            raise LocalProtocolError("data before the reply")
        self._channel.send(content)

    def close(self) -> None:
        """Begin the closing handshake; it is over when the server has answered."""
        self._channel.close()
        if self._phase is _Phase.SELECTION or self._channel.is_closed_there:
            self._phase = _Phase.OVER

    def _selected(self, data: bytes) -> bytes:
        self._waiting += data
        found = messages.read_selection(bytes(self._waiting[:2]))
        if found is None:
            return b""
        method, end = found
        if method != messages.TLS_METHOD:
            raise RemoteProtocolError("bad_method", f"the server chose {method:#04x}, expected TLS (0x06)")
        rest = bytes(self._waiting[end:])
        self._waiting.clear()
        self._phase = _Phase.HANDSHAKE
        self._channel.handshake()
        return rest

    def _receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        received = self._channel.receive(data)
        if self._phase is _Phase.HANDSHAKE and self._channel.is_open:
            self._phase = _Phase.READY
            events.append(Authenticated(self._channel.certificate))
        for content in received:
            events += self._content(content)
        if self._channel.is_closed_there:
            self.close()
            self._phase = _Phase.OVER
            events.append(Closed(is_clean=True))
        return events

    def _content(self, content: bytes) -> list[Event]:
        if self._channel.is_closed_here:
            return []
        if self._phase is _Phase.OPEN:
            return [Data(content)]
        if self._phase is not _Phase.REQUESTED:
            raise RemoteProtocolError("early_data", "data before anything was asked")
        self._waiting += content
        found = messages.read_reply(bytes(self._waiting[: messages.REQUEST_SIZE_MAX]))
        if found is None:
            return []
        code, end = found
        rest = bytes(self._waiting[end:])
        self._waiting.clear()
        if code is not Reply.SUCCEEDED:
            self.close()
            return [Replied(code)]
        self._phase = _Phase.OPEN
        return [Replied(code), *([Data(rest)] if rest else [])]
