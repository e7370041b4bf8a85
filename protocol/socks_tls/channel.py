"""
A TLS session in frames (chapters 11.4 and 13 of BSI TR-03109-1, details): records in memory, never on a socket.

States go by what is sent: the handshake until it is done, then data, and every alert in a closing handshake.  On the
other side an alert is taken in whatever state it comes, and application data in the data flow alone.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Final

from protocol.errors import RemoteProtocolError
from protocol.socks_tls.frames import FrameReader, State, frames

_READ_SIZE: Final = 65_536


class TlsChannel:
    """One TLS session; `take` has what is to be sent."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self._reader = FrameReader()
        self._framed = bytearray()
        self.is_open = False
        """Whether the handshake is done, and nobody has closed."""
        self.is_closed_here = False
        self.is_closed_there = False

    @property
    def certificate(self) -> bytes:
        """What the peer showed (DER), empty for none."""
        return self._tls.getpeercert(binary_form=True) or b""

    def handshake(self) -> None:
        """Begin or go on.  Raises RemoteProtocolError `tls_handshake`."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._frame(State.INITIAL_HANDSHAKE)
            return
        except ssl.SSLError as error:
            raise self._failed("tls_handshake", error) from None
        self._frame(State.INITIAL_HANDSHAKE)
        self.is_open = True

    def receive(self, data: bytes) -> list[bytes]:
        """
        Take octets from the peer; application data of them, each part at most 64 KiB.

        Raises RemoteProtocolError: `bad_frame`, `tls_handshake`, `tls` for what the session does not take, `bad_state`
        for application data outside of the data flow, `subauthentication`.
        """
        received: list[bytes] = []
        for state, part in self._reader.receive(data):
            if self.is_closed_there:
                break  # what comes after a close_notify is ignored (RFC 8446, section 6.1)
            if state is State.OPTION_NEGOTIATION and part:
                raise self._refused("subauthentication", "options are negotiated, and there are none")
            self._incoming.write(part)
            if not self.is_open and not self.is_closed_here:
                self.handshake()
            if self.is_open or self.is_closed_here:
                content = self._read()
                if content and state is not State.DATA_FLOW:
                    raise self._refused("bad_state", f"application data in state {state}")
                received += content
            if state is State.CLOSING_HANDSHAKE and not part:
                self.is_closed_there = True  # without close_notify, as some do
        return received

    def send(self, content: bytes) -> None:
        """Encrypt application data.  Raises RemoteProtocolError `tls` where the session is over."""
        try:
            self._tls.write(content)
        except ssl.SSLError as error:
            raise self._failed("tls", error) from None
        self._frame(State.DATA_FLOW)

    def close(self) -> None:
        """Say that nothing more comes; what the peer still sends is read and dropped until it says the same."""
        if self.is_closed_here:
            return
        was_open = self.is_open
        self.is_open, self.is_closed_here = False, True
        if was_open:
            with suppress(ssl.SSLError):  # it wants the peer's answer, which `receive` takes
                self._tls.unwrap()
            self._frame(State.CLOSING_HANDSHAKE)

    def take(self) -> bytes:
        """What is to be sent."""
        framed = bytes(self._framed)
        self._framed.clear()
        return framed

    def _read(self) -> list[bytes]:
        content: list[bytes] = []
        try:
            while part := self._tls.read(_READ_SIZE):
                content.append(part)
            self.is_closed_there = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.is_closed_there = True
        except ssl.SSLError as error:
            if not self.is_closed_here:
                raise self._failed("tls", error) from None
            self.is_closed_there = True
        self._frame(State.DATA_FLOW)  # an answer to a key update
        return content

    def _failed(self, reason: str, error: ssl.SSLError) -> RemoteProtocolError:
        self._frame(State.CLOSING_HANDSHAKE)  # the alert, where the fault is seen here
        self.is_open, self.is_closed_here, self.is_closed_there = False, True, True
        return RemoteProtocolError(reason, error.reason or "no TLS")

    def _refused(self, reason: str, detail: str) -> RemoteProtocolError:
        self.close()
        return RemoteProtocolError(reason, detail)

    def _frame(self, state: State) -> None:
        if self._outgoing.pending:
            self._framed += frames(state, self._outgoing.read())
