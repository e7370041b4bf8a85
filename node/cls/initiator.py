"""
Tunnels that the controllable system has not asked for: the gateway opens both sessions (BSI TR-03109-1, HKS4 and HKS5).

At the administrator's order for a market participant (HKS4, see node.wan.tunnel_orders), and by itself at times and
events that a proxy profile names (HKS5).  The system at home is a TLS server then, with the very certificate of its HAN
profile; it is told the profile's localServerName (TA.TLS.OpenHanSessionAsClient.30).  It is connected first, so that
nobody is called for a system that is away.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from random import Random
from typing import Final

import trio

from node.cls.participant import UnreachableError, connect_system
from node.cls.tunnels import Tunnels
from node.profiles.checking import der_of
from node.security.home_certificate import HanKey, trust
from protocol.errors import RemoteProtocolError
from protocol.logs.events import Event
from protocol.profiles.communication import ProxyProfile
from protocol.socks_tls import Reply

CONNECTED: Final = "connected"
ATTEMPTS: Final = 3
PAUSE_S: Final = (5.0, 60.0)
"""Between two attempts, at random (as ConnectRequest.80 has it for the other direction)."""
EVENT_PAUSE_S: Final = 60.0
"""Between two beginnings of a profile by events: a meter that fails again and again calls nobody each time."""
_CLOCK_LOOK_S: Final = 30.0  # the clock may be set

Dial = Callable[[str, int], Awaitable[trio.SocketStream]]


class TunnelInitiator:
    """One gateway's, on its `tunnels`; `rng` draws pauses, `dial` reaches a host at home."""

    def __init__(self, tunnels: Tunnels, rng: Random, dial: Dial = trio.open_tcp_stream) -> None:
        self._tunnels = tunnels
        self._rng = rng
        self._dial = dial
        self._key: HanKey | None = None
        self._nursery: trio.Nursery | None = None
        self._occasions: dict[str, int] = {}
        self._event_s: dict[str, float] = {}
        self._wanted: list[str] = []
        self._has_wanted = trio.Event()
        self._busy: set[str] = set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled.  Raises StoreError, SealError where the key cannot be read or kept."""
        self._key = await self._tunnels.home_key()
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._follow_clock)
                self._nursery.start_soon(self._follow_events)
                task_status.started()
        finally:
            self._nursery = None

    async def begin(self, proxy_id: str, initiator: str, duration_s: int | None = None) -> str:
        """
        Open a tunnel by a proxy profile that admits the `initiator`, for at most `duration_s`; what became of it.

        `CONNECTED` once both sessions are there, otherwise a reason in one word.
        """
        if self._nursery is None:
            return "not_running"
        current, now = self._tunnels.profiles.current, self._tunnels.now()
        for proxy in () if current is None else current.proxy:
            if proxy.id == proxy_id and initiator in proxy.initiators and proxy.is_valid_at(now):
                longest_s = min(duration_s or proxy.duration_max_s, proxy.duration_max_s)
                outcome: str = await self._nursery.start(self._tunnel, proxy, initiator, longest_s)
                return outcome
        self._tunnels.refused("-", "no_profile", f"{initiator} may not begin {proxy_id}")
        return "no_profile"

    def on_event(self, event: Event) -> None:
        """Begin what profiles name this event for; returns at once."""
        current, name = self._tunnels.profiles.current, event.name.lower()
        for proxy in () if current is None else current.proxy:
            if name in proxy.begin_events and proxy.id not in self._wanted:
                self._wanted.append(proxy.id)
                self._has_wanted.set()

    # --- one tunnel ---------------------------------------------------------------------------------------------------

    async def _tunnel(
        self, proxy: ProxyProfile, initiator: str, duration_s: int, task_status: trio.TaskStatus[str]
    ) -> None:
        tunnels = self._tunnels
        async with AsyncExitStack() as stack:
            try:
                fingerprint, certificate = self._system(proxy)
                if not stack.enter_context(tunnels.systems.place(proxy.cls)):
                    raise UnreachableError(Reply.GENERAL_FAILURE, "too_many")
                context = self._context(certificate)
                home = await connect_system(proxy, fingerprint, context, self._dial, stack)
                remote = await tunnels.reach(proxy, stack)
            except UnreachableError as error:
                tunnels.refused(proxy.cls, error.reason, f"{initiator} begins {proxy.id}")
                tunnels.log.begun(proxy, initiator, error.reason)
                task_status.started(error.reason)
                return
            tunnels.log.begun(proxy, initiator, CONNECTED)
            task_status.started(CONNECTED)
            await tunnels.carry(proxy, fingerprint, home, remote, duration_s)

    def _system(self, proxy: ProxyProfile) -> tuple[str, bytes]:
        """Fingerprint and certificate (DER) of a profile's system.  Raises UnreachableError."""
        current, now = self._tunnels.profiles.current, self._tunnels.now()
        if proxy.cls_endpoint is None or current is None:
            raise UnreachableError(Reply.NOT_ALLOWED, "no_cls_address")
        wanted = {
            each.certificate for each in current.han
            if each.role == "cls" and each.user == proxy.cls and each.is_valid_at(now)
        }  # fmt: skip
        for text in current.certificates:
            try:
                der = der_of(text)
            except RemoteProtocolError:
                continue
            fingerprint = hashlib.sha256(der).hexdigest()
            if fingerprint in wanted:
                return fingerprint, der
        raise UnreachableError(Reply.NOT_ALLOWED, "no_cls_certificate")

    def _context(self, certificate: bytes) -> ssl.SSLContext:
        if self._key is None:
            raise UnreachableError(Reply.GENERAL_FAILURE, "not_running")
        context = self._key.client_context()
        trust(context, certificate)
        return context

    # --- the gateway begins -------------------------------------------------------------------------------------------

    async def _follow_clock(self) -> None:
        while True:
            now_s, wait_s = self._tunnels.now().timestamp(), _CLOCK_LOOK_S
            current = self._tunnels.profiles.current
            timed = [each for each in (() if current is None else current.proxy) if each.begin_every_s is not None]
            known, self._occasions = self._occasions, {}
            for proxy in timed:
                occasion, since_s = divmod(now_s - proxy.begin_offset_s, proxy.begin_every_s or 1)
                self._occasions[proxy.id] = max(int(occasion), known.get(proxy.id, int(occasion)))
                if occasion > known.get(proxy.id, occasion):
                    self._begin_soon(proxy.id)
                wait_s = min(wait_s, (proxy.begin_every_s or 1) - since_s)
            with trio.move_on_after(wait_s):
                await self._tunnels.profiles.changed.wait()

    async def _follow_events(self) -> None:
        while True:
            await self._has_wanted.wait()
            self._has_wanted = trio.Event()
            wanted, self._wanted = self._wanted, []
            now_s = trio.current_time()
            self._event_s = {each: at_s for each, at_s in self._event_s.items() if now_s - at_s < EVENT_PAUSE_S}
            for proxy_id in wanted:
                if proxy_id not in self._event_s:
                    self._event_s[proxy_id] = now_s
                    self._begin_soon(proxy_id)

    def _begin_soon(self, proxy_id: str) -> None:
        if self._nursery is not None and proxy_id not in self._busy:
            self._busy.add(proxy_id)
            self._nursery.start_soon(self._attempt, proxy_id)

    async def _attempt(self, proxy_id: str) -> None:
        try:
            for attempt in range(ATTEMPTS):
                if attempt:
                    await trio.sleep(self._rng.uniform(*PAUSE_S))
                if await self.begin(proxy_id, "gateway") in {CONNECTED, "no_profile"}:
                    return
        finally:
            self._busy.discard(proxy_id)
