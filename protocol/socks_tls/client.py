"""
The client's side, which is that of a controllable system's communication adapter (chapter 11.2).

One connection is for one CONNECT (REQ.TA.SOCKSTLS.ConnectRequest.10).  Whoever uses it compares the gateway's
certificate in `Authenticated` before `connect` is called: nothing is asked before that.
"""

from __future__ import annotations

import ssl

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.socks_tls import messages
from protocol.socks_tls.connection import Phase, SocksTlsConnection
from protocol.socks_tls.events import Data, Event, Replied
from protocol.socks_tls.messages import Destination, Reply


class SocksTlsClient(SocksTlsConnection):
    """One connection; `context` has the client's certificate, `server_hostname` goes into the handshake."""

    def __init__(self, context: ssl.SSLContext, server_hostname: str | None = None) -> None:
        super().__init__(context, server_side=False, server_hostname=server_hostname)
        self._plain += messages.greeting(bytes((messages.TLS_METHOD,)))

    def connect(self, destination: Destination) -> None:
        """Ask to be connected.  Raises LocalProtocolError before `Authenticated`, or a second time."""
        if self._phase is not Phase.READY:
            raise LocalProtocolError("one request, after the handshake")
        self._channel.send(messages.request(destination))
        self._phase = Phase.REQUESTED

    def receive(self, data: bytes) -> list[Event]:
        """As SocksTlsConnection.receive; what does not fit ends TLS, too, since the client has nothing left to say."""
        try:
            return super().receive(data)
        except RemoteProtocolError:
            self._channel.close()
            raise

    def _before_tls(self, data: bytes) -> bytes:
        self._waiting += data
        found = messages.read_selection(bytes(self._waiting[:2]))
        if found is None:
            return b""
        method, end = found
        if method != messages.TLS_METHOD:
            raise RemoteProtocolError("bad_method", f"the server chose {method:#04x}, expected TLS (0x06)")
        rest = bytes(self._waiting[end:])
        self._waiting.clear()
        self._phase = Phase.HANDSHAKE
        self._channel.handshake()
        return rest

    def _content(self, content: bytes) -> list[Event]:
        if self._phase is Phase.OPEN:
            return [Data(content)]
        if self._phase is not Phase.REQUESTED:
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
        self._phase = Phase.OPEN
        return [Replied(code), *([Data(rest)] if rest else [])]
