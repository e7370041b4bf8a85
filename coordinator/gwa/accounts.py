"""
Accounts with roles: who logs in with a password gets a token for some hours, and what they do is in the audit log.

Passwords are kept as Argon2id (RFC 9106), by libsodium, which is here already.  A log-in costs 64 MiB for a moment, so
few are judged at once; names and addresses that fail wait longer each time and nobody is locked out.  The token that
lies in the coordinator's directory is an administrator of its own, for the first account and for when a password is
lost: whoever may read that file may do anything on the machine anyway.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, NamedTuple

import nacl.exceptions
from cryptography.hazmat.primitives import constant_time
from nacl.pwhash import argon2id

from coordinator.storage.accounts import AccountRecord, AccountRepository, AccountRole
from coordinator.storage.audit import AuditRepository
from protocol.errors import RemoteProtocolError
from protocol.login_throttle import LoginThrottle

BOOTSTRAP: Final = "(operator.token)"
"""Under this name the token of the coordinator's directory stands in the audit log; no account can have it."""
PASSWORD_SIZE_MIN: Final = 12
PASSWORD_SIZE_MAX: Final = 256
NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9._@-]{0,63}$"
SUBJECT_SIZE_MAX: Final = 200
"""What an entry of the audit log has room for."""
SESSION_S: Final = 12 * 3_600
TOKEN_PREFIX: Final = "stk_ses_"  # noqa: S105 - what tokens begin with
_PASSES: Final = 3  # over 64 MiB: the second choice of RFC 9106, section 4, but for its four lanes
_AT_ONCE: Final = 2  # log-ins that are judged; each takes 64 MiB


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks."""

    name: str
    role: AccountRole


class LogIn(NamedTuple):
    """A log-in that worked: a token, whose, what it may, and until when (Unix, ms)."""

    token: str
    name: str
    role: AccountRole
    until_ms: int


class Accounts:
    """
    All accounts of a coordinator; methods block, and any thread may call them.

    `bootstrap_token` is the one of the coordinator's directory, `clock` real time (Unix, s), `monotonic` for waits.
    """

    def __init__(
        self, repository: AccountRepository, audit: AuditRepository, bootstrap_token: str, clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:  # fmt: skip
        self.repository = repository
        self.audit = audit
        self._bootstrap_token = bootstrap_token
        self._clock = clock
        self._throttle = LoginThrottle(monotonic)
        self._lock = threading.Lock()
        self._judged = threading.Semaphore(_AT_ONCE)
        self._nobody = ""  # a hash of no account's password, for names that there are none of

    def create(self, name: str, role: AccountRole, password: str) -> None:
        """A new account.  Raises RemoteProtocolError `password_short`, `account_known`."""
        record = AccountRecord(name, role, self._hash(password), self._now_ms())
        if not self.repository.add(record):
            raise RemoteProtocolError("account_known", f"there is an account {name} already")

    def change(
        self, name: str, *, role: AccountRole | None = None, password: str | None = None, disabled: bool | None = None
    ) -> None:  # fmt: skip
        """
        What is given, and log it out everywhere.

        Raises RemoteProtocolError `password_short`, `account_unknown`, `account_external` for role or password of one
        that the OpenID provider vouches for.
        """
        known = self.repository.get(name)
        if known is not None and known.subject is not None and (role is not None or password is not None):
            detail = f"{name} logs in at the OpenID provider, which also says its role: change them there"
            raise RemoteProtocolError("account_external", detail)
        changed = self.repository.change(
            name, role=role, password=None if password is None else self._hash(password),
            disabled_ms=self._now_ms() if disabled else None, enabled=disabled is False,
        )  # fmt: skip
        if not changed:
            raise RemoteProtocolError("account_unknown", f"there is no account {name}")

    def log_in(self, name: str, password: str, address: str) -> LogIn:
        """
        Log in by password.

        Raises RemoteProtocolError `too_many_failed_logins`, `wrong_password`, which says the same of a name that there
        is no account of.
        """
        with self._lock:
            if wait_s := self._throttle.wait_s(name, address):
                detail = f"wait {wait_s:.0f} s before the next try; nothing is locked"
                raise RemoteProtocolError("too_many_failed_logins", detail)
        record = self.repository.get(name)
        has_password = record is not None and record.subject is None
        usable = record if record is not None and has_password and record.disabled_ms is None else None
        with self._judged:
            is_right = _verify(self._decoy() if usable is None else usable.password, password)
        if usable is None or not is_right:
            with self._lock:
                count = self._throttle.failed(name, address)
            if count.bit_count() == 1:  # 1, 2, 4, 8 ...: who guesses must not flood the log
                shown = name if record is not None else "(unknown)"  # it may be a password in the wrong field
                self.note(Identity(shown, AccountRole.VIEWER), "log_in_failed", f"{count} in a row", address)
            raise RemoteProtocolError("wrong_password", "user name or password is wrong")
        with self._lock:
            self._throttle.succeeded(name, address)
        return self._open(usable, "", address)

    def log_in_external(self, name: str, subject: str, role: AccountRole, address: str) -> LogIn:
        """
        Log in somebody whom the OpenID provider vouches for; the first time an account of this name is made.

        Raises RemoteProtocolError `account_known` where the name is another's, `account_disabled`.
        """
        if (known := self.repository.of_subject(subject)) is None:
            self.repository.add(AccountRecord(name, role, "", self._now_ms(), subject=subject))
            known = self.repository.of_subject(subject)
        if known is None:
            raise RemoteProtocolError("account_known", f"there is an account {name} already, which is another's")
        if known.disabled_ms is not None:
            raise RemoteProtocolError("account_disabled", f"account {known.name} is disabled")
        if known.role is not role:
            self.note(Identity(known.name, role), "role_of_claims", f"{known.role} -> {role}", address)
            self.repository.change(known.name, role=role)
        return self._open(replace(known, role=role), "OIDC", address)

    def log_out_external(self, subject: str) -> None:
        """Log out everywhere whom the OpenID provider gives no role any more."""
        if (known := self.repository.of_subject(subject)) is not None:
            self.repository.close_sessions(known.name)

    def _open(self, account: AccountRecord, how: str, address: str) -> LogIn:
        self.note(Identity(account.name, account.role), "log_in", how, address)
        token, now_ms = TOKEN_PREFIX + secrets.token_urlsafe(32), self._now_ms()
        until_ms = now_ms + SESSION_S * 1000
        if not self.repository.open_session(_digest(token), account, until_ms, now_ms):
            raise RemoteProtocolError("wrong_password", "the account was changed meanwhile; log in again")
        return LogIn(token, account.name, account.role, until_ms)

    def log_out(self, token: str) -> None:
        """The token is good for nothing any more."""
        self.repository.close_session(_digest(token))

    def identify(self, token: str) -> Identity:
        """Whose token it is.  Raises RemoteProtocolError `not_logged_in`."""
        if self._bootstrap_token and constant_time.bytes_eq(token.encode(), self._bootstrap_token.encode()):
            return Identity(BOOTSTRAP, AccountRole.ADMINISTRATOR)
        record = self.repository.of_session(_digest(token), self._now_ms()) if token else None
        if record is None:
            raise RemoteProtocolError(
                "not_logged_in",
                "expected Authorization: Bearer with the token of a log-in (stromkreis gwa accounts log-in) that is not"
                " over, or the one in operator.token",
            )
        return Identity(record.name, record.role)

    def note(self, who: Identity, action: str, subject: str, address: str) -> None:
        """An entry of the audit log, durable before what it is about is done."""
        self.audit.append(
            time_ms=self._now_ms(), account=who.name, role=who.role.value, action=action,
            subject=subject[:SUBJECT_SIZE_MAX], address=address[:64],
        )  # fmt: skip

    def _hash(self, password: str) -> str:
        if not PASSWORD_SIZE_MIN <= len(password) <= PASSWORD_SIZE_MAX:
            raise RemoteProtocolError(
                "password_short", f"expected a password of {PASSWORD_SIZE_MIN} to {PASSWORD_SIZE_MAX} characters"
            )
        with self._judged:
            return argon2id.str(password.encode(), opslimit=_PASSES, memlimit=argon2id.MEMLIMIT_INTERACTIVE).decode()

    def _decoy(self) -> str:
        if not self._nobody:
            self._nobody = argon2id.str(
                secrets.token_bytes(16), opslimit=_PASSES, memlimit=argon2id.MEMLIMIT_INTERACTIVE
            ).decode()
        return self._nobody

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _verify(hashed: str, password: str) -> bool:
    try:
        return bool(argon2id.verify(hashed.encode(), password[: PASSWORD_SIZE_MAX + 1].encode()))
    except nacl.exceptions.InvalidkeyError:
        return False


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()
