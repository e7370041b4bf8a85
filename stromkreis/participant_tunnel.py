"""
The market participant's end of tunnels to a controllable system (BSI TR-03109-1, scenario HKS4).

A local program connects; the administrator is asked for a tunnel, wakes the gateway up, and the gateway connects here
with TLS and certificates on both sides.  Local connection and tunnel are then one: the program speaks to the system.
"""

from __future__ import annotations

import logging
import ssl
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import httpx
import trio
from cryptography import x509

from node.cls.relay import RateLimit, Traffic, relay
from node.wan.bounded_http import ask
from protocol import pki
from protocol.errors import RemoteProtocolError
from protocol.log_limit import PEER_LINE_S, LogLimiter
from stromkreis.handshakes import Handshakes
from stromkreis.tcp_listeners import listen_at

log = logging.getLogger(__name__)
TUNNEL_S: Final = 50.0
"""For which a program waits: so long a tunnel may take from nothing (TR-03109-1)."""
CONNECTIONS_MAX: Final = 16
_POLL_S: Final = 0.5
_HANDSHAKE_S: Final = 20.0
_ORDERS: Final = "/cls/v1/tunnels"
_LISTS: Final = "/cls/v1/revocation-lists"
_LISTED: Final = 200
_ACCEPTED: Final = (200, 202)
_LOST: Final = (RemoteProtocolError, OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)
_shown_name: ContextVar[str | None] = ContextVar("_shown_name", default=None)
"""What the gateway of this task has called us in its handshake (SNI)."""


