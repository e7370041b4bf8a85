"""
The server's side, which is the gateway's (chapter 11.3): greeting, TLS, one CONNECT, then data until somebody closes.

What does not fit raises RemoteProtocolError.  The connection is over then, and what is left in `take` (the refusal of
a method, an alert, a reply and the closing handshake) is to be sent before the transport is closed.
"""

from __future__ import annotations

import ssl

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.socks_tls import messages
from protocol.socks_tls.connection import Phase, SocksTlsConnection
from protocol.socks_tls.events import Data, Event, Requested
from protocol.socks_tls.messages import Reply, RequestError


class SocksTlsServer(SocksTlsConnection):
    """One connection; `context` asks for the client's certificate and has no session tickets."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context, server_side=True)
        self._early: list[Event] = []

    def reply(self, code: Reply) -> list[Event]:
        """
        Answer the request; after anything but SUCCEEDED it is over.

        Returns what the client has sent before the answer.  Raises LocalProtocolError without a request;
        RemoteProtocolError `closed` where the client has closed meanwhile.
        """
        if self._phase is Phase.OVER:
            raise RemoteProtocolError("closed", "the client has closed before the reply")
        if self._phase is not Phase.REQUESTED:
            raise LocalProtocolError("a reply without a request")
        self._channel.send(messages.reply(code))
        if code is not Reply.SUCCEEDED:
            self.close()
            return []
        self._phase = Phase.OPEN
        early, self._early = self._early, []
        return early

    def _before_tls(self, data: bytes) -> bytes:
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
        self._phase = Phase.HANDSHAKE
        return rest

    def _content(self, content: bytes) -> list[Event]:
        if self._phase is Phase.READY:
            return self._request(content)
        if self._phase is Phase.REQUESTED:
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
        self._phase = Phase.REQUESTED
        return [Requested(destination)]
