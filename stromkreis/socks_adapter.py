"""
The communication adapter of a controllable system (chapter 11.2 of BSI TR-03109-1, details): SOCKS-TLS to the gateway,
plain SOCKS5 (RFC 1928) to programs on its own machine, which then need to know nothing of either.

Each local connection is one connection to the gateway (ConnectRequest.10).  After a refusal the gateway is not asked
for the same name again for 5 to 60 seconds, at random (ConnectRequest.80): programs that try meanwhile are given the
same refusal at once.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Final

import trio
from cryptography.hazmat.primitives import constant_time

from node.cls.relay import RateLimit, Traffic, relay
from node.cls.stream import SocksTlsStream
from protocol.errors import RemoteProtocolError
from protocol.log_limit import PEER_LINE_S, LogLimiter
from protocol.socks_tls import Authenticated, Destination, Replied, Reply, SocksTlsClient, messages
from stromkreis.tcp_listeners import listen_at

log = logging.getLogger(__name__)
CONNECTIONS_MAX: Final = 64
PAUSE_S: Final = (5.0, 60.0)
_LOCAL_S: Final = 10.0  # for a local program to say what it wants
_GATEWAY_S: Final = 20.0  # for the gateway's handshake
_REPLY_S: Final = 60.0  # for the gateway to reach the participant
_NO_AUTHENTICATION: Final = 0x00

GatewayStream = SocksTlsStream[SocksTlsClient]
_LOST: Final = (RemoteProtocolError, OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """
    Where it is, the SHA-256 of its home certificate (hexadecimal), and a context with the adapter's own.

    `dial` connects with host and port; raises OSError.
    """

    host: str
    port: int
    fingerprint: str
    context: ssl.SSLContext
    dial: Callable[[str, int], Awaitable[trio.SocketStream]] = trio.open_tcp_stream


class SocksAdapter:
    """`serve` takes local connections until cancelled; `rng` draws the pauses."""

    def __init__(self, gateway: Gateway, rng: Random) -> None:
        self._gateway = gateway
        self._rng = rng
        self._refused: dict[Destination, tuple[float, Reply]] = {}
        self._places = trio.CapacityLimiter(CONNECTIONS_MAX)
        self._rate = RateLimit(float("inf"))
        self._lines = LogLimiter(PEER_LINE_S, trio.current_time)

    async def serve(
        self, host: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:  # fmt: skip
        """Listen for local programs; `task_status` gets the port.  Raises StromkreisError where it is taken."""
        listeners, found = await listen_at("--listen", host, port)
        task_status.started(found)
        await trio.serve_listeners(self._connection, listeners)

    async def _connection(self, local: trio.SocketStream) -> None:
        async with self._places:
            try:
                with trio.fail_after(_LOCAL_S):
                    wanted, early = await self._local_request(local)
                await self._connect(local, wanted, early)
            except messages.RequestError as error:
                await self._answer(local, error.reply)
            except _LOST as error:
                log.debug("a local connection ended: %s", error)
            finally:
                await trio.aclose_forcefully(local)

    async def _local_request(self, local: trio.SocketStream) -> tuple[Destination, bytes]:
        """What a program wants, and what it has sent already.  Raises RemoteProtocolError, RequestError."""
        waiting = b""
        while (offered := messages.read_greeting(waiting)) is None:
            waiting += await self._more(local)
        methods, end = offered
        if _NO_AUTHENTICATION not in methods:
            await local.send_all(messages.selection(messages.NO_METHOD))
            raise RemoteProtocolError("bad_method", "expected SOCKS5 without authentication (0)")
        await local.send_all(messages.selection(_NO_AUTHENTICATION))
        waiting = waiting[end:]
        while (asked := messages.read_request(waiting)) is None:
            waiting += await self._more(local)
        return asked[0], waiting[asked[1] :]

    @staticmethod
    async def _more(local: trio.SocketStream) -> bytes:
        data = await local.receive_some(messages.REQUEST_SIZE_MAX)
        if not data:
            raise RemoteProtocolError("closed", "a local program went before it had asked")
        return bytes(data)

    async def _connect(self, local: trio.SocketStream, asked: Destination, early: bytes) -> None:
        wanted = asked
        if isinstance(asked.host, str):
            wanted = Destination(asked.host.lower(), asked.port)  # programs write names as they like
            if wanted.local_name is None:
                await self._answer(local, Reply.NOT_ALLOWED)
                return
        until_s, reply = self._refused.get(wanted, (0.0, Reply.SUCCEEDED))
        if reply is not Reply.SUCCEEDED and trio.current_time() < until_s:
            await self._answer(local, reply)
            return
        try:
            with trio.fail_after(_GATEWAY_S):
                transport = await self._gateway.dial(self._gateway.host, self._gateway.port)
        except (OSError, trio.TooSlowError):
            self._report(f"the gateway does not answer at {self._gateway.host}:{self._gateway.port}")
            await self._answer(local, Reply.GENERAL_FAILURE)
            return
        gateway = GatewayStream(transport, SocksTlsClient(self._gateway.context))
        try:
            reply = await self._ask(gateway, wanted)
            if reply is not Reply.SUCCEEDED:
                self._hold(wanted, reply)
            await self._answer(local, reply)
            if reply is Reply.SUCCEEDED:
                if early:
                    await gateway.send_all(early)
                await relay(
                    local, gateway, self._rate, Traffic(), idle_s=float("inf"), duration_s=float("inf")
                )  # fmt: skip
        finally:
            await gateway.aclose()

    async def _ask(self, gateway: GatewayStream, wanted: Destination) -> Reply:
        try:
            with trio.fail_after(_GATEWAY_S):
                await gateway.flush()
                event = await gateway.next_event()
            if not isinstance(event, Authenticated):
                raise RemoteProtocolError("closed", "the gateway closed before its handshake")
            shown = hashlib.sha256(event.certificate).hexdigest()
            if not constant_time.bytes_eq(shown.encode(), self._gateway.fingerprint.encode()):
                raise RemoteProtocolError("wrong_server", f"its certificate has the SHA-256 {shown}")
            gateway.core.connect(wanted)
            with trio.fail_after(_REPLY_S):
                await gateway.flush()
                event = await gateway.next_event()
            if isinstance(event, Replied):
                return event.reply
            raise RemoteProtocolError("closed", "the gateway closed before it replied")
        except _LOST as error:
            self._report(
                f"the gateway serves nothing ({str(error) or type(error).__name__}); it knows this adapter by a HAN"
                " profile with the SHA-256 of its certificate"
            )
            return Reply.GENERAL_FAILURE

    def _hold(self, wanted: Destination, reply: Reply) -> None:
        now_s = trio.current_time()
        self._refused = {each: held for each, held in self._refused.items() if held[0] > now_s}
        self._refused[wanted] = (now_s + self._rng.uniform(*PAUSE_S), reply)
        self._report(f"the gateway refuses {wanted.host}: {reply.name.lower()} ({reply:#04x})")

    def _report(self, text: str) -> None:
        if self._lines.is_due(text):
            log.warning("%s", text)

    @staticmethod
    async def _answer(local: trio.SocketStream, reply: Reply) -> None:
        await local.send_all(messages.reply(reply))
        if reply is not Reply.SUCCEEDED:
            await local.send_eof()
