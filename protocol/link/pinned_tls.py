"""
TLS sessions with a server whose very certificate is known beforehand (REQ.TA.TLS.Handshake.160 of BSI TR-03109-1).

That it leads to the root is the context's part.  That it is the one of the profile is looked at after the handshake and
before the first octet is sent.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from cryptography.hazmat.primitives import constant_time

from protocol.errors import RemoteProtocolError


@asynccontextmanager
async def open_pinned(
    host: str, port: int, context: ssl.SSLContext, fingerprint: str, *, connect_s: float, close_s: float,
    server_name: str | None = None, connect: Callable[..., Any] = trio.open_tcp_stream,
) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:  # fmt: skip
    """
    A session with the server whose certificate has this SHA-256 (hexadecimal); closed within `close_s`.

    `server_name` is what goes into the handshake as its name, `host` where that is None.

    Raises OSError (ssl.SSLError is one), trio.BrokenResourceError, trio.TooSlowError; RemoteProtocolError
    `wrong_server` for another certificate, `bad_name` for a name that cannot be one (a localServerName may be "..").
    """
    try:
        host.encode("idna"), (server_name or host).encode("idna")
    except UnicodeError:
        raise RemoteProtocolError("bad_name", "expected a host name of parts of 1 to 63 characters") from None
    with trio.fail_after(connect_s):
        transport = await connect(host, port)
    stream = trio.SSLStream(transport, context, server_hostname=server_name or host)
    try:
        with trio.fail_after(connect_s):
            await stream.do_handshake()
        shown = hashlib.sha256(stream.getpeercert(binary_form=True) or b"").hexdigest()
        if not constant_time.bytes_eq(shown.encode(), fingerprint.encode()):
            raise RemoteProtocolError("wrong_server", "its certificate is not the one of the communication profile")
        yield stream
    finally:
        with trio.move_on_after(close_s, shield=True):
            await stream.aclose()
