"""
Log-in through an OpenID provider: a browser logs in there, and its account here is made by what the provider says.

A command has the browser come back to a port of its own on loopback (RFC 8252, 7.3), and brings the code here; the
provider's secret, state, nonce and PKCE verifier stay here.  State is good for one attempt of ten minutes.  An account
is found by issuer and subject, which the provider never gives to another person; its name is taken from a claim when it
is made, and never that of an account with a password.  The role is that of the claims at each log-in; whoever has
another one than before, or none, is logged out everywhere first.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives import constant_time

from coordinator.gwa.accounts import NAME_PATTERN, Accounts, Identity, LogIn
from coordinator.gwa.oidc_provider import OidcProvider, PendingLogIn
from coordinator.oidc_config import OidcConfig
from coordinator.storage.accounts import AccountRole
from protocol.errors import RemoteProtocolError
from protocol.login_throttle import LoginThrottle

PENDING_S: Final = 600.0
PENDING_MAX: Final = 256
"""Log-ins that are begun and not finished; anybody may begin one, and the oldest goes for the next."""
_LOOPBACK: Final = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]):[1-9]\d{0,4}/callback")
_SUBJECT_SIZE_MAX: Final = 255  # OpenID Connect Core 1.0, section 2


class BegunLogIn(NamedTuple):
    """
    A log-in that is begun: `state` comes back with the browser, `url` is where it goes.

    `secret` is in no address: who sees the browser's (a history, another user's server on the port) cannot finish it.
    """

    state: str
    secret: str
    url: str


class OidcLogIn:
    """Log-ins of one coordinator; methods block, any thread may call them.  `monotonic` is for waits (s)."""

    def __init__(
        self, config: OidcConfig, provider: OidcProvider, accounts: Accounts, clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:  # fmt: skip
        self._config = config
        self._provider = provider
        self._accounts = accounts
        self._clock = clock
        self._monotonic = monotonic
        self._pending: OrderedDict[str, tuple[PendingLogIn, str, float]] = OrderedDict()
        self._throttle = LoginThrottle(monotonic)
        self._lock = threading.Lock()

    def begin(self, redirect_uri: str) -> BegunLogIn:
        """
        Begin one.

        Raises RemoteProtocolError `redirect_uri`, `oidc_provider`.
        """
        if _LOOPBACK.fullmatch(redirect_uri) is None:
            raise RemoteProtocolError("redirect_uri", "expected http://127.0.0.1:PORT/callback")
        state, secret = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        pending = PendingLogIn(redirect_uri, secrets.token_urlsafe(32), secrets.token_urlsafe(48))
        url = self._provider.authorization_url(pending, state)
        with self._lock:
            self._pending[state] = pending, secret, self._monotonic()
            if len(self._pending) > PENDING_MAX:
                self._pending.popitem(last=False)
        return BegunLogIn(state, secret, url)

    def finish(self, state: str, secret: str, code: str, address: str) -> LogIn:
        """
        A session for whoever has logged in there.

        Raises RemoteProtocolError: `too_many_failed_logins`, `oidc_state`, what `OidcProvider.claims` raises,
        `oidc_claims`, `role_unmapped`, `account_known`, `account_disabled`.
        """
        with self._lock:
            # By address alone: anybody may begin and fail, and whose account it is stands in the claims.
            if wait_s := self._throttle.wait_s(address, address):
                raise RemoteProtocolError("too_many_failed_logins", f"wait {wait_s:.0f} s before the next try")
            pending, expected, begun_s = self._pending.pop(state, (None, "", 0.0))
        is_theirs = constant_time.bytes_eq(secret.encode(), expected.encode())
        if pending is None or not is_theirs or self._monotonic() - begun_s > PENDING_S:
            raise RemoteProtocolError("oidc_state", "no such log-in was begun, or it is over: begin again")
        name = "(unknown)"
        try:
            claims = self._provider.claims(pending, code, int(self._clock()))
            subject, role = self._subject(claims), self._role(claims)
            if role is None:
                self._accounts.log_out_external(subject)
            name = self._name(claims)
            if role is None:
                detail = f"claim {self._config.role_claim} has none of the values that [coordinator.oidc] roles names"
                raise RemoteProtocolError("role_unmapped", detail)
            done = self._accounts.log_in_external(name, subject, role, address)
        except RemoteProtocolError as error:
            with self._lock:
                self._throttle.failed(address, address)
            self._accounts.note(Identity(name, AccountRole.VIEWER), "log_in_failed", f"OIDC: {error.reason}", address)
            raise
        with self._lock:
            self._throttle.succeeded(address, address)
        return done

    def _name(self, claims: Mapping[str, Any]) -> str:
        found = claims.get(self._config.name_claim)
        name = found.lower() if isinstance(found, str) else ""
        if re.fullmatch(NAME_PATTERN, name) is None:
            detail = f"claim {self._config.name_claim}: expected a name of small letters, digits and . _ @ -"
            raise RemoteProtocolError("oidc_claims", detail)
        return name

    def _subject(self, claims: Mapping[str, Any]) -> str:
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= _SUBJECT_SIZE_MAX:
            raise RemoteProtocolError("oidc_claims", "claim sub: expected a text")
        return hashlib.sha256(f"{self._config.issuer}\0{subject}".encode()).hexdigest()

    def _role(self, claims: Mapping[str, Any]) -> AccountRole | None:
        """The highest role that one of the claim's values stands for, None where none does."""
        found: Any = claims
        for part in self._config.role_claim.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        values = [each for each in (found if isinstance(found, list) else [found]) if isinstance(each, str)]
        roles = {AccountRole(self._config.roles[each]) for each in values if each in self._config.roles}
        return next((role for role in reversed(AccountRole) if role in roles), None)
