"""
What both sides of a connection share: octets in and out, the end of the transport, and the closing handshake.

A side reads what comes before TLS (`_before_tls`) and says what content means in the phase it is in (`_content`).
"""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from enum import Enum, auto

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.socks_tls.channel import TlsChannel
from protocol.socks_tls.events import Authenticated, Closed, Event


class Phase(Enum):
    """How far a connection is."""

    METHOD = auto()
    HANDSHAKE = auto()
    READY = auto()  # for the request
    REQUESTED = auto()
    OPEN = auto()
    OVER = auto()


class SocksTlsConnection(ABC):
    """One connection, from the greeting to the end.  `context` has the side's certificate."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None = None) -> None:
        self._channel = TlsChannel(context, server_side=server_side, server_hostname=server_hostname)
        self._phase = Phase.METHOD
        self._waiting = bytearray()
        self._plain = bytearray()

    @property
    def is_over(self) -> bool:
        """Whether nothing more is received."""
        return self._phase is Phase.OVER

    def take(self) -> bytes:
        """What is to be sent."""
        plain = bytes(self._plain)
        self._plain.clear()
        return plain + self._channel.take()

    def receive(self, data: bytes) -> list[Event]:
        """
        Take octets from the other side, none for the end of the transport.

        Raises RemoteProtocolError: `bad_greeting`, `bad_method`, `bad_request` (server), `bad_reply`, `early_data`
        (client), and what TlsChannel.receive raises.
        """
        if self.is_over:
            return []
        if not data:
            self._phase = Phase.OVER
            return [Closed(is_clean=False)]
        try:
            if self._phase is Phase.METHOD:
                data = self._before_tls(data)
            return self._receive(data) if data else []
        except RemoteProtocolError:
            self._phase = Phase.OVER
            raise

    def send(self, content: bytes) -> None:
        """Send application data.  Raises LocalProtocolError before the reply; RemoteProtocolError `closed`."""
        if self.is_over or self._channel.is_closed_here:
            raise RemoteProtocolError("closed", "the connection is over")
        if self._phase is not Phase.OPEN:
            raise LocalProtocolError("data before the reply")
        self._channel.send(content)

    def close(self) -> None:
        """Begin the closing handshake; it is over when the other side has answered."""
        self._channel.close()
        if self._phase is Phase.METHOD or self._channel.is_closed_there:
            self._phase = Phase.OVER

    def _receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        received = self._channel.receive(data)
        if self._phase is Phase.HANDSHAKE and self._channel.is_open:
            self._phase = Phase.READY
            events.append(Authenticated(self._channel.certificate))
        for content in received:
            if not self._channel.is_closed_here:
                events += self._content(content)
        if self._channel.is_closed_there:
            self.close()
            self._phase = Phase.OVER
            events.append(Closed(is_clean=True))
        return events

    @abstractmethod
    def _before_tls(self, data: bytes) -> bytes:
        """Take what comes before TLS; the octets behind it."""

    @abstractmethod
    def _content(self, content: bytes) -> list[Event]:
        """What the content of one TLS record is, which never comes once we have closed."""
