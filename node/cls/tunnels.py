"""
The tunnels of one gateway, whoever has begun them: how many there may be, who is at their far end, when they end.

The participant's certificate is the one that the proxy profile names, leads to the SM-PKI root and is on no revocation
list; that is looked at before the first octet is passed on, and again every minute while the tunnel is open.
"""

from __future__ import annotations

import logging
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

import trio
from cryptography import x509

from node.cls.admission import TUNNELS_PER_SYSTEM_MAX, Quota
from node.cls.destinations import system_of
from node.cls.participant import UnreachableError, connect
from node.cls.relay import End, RateLimit, Stream, Traffic, relay
from node.cls.tunnel_log import Note, TunnelLog
from node.metrics import NodeMetrics
from node.profiles.gateway_profiles import GatewayProfiles
from node.security.home_certificate import HanKey, Secrets, han_key
from node.security.module import SecurityModule
from protocol import pki
from protocol.errors import RemoteProtocolError
from protocol.log_limit import PEER_LINE_S, LogLimiter
from protocol.profiles.communication import ProxyProfile
from protocol.socks_tls import Reply

log = logging.getLogger(__name__)
HOLD_S: Final = 5.0
"""For which a participant that was not reached is not tried again: no client may try sooner (ConnectRequest.80)."""
_VALIDITY_LOOK_S: Final = 60.0

Remote = trio.SSLStream[trio.SocketStream]


class Trust(Protocol):
    """See node.trust.TrustStore."""

    def participant(  # noqa: D102
        self, certificate: bytes, intermediates: Sequence[bytes], role: pki.Role
    ) -> x509.Certificate: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClsServices:
    """
    What all gateways of a process share for their controllable systems.

    `tls_context` makes a client's context that trusts the SM-PKI root alone; `listen` is HOST:PORT, by gateway;
    `begins` are the gateways that open tunnels by themselves, too.
    """

    secrets: Secrets
    metrics: NodeMetrics
    trust: Trust
    tls_context: Callable[[], ssl.SSLContext]
    listen: dict[str, str] = field(default_factory=dict)
    begins: frozenset[str] = frozenset()


class Tunnels:
    """One gateway's; `clock` is real time (Unix, s), `rate` what its tunnels may move together."""

    def __init__(
        self, services: ClsServices, module: SecurityModule, profiles: GatewayProfiles, note: Note,
        clock: Callable[[], float], rate: RateLimit | None = None,
    ) -> None:  # fmt: skip
        self.systems = Quota(TUNNELS_PER_SYSTEM_MAX)
        self.services = services
        self.module = module
        self.profiles = profiles
        self.log = TunnelLog(note)
        self._clock = clock
        self._rate = rate or RateLimit()
        self._open: Counter[str] = Counter()
        self._held: dict[str, tuple[float, UnreachableError]] = {}
        self._lines = LogLimiter(PEER_LINE_S, trio.current_time)

    async def run(self) -> None:
        """Write the log's sums, and try participants anew when profiles change; until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.log.run)
            while True:
                changed = self.profiles.changed
                self._held.clear()
                await changed.wait()

    def now(self) -> datetime:
        """The gateway's time."""
        return datetime.fromtimestamp(self._clock(), UTC)

    async def home_key(self) -> HanKey:
        """The gateway's key for the home.  Raises StoreError, SealError."""
        module = self.module
        return await han_key(
            module.identity, self.services.secrets, module.random, module.ephemeral_key, self._clock()
        )  # fmt: skip

    def refused(self, system: str, reason: str, detail: str) -> None:
        """Count, note and report what was not opened; `system` is "-" where nobody has proved to be one."""
        self.services.metrics.cls_connection(reason)
        self.log.refused(system, reason)
        if self._lines.is_due(reason):
            log.warning("gateway %s refuses a controllable system: %s (%s)", self.module.identity, reason, detail)

    def open_by(self, proxy_id: str) -> int:
        """How many are open by a proxy profile; any thread may ask."""
        return self._open[proxy_id]

    async def reach(self, proxy: ProxyProfile, stack: AsyncExitStack) -> Remote:
        """
        The TLS session with a profile's participant, closed with `stack`.

        Raises UnreachableError, the last one again for a while after a failure.
        """
        until_s, failure = self._held.get(proxy.id, (0.0, None))
        if failure is not None and trio.current_time() < until_s:
            raise UnreachableError(failure.reply, failure.reason)
        try:
            remote = await connect(proxy, self._client_context, stack)
            self._check(remote)
        except UnreachableError as error:
            self._held[proxy.id] = (trio.current_time() + HOLD_S, error)
            raise
        self._held.pop(proxy.id, None)
        return remote

    async def carry(
        self, proxy: ProxyProfile, fingerprint: str, home: Stream, remote: Remote, duration_s: float
    ) -> None:  # fmt: skip
        """Pass octets on until one side, a limit, a profile or a revocation ends it; `fingerprint` is the system's."""
        metrics, traffic, end = self.services.metrics, Traffic(), End.PROFILE
        metrics.cls_connection("connected")
        metrics.cls_tunnels(1)
        self._open[proxy.id] += 1
        self.log.opened(proxy)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_with_profile, proxy, fingerprint, remote, nursery.cancel_scope)
                end = await relay(
                    home, remote, self._rate, traffic, idle_s=proxy.idle_timeout_s, duration_s=duration_s
                )  # fmt: skip
                nursery.cancel_scope.cancel()
        finally:
            metrics.cls_tunnels(-1)
            self._open[proxy.id] -= 1
            metrics.cls_bytes(traffic.sent, traffic.received)
            self.log.ended(proxy, end, traffic)

    def _check(self, remote: Remote) -> None:
        certificate = remote.getpeercert(binary_form=True) or b""
        try:
            self.services.trust.participant(certificate, self.module.intermediates, pki.Role.PARTICIPANT_TLS)
        except RemoteProtocolError as error:
            raise UnreachableError(Reply.REFUSED, error.reason) from None

    async def _end_with_profile(
        self, proxy: ProxyProfile, fingerprint: str, remote: Remote, scope: trio.CancelScope
    ) -> None:  # fmt: skip
        """End a tunnel whose profiles are not in force any more as they were, or whose participant was revoked."""
        while True:
            with trio.move_on_after(_VALIDITY_LOOK_S):
                await self.profiles.changed.wait()
            current, now = self.profiles.current, self.now()
            is_in_force = current is not None and proxy in current.proxy and proxy.is_valid_at(now)
            try:
                self._check(remote)
            except UnreachableError:
                is_in_force = False
            if not is_in_force or system_of(current, fingerprint, now) != proxy.cls:
                scope.cancel()
                return

    def _client_context(self) -> ssl.SSLContext:
        context = self.services.tls_context()
        context.check_hostname = False  # the profile names the certificate itself
        self.module.load_tls(context)
        return context
