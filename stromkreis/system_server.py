"""
The server side of the communication adapter: the gateway begins (HKS4, HKS5), a local program of the system is reached.

TLS with certificates on both sides, the gateway's being the very one whose SHA-256 is known.  It is asked for once, at
the gateway's own port, and compared; a program that speaks plain TCP then sees connections of this machine alone.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
from pathlib import Path
from random import Random
from typing import Final

import trio
from cryptography.hazmat.primitives import constant_time

from node.cls.relay import RateLimit, Traffic, relay
from node.cls.stream import SocksTlsStream
from node.security.home_certificate import HanKey, trust
from protocol.errors import RemoteProtocolError, StromkreisError
from protocol.log_limit import PEER_LINE_S, LogLimiter
from protocol.socks_tls import Authenticated, SocksTlsClient
from stromkreis.handshakes import Handshakes
from stromkreis.socks_adapter import CONNECTIONS_MAX, PAUSE_S, Gateway
from stromkreis.tcp_listeners import listen_at

log = logging.getLogger(__name__)
_HANDSHAKE_S: Final = 10.0
_ANSWER_S: Final = 20.0
_LOST: Final = (RemoteProtocolError, OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)


async def gateway_certificate(gateway: Gateway, rng: Random) -> bytes:
    """
    The gateway's home certificate (DER), asked for until it answers.

    Raises StromkreisError where it shows another one than that of `gateway.fingerprint`.
    """
    while True:
        try:
            with trio.fail_after(_ANSWER_S):
                shown = await shown_certificate(gateway)
            break
        except _LOST as error:
            log.warning(
                "the gateway does not answer at %s:%d (%s); asked again", gateway.host, gateway.port,
                str(error) or type(error).__name__,
            )  # fmt: skip
        await trio.sleep(rng.uniform(*PAUSE_S))
    found = hashlib.sha256(shown).hexdigest()
    if not constant_time.bytes_eq(found.encode(), gateway.fingerprint.encode()):
        raise StromkreisError(f"--gateway-sha256: the gateway's certificate has another, {found}")
    return shown


async def shown_certificate(gateway: Gateway) -> bytes:
    """What the gateway shows, whoever it is.  Raises RemoteProtocolError, OSError, trio.BrokenResourceError."""
    stream = SocksTlsStream(
        await gateway.dial(gateway.host, gateway.port), SocksTlsClient(gateway.context)
    )  # fmt: skip
    try:
        await stream.flush()
        event = await stream.next_event()
        if not isinstance(event, Authenticated):
            raise RemoteProtocolError("closed", "it closed before its handshake")
        return event.certificate
    finally:
        await stream.aclose()


def server_context(file: Path, certificate: bytes) -> ssl.SSLContext:
    """For the gateway with this certificate (DER) alone; `file` is the system's key and certificate."""
    context = HanKey.from_pem(file.read_bytes()).context(is_certificate_required=True)
    trust(context, certificate)
    return context


class SystemServer:
    """Takes the gateway's connections and passes them on to a program at `target`."""

    def __init__(self, context: ssl.SSLContext, target: tuple[str, int]) -> None:
        self._context = context
        self._target = target
        self._handshakes = Handshakes(_HANDSHAKE_S)
        self._places = trio.CapacityLimiter(CONNECTIONS_MAX)
        self._rate = RateLimit(float("inf"))
        self._lines = LogLimiter(PEER_LINE_S, trio.current_time)

    async def serve(
        self, host: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:  # fmt: skip
        """Listen until cancelled; `task_status` gets the port.  Raises StromkreisError where it is taken."""
        listeners, found = await listen_at("--serve", host, port)
        task_status.started(found)
        await trio.serve_listeners(self._connection, listeners)

    async def _connection(self, transport: trio.SocketStream) -> None:
        stream = trio.SSLStream(transport, self._context, server_side=True)
        try:
            await self._serve(stream)
        except _LOST as error:
            if self._lines.is_due(type(error).__name__):
                log.warning("a connection to this system ended: %s", str(error) or type(error).__name__)
        finally:
            with trio.move_on_after(_HANDSHAKE_S / 2, shield=True):
                await stream.aclose()

    async def _serve(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        await self._handshakes.shake(stream)
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            raise RemoteProtocolError("too_many", f"{CONNECTIONS_MAX} connections are open already") from None
        try:
            async with await self._program() as local:
                await relay(
                    local, stream, self._rate, Traffic(), idle_s=float("inf"), duration_s=float("inf")
                )  # fmt: skip
        finally:
            self._places.release()

    async def _program(self) -> trio.SocketStream:
        try:
            with trio.fail_after(_HANDSHAKE_S):
                return await trio.open_tcp_stream(*self._target)
        except OSError as error:
            host, port = self._target
            raise RemoteProtocolError("no_program", f"no program answers at --forward {host}:{port}") from error
