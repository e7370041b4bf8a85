"""
The HTTPS server of one gateway at home: anycorn on trio, with bounds that a hostile home cannot widen.

Connections are few and counted, by address too; a client that is slow with its handshake, its headers or its body, or
that does not take the answer, is cut.  What fails here costs the home's interface and nothing else: meters are read and
rings go on.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
from collections.abc import Mapping
from typing import Any, Final

import trio
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import BaseModel

from node.han.accounts import Account, Accounts
from node.han.api import HanApi, HanRefusal, Start
from node.han.app import HanApplication
from node.han.digest import DigestSessions, make_verifier
from node.han.facades.emh import Emh
from node.han.facades.facade import Facades
from node.han.facades.ppc import Ppc
from node.han.facades.theben import Theben
from node.han.facts import GatewayFacts, HanServices
from node.han.login import Login
from node.han.models import Password
from node.han.page import Page
from node.han.self_test import PAUSE_S, run_self_test
from node.han.view import View
from node.profiles.checking import der_of
from node.security.home_certificate import HanKey, han_key, trust
from node.storage.errors import SealError, StoreError
from protocol.errors import RemoteProtocolError
from protocol.link.web_server import ConnectionLimit, HandshakeLines, ServerConfig, serve_asgi
from protocol.login_throttle import LoginThrottle
from protocol.logs.events import Event

log = logging.getLogger(__name__)
CONNECTIONS_MAX: Final = 64
CONNECTIONS_PER_ADDRESS_MAX: Final = 16
ACCEPT_PAUSE_S: Final = 0.02
IDLE_S: Final = 20
PASSWORD_LENGTH: Final = (10, 128)


class HanServer:
    """One gateway's interface to its home."""

    def __init__(self, facts: GatewayFacts, services: HanServices) -> None:
        self._facts = facts
        self._services = services
        self.limit = ConnectionLimit(CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, ACCEPT_PAUSE_S)
        self._accounts = Accounts(
            facts.profiles, services.accounts.get(facts.identity, ()), services.secrets, facts.clock
        )
        self.sessions = DigestSessions(facts.identity.lower(), facts.module.random, trio.current_time)
        self._tested_s = -PAUSE_S
        self._view: View | None = None

    async def run(self, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """
        Serve until cancelled; reports the address bound.

        Raises StoreError, SealError where the key cannot be read or kept, StromkreisError where the address is taken.
        """
        facts, module = self._facts, self._facts.module
        key = await han_key(
            facts.identity, self._services.secrets, module.random, module.ephemeral_key, facts.clock()
        )  # fmt: skip
        config = self._config(key)
        self._view = View(facts, self._services, self._accounts, key.certificate.public_bytes(Encoding.DER))
        actions: Mapping[str, Start] = {"SelfTest": self._self_test, "SetPassword": self._set_password}
        login = Login(self._accounts, self.sessions, LoginThrottle(trio.current_time), self._login_failed)
        facades = Facades(
            [Ppc(self._view, self._self_test, module.random), Theben(self._view, self._self_test), Emh(self._view)]
        )
        app: Any = HanApplication(login, HanApi(self._view, actions), Page(), facts.clock, facades)
        lines, logger = HandshakeLines(), logging.getLogger("anyio.streams.tls")
        logger.addFilter(lines)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._trust_profiles, config.context)

                async def serve(*, task_status: Any) -> None:  # anycorn types it after anyio, trio's does the same
                    await serve_asgi(app, config, task_status, self.limit)

                bound = await nursery.start(serve)
                log.info("gateway %s serves its home at %s", facts.identity, bound[0])
                task_status.started(bound[0])
        finally:
            logger.removeFilter(lines)

    def _config(self, key: HanKey) -> ServerConfig:
        config = ServerConfig(key.context())
        config.bind = [self._services.listen[self._facts.identity].removeprefix("https://")]
        config.include_date_header = False
        config.keep_alive_timeout = IDLE_S
        return config

    async def _trust_profiles(self, context: ssl.SSLContext | None) -> None:
        """Take the certificates of each profile set as it comes; the configured ones were there before."""
        while context is not None:
            changed = self._facts.profiles.changed
            current = self._facts.profiles.current
            wanted = set() if current is None else {each.certificate for each in current.han}
            for text in () if current is None else current.certificates:
                try:
                    trust_wanted(context, der_of(text), wanted)
                except (RemoteProtocolError, ssl.SSLError):
                    log.warning("gateway %s: a certificate of a HAN profile cannot be used", self._facts.identity)
            for der in self._services.certificates.get(self._facts.identity, ()):
                trust(context, der)
            await changed.wait()

    def _login_failed(self, user: str, count: int) -> None:
        self._facts.note(Event.LOGIN_FAILED, user=user, count=count)

    async def _self_test(self, _account: Account, _body: BaseModel) -> BaseModel:
        wait_s = self._tested_s + PAUSE_S - trio.current_time()
        if wait_s > 0:
            return HanRefusal(status=403, reason="too_soon", detail=f"the next self-test is possible in {wait_s:.0f} s")
        self._tested_s = trio.current_time()
        result = await trio.to_thread.run_sync(run_self_test, self._facts, self._services.reader)
        if self._view is not None:
            self._view.self_test = result
        failed = ",".join(each.name for each in result.checks if not each.is_passed)
        self._facts.note(Event.SELF_TEST, failed=failed or "-")
        return result

    async def _set_password(self, account: Account, body: BaseModel) -> BaseModel | None:
        password = body.password if isinstance(body, Password) else ""
        least, most = PASSWORD_LENGTH
        if not least <= len(password) <= most or not password.isprintable():
            return HanRefusal(
                status=422, reason="bad_password", detail=f"expected {least} to {most} printable characters"
            )  # fmt: skip
        try:
            with trio.CancelScope(shield=True):  # whole, also where the client has gone meanwhile
                await self._accounts.set_password(account, make_verifier(account.user, self.sessions.realm, password))
        except (StoreError, SealError):
            return HanRefusal(status=503, reason="store", detail="the password was not kept; the old one counts")
        self.sessions.forget(account.user)
        self._facts.note(Event.PASSWORD_SET, user=account.user)
        return None


def trust_wanted(context: ssl.SSLContext, der: bytes, wanted: set[str | None]) -> None:
    """Trust a certificate for handshakes where its fingerprint is among those of HAN profiles."""
    if hashlib.sha256(der).hexdigest() in wanted:
        trust(context, der)
