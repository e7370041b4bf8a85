"""
TLS sessions that the gateway opens on the WAN, and requests in them (BSI TR-03109-1, details, chapters 6 and 13).

Mutual TLS with the gateway's certificate.  The server's certificate must lead to the SM-PKI root and be the very one
that the communication profile names (REQ.TA.TLS.Handshake.160); that is looked at before the first octet is sent.  No
renegotiation, suites and curves of protocol.link.tls.  A session is for a handful of requests and has a time limit far
below the 48 hours of a session; it is closed within 20 seconds (REQ.TA.TLS.Close.80, .90), answered or not.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import h11
import trio

from protocol.errors import RemoteProtocolError
from protocol.link.pinned_tls import open_pinned
from protocol.profiles.communication import WanProfile

CONNECT_S: Final = 30.0
ANSWER_S: Final = 60.0
CLOSE_S: Final = 20.0
_ANSWER_SIZE_MAX: Final = 64 * 1024
_EVENT_SIZE_MAX: Final = 16 * 1024
_HTTPS: Final = 443


class Answer(NamedTuple):
    """An answer's status and content."""

    status: int
    content: bytes


class Session:
    """One TLS session with one server; see `open_session`."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream], host: str) -> None:
        self._stream = stream
        self._host = host
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_EVENT_SIZE_MAX)

    async def post(self, path: str, content: bytes, headers: list[tuple[str, str]]) -> Answer:
        """
        Send content to a resource (REQ.Webservice.HttpClient.60), and return the answer.

        Raises RemoteProtocolError `bad_answer`, OSError or trio.BrokenResourceError where the session ends meanwhile,
        trio.TooSlowError.
        """
        fields = [("Host", self._host), ("Content-Length", str(len(content))), *headers]
        with trio.fail_after(ANSWER_S):
            try:
                if self._connection.our_state is h11.DONE:
                    self._connection.start_next_cycle()
                for event in (h11.Request(method="POST", target=path, headers=fields), h11.Data(data=content),
                              h11.EndOfMessage()):  # fmt: skip
                    if (data := self._connection.send(event)) is not None:
                        await self._stream.send_all(data)
                return await self._answer()
            except (h11.LocalProtocolError, h11.RemoteProtocolError) as error:
                raise RemoteProtocolError("bad_answer", f"no HTTP/1.1: {error}") from None

    async def _answer(self) -> Answer:
        status, body = 0, bytearray()
        while True:
            event: Any = self._connection.next_event()
            if event is h11.NEED_DATA:
                self._connection.receive_data(bytes(await self._stream.receive_some(_EVENT_SIZE_MAX)))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > _ANSWER_SIZE_MAX:
                    raise RemoteProtocolError("bad_answer", f"an answer of over {_ANSWER_SIZE_MAX} octets")
            elif isinstance(event, h11.EndOfMessage):
                return Answer(status, bytes(body))
            elif isinstance(event, h11.ConnectionClosed):
                raise RemoteProtocolError("bad_answer", "the session ended before the answer")


@asynccontextmanager
async def open_session(
    profile: WanProfile, context: ssl.SSLContext, connect: Callable[..., Any] = trio.open_tcp_stream
) -> AsyncIterator[Session]:
    """
    A session with the server of a communication profile; `context` has the root and the gateway's certificate.

    Raises OSError (ssl.SSLError is one), trio.BrokenResourceError, trio.TooSlowError; RemoteProtocolError
    `wrong_server` for a server with another certificate than the profile's.
    """
    address = urlsplit(profile.uri)
    async with open_pinned(
        address.hostname or "", address.port or _HTTPS, context, profile.tls_certificate, connect_s=CONNECT_S,
        close_s=CLOSE_S, connect=connect,
    ) as stream:  # fmt: skip
        yield Session(stream, address.netloc)
