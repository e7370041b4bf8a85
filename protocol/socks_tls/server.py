"""
The server's side, which is the gateway's (chapter 11.3): greeting, TLS, one CONNECT, then data until somebody closes.

What does not fit raises RemoteProtocolError.  The connection is over then, and what is left in `take` (the refusal of
a method, an alert, a reply and the closing handshake) is to be sent before the transport is closed.
"""

from __future__ import annotations

import ssl
from enum import Enum, auto

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.socks_tls import messages
from protocol.socks_tls.channel import TlsChannel
from protocol.socks_tls.events import Authenticated, Closed, Data, Event, Requested
from protocol.socks_tls.messages import Reply, RequestError


class _Phase(Enum):
    GREETING = auto()
    HANDSHAKE = auto()
    REQUEST = auto()
    CONNECTING = auto()
    OPEN = auto()
    OVER = auto()


class SocksTlsServer:
    """One connection; `context` asks for the client's certificate and has no session tickets."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._channel = TlsChannel(context, server_side=True)
        self._phase = _Phase.GREETING
        self._waiting = bytearray()
        self._early: list[Event] = []
        self._plain = bytearray()

    @property
    def is_over(self) -> bool:
        """Whether nothing more is received."""
        return self._phase is _Phase.OVER

    def take(self) -> bytes:
        """What is to be sent."""
        plain = bytes(self._plain)
        self._plain.clear()
        return plain + self._channel.take()

    def receive(self, data: bytes) -> list[Event]:
        """
        Take octets from the client, none for the end of the transport.

        Raises RemoteProtocolError: `bad_greeting`, `bad_method`, `bad_request`, and what TlsChannel.receive raises.
        """
        if self._phase is _Phase.OVER:
            return []
        if not data:
            self._phase = _Phase.OVER
            return [Closed(is_clean=False)]
        try:
            if self._phase is _Phase.GREETING:
                data = self._greet(data)
            return self._receive(data) if data else []
        except RemoteProtocolError:
            self._phase = _Phase.OVER
            raise

    def reply(self, code: Reply) -> list[Event]:
        """
        Answer the request; after anything but SUCCEEDED it is over.

        Returns what the client has sent before the answer.  Raises LocalProtocolError without a request;
        RemoteProtocolError `closed` where the client has closed meanwhile.
        """
        if self._phase is _Phase.OVER:
            raise RemoteProtocolError("closed", "the client has closed before the reply")
        if self._phase is not _Phase.CONNECTING:
            raise LocalProtocolError("a reply without a request")
        self._channel.send(messages.reply(code))
        if code is not Reply.SUCCEEDED:
            self.close()
            return []
        self._phase = _Phase.OPEN
        early, self._early = self._early, []
        return early

    def send(self, content: bytes) -> None:
        """Send application data.  Raises LocalProtocolError before the reply; RemoteProtocolError `closed`."""
        if self._phase is _Phase.OVER or self._channel.is_closed_here:
            raise RemoteProtocolError("closed", "the connection is over")
        if self._phase is not _Phase.OPEN:
            raise LocalProtocolError("data before the reply")
        self._channel.send(content)

    def close(self) -> None:
        """Begin the closing handshake; it is over when the client has answered."""
        self._channel.close()
        if self._phase is _Phase.GREETING or self._channel.is_closed_there:
            self._phase = _Phase.OVER

    def _greet(self, data: bytes) -> bytes:
        self._waiting += data
        found = messages.read_greeting(bytes(self._waiting[: messages.GREETING_SIZE_MAX]))
        if found is None:
            return b""
        methods, end = found
        if set(methods) != {messages.TLS_METHOD}:
            self._plain += messages.selection(messages.NO_METHOD)
            raise RemoteProtocolError("bad_method", "expected TLS (6) as the only method")
        rest = bytes(self._waiting[end:])
        self._plain += messages.selection(messages.TLS_METHOD)
        self._waiting.clear()
        self._phase = _Phase.HANDSHAKE
        return rest

    def _receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        received = self._channel.receive(data)
        if self._phase is _Phase.HANDSHAKE and self._channel.is_open:
            self._phase = _Phase.REQUEST
            events.append(Authenticated(self._channel.certificate))
        for content in received:
            events += self._content(content)
        if self._channel.is_closed_there:
            is_first = not self._channel.is_closed_here
            self.close()
            self._phase = _Phase.OVER
            if is_first:
                self._early.clear()
            events.append(Closed(is_clean=True))
        return events

    def _content(self, content: bytes) -> list[Event]:
        if self._channel.is_closed_here:
            return []
        if self._phase is _Phase.REQUEST:
            return self._request(content)
        if self._phase is _Phase.CONNECTING:
            self._early.append(Data(content))
            return []
        return [Data(content)]

    def _request(self, content: bytes) -> list[Event]:
        self._waiting += content
        try:
            found = messages.read_request(bytes(self._waiting[: messages.REQUEST_SIZE_MAX]))
        except RequestError as error:
            self._channel.send(messages.reply(error.reply))
            self._channel.close()
            raise
        if found is None:
            return []
        destination, end = found
        if len(self._waiting) > end:
            self._early.append(Data(bytes(self._waiting[end:])))
        self._waiting.clear()
        self._phase = _Phase.CONNECTING
        return [Requested(destination)]