class Tunnel(NamedTuple):
    """A gateway's connection, which ends when `is_over` is set."""

    stream: trio.SSLStream[trio.SocketStream]
    is_over: trio.Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which system: a proxy profile of a gateway; and for how long, None for as long as the profile admits."""

    gateway: str
    proxy: str
    duration_s: int | None = None


class ParticipantTunnel:
    """`administrator` asks with the participant's certificate, `context` is the server's for the gateway."""

    def __init__(
        self, wanted: Wanted, administrator: httpx.AsyncClient, context: ssl.SSLContext, root: x509.Certificate,
        intermediates: list[x509.Certificate],
    ) -> None:  # fmt: skip
        self._wanted = wanted
        self._administrator = administrator
        self._context = context
        self._context.sni_callback = _note_name
        self._server_name: str | None = None
        self._is_named = trio.Event()
        self._root = root
        self._intermediates = intermediates
        self._revocations = pki.RevocationLists()
        self._waiting: list[trio.MemorySendChannel[Tunnel]] = []
        self._handshakes = Handshakes(_HANDSHAKE_S)
        self._places = trio.CapacityLimiter(CONNECTIONS_MAX)
        self._rate = RateLimit(float("inf"))
        self._lines = LogLimiter(PEER_LINE_S, trio.current_time)

    async def serve(
        self, tls: tuple[str, int], local: tuple[str, int],
        *, task_status: trio.TaskStatus[tuple[int, int]] = trio.TASK_STATUS_IGNORED,
    ) -> None:  # fmt: skip
        """
        Take gateways at `tls` and programs at `local` until cancelled; `task_status` gets both ports.

        Raises StromkreisError where an address is taken.
        """
        gateways, gateways_port = await listen_at("--tls", *tls)
        programs, programs_port = await listen_at("--listen", *local)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._gateway, gateways)
            nursery.start_soon(trio.serve_listeners, self._program, programs)
            task_status.started((gateways_port, programs_port))

    # --- gateways -----------------------------------------------------------------------------------------------------

    async def _gateway(self, transport: trio.SocketStream) -> None:
        stream = trio.SSLStream(transport, self._context, server_side=True)
        try:
            await self._handshakes.shake(stream)
            self._check(x509.load_der_x509_certificate(stream.getpeercert(binary_form=True) or b""))
            with trio.fail_after(_HANDSHAKE_S):
                if self._waiting:  # the gateway may be faster than the administrator's answer to us
                    await self._is_named.wait()
            if (shown := _shown_name.get()) != self._server_name:
                raise RemoteProtocolError("other_profile", f"it asks for {shown}, ordered was {self._server_name}")
            if not self._waiting:
                raise RemoteProtocolError("not_waited_for", "no program waits for a tunnel")
            tunnel = Tunnel(stream, trio.Event())
            await self._waiting.pop(0).send(tunnel)
            await tunnel.is_over.wait()
        except _LOST as error:
            self._report(f"a gateway's connection is refused: {_text(error)}")

    def _check(self, certificate: x509.Certificate) -> None:
        """Raises RemoteProtocolError for another gateway than the one that is wanted, or where that is revoked."""
        pki.verify_chain(
            certificate, self._intermediates, self._root, datetime.now(UTC), role=pki.Role.GATEWAY_TLS,
            revocations=self._revocations,
        )  # fmt: skip
        found = pki.gateway_id(certificate)
        if found != self._wanted.gateway:
            raise RemoteProtocolError("wrong_gateway", f"it is {found}, expected {self._wanted.gateway}")

    # --- programs -----------------------------------------------------------------------------------------------------

    async def _program(self, local: trio.SocketStream) -> None:
        try:
            async with self._places, local:
                tunnel = await self._tunnel()
                try:
                    await relay(
                        local, tunnel.stream, self._rate, Traffic(), idle_s=float("inf"), duration_s=float("inf")
                    )  # fmt: skip
                finally:
                    with trio.move_on_after(_HANDSHAKE_S / 4, shield=True):
                        await tunnel.stream.aclose()
                    tunnel.is_over.set()
        except (*_LOST, httpx.HTTPError, ValueError, KeyError) as error:
            self._report(f"no tunnel to {self._wanted.proxy} of {self._wanted.gateway}: {_text(error)}")

    async def _tunnel(self) -> Tunnel:
        """
        A tunnel, within `TUNNEL_S`.

        Raises RemoteProtocolError with the gateway's or the administrator's reason, httpx.HTTPError, ValueError or
        KeyError for an answer that is none.
        """
        give, take = trio.open_memory_channel[Tunnel](1)
        self._waiting.append(give)
        failures: list[Exception] = []
        try:
            with trio.move_on_after(TUNNEL_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._order, nursery.cancel_scope, failures)
                    tunnel = await take.receive()
                    nursery.cancel_scope.cancel()
                    return tunnel
        finally:
            if give in self._waiting:
                self._waiting.remove(give)
        with suppress(trio.WouldBlock):  # it came when nobody wanted it any more
            take.receive_nowait().is_over.set()
        for each in failures:
            raise each
        raise RemoteProtocolError("no_tunnel", f"the gateway has not connected within {TUNNEL_S:g} s")

    async def _order(self, scope: trio.CancelScope, failures: list[Exception]) -> None:
        """Order it, and watch what becomes of it; a failure ends the wait."""
        body = {"gateway": self._wanted.gateway, "proxy": self._wanted.proxy, "duration_s": self._wanted.duration_s}
        try:
            await self._fetch_lists()
            state = await self._ask("POST", _ORDERS, json=body)
            self._server_name = state["server_name"]
            self._is_named.set()
            while state["outcome"] in {"waiting", "connected"}:
                await trio.sleep(_POLL_S)
                state = await self._ask("GET", f"{_ORDERS}/{state['id']}")
            failures.append(RemoteProtocolError("order_failed", f"the gateway opens none: {state['outcome']}"))
        except (RemoteProtocolError, httpx.HTTPError, ValueError, KeyError) as error:
            failures.append(error)
        scope.cancel()

    async def _fetch_lists(self) -> None:
        """Ahead of each order: a gateway that was revoked since the last one is refused."""
        answer = await ask(self._administrator, "GET", _LISTS, size_max=pki.LISTS_SIZE_MAX)
        if answer.status_code != _LISTED:
            raise RemoteProtocolError("no_lists", f"the administrator gives no revocation lists: {answer.status_code}")
        self._revocations.take(pki.load_revocation_bundle(answer.content, self._root, datetime.now(UTC)))

    async def _ask(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        response = await self._administrator.request(method, path, **how)
        answer: dict[str, Any] = response.json()
        if response.status_code not in _ACCEPTED:
            raise RemoteProtocolError("order_refused", f"the administrator refuses: {answer.get('detail', '')[:200]}")
        return answer

    def _report(self, text: str) -> None:
        if self._lines.is_due(text):
            log.warning("%s", text)


def _note_name(_object: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> None:
    _shown_name.set(None if name is None else name.removesuffix(".").lower())


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
