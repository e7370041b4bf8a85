"""
Log-in of one request: a TLS client certificate that a HAN profile names, or HTTP digest.

A refusal says in JSON why, and where waiting helps, until when: 401 with two challenges, or 403 (429 is not in table
6.2 of the detailed specification).
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from node.han.accounts import Account, Accounts
from node.han.digest import DigestSessions, Verdict, parse_answer
from node.storage.errors import SealError, StoreError
from protocol.errors import RemoteProtocolError
from protocol.login_throttle import LoginThrottle

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """What a log-in is judged by; `fingerprint` is the client certificate's, if it showed one."""

    method: str
    target: str
    address: str
    authorization: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why somebody is not let in."""

    status: int
    reason: str
    detail: str
    challenges: tuple[str, ...] = ()
    wait_s: float = 0.0

    def body(self, now_s: float) -> bytes:
        """JSON; `retry_at` is real time."""
        document = {"reason": self.reason, "detail": self.detail}
        if self.wait_s:
            at = datetime.fromtimestamp(now_s + self.wait_s, UTC).isoformat(timespec="seconds")
            document |= {"retry_at": at, "retry_after_s": str(math.ceil(self.wait_s))}
        return json.dumps(document).encode()


class Login:
    """
    One gateway's log-in.

    `failed(user, count)` is called for failures that are worth an entry of the log.
    """

    def __init__(
        self, accounts: Accounts, sessions: DigestSessions, throttle: LoginThrottle,
        failed: Callable[[str, int], None],
    ) -> None:  # fmt: skip
        self.accounts = accounts
        self.sessions = sessions
        self._throttle = throttle
        self._failed = failed

    def identify(self, request: LoginRequest) -> Account | Refusal:
        """Who it is.  Never raises for what a client sends."""
        if request.fingerprint is not None:
            account = self.accounts.of_certificate(request.fingerprint)
            if account is not None:
                return account
            if request.authorization is None:
                return Refusal(403, "unknown_certificate", "no HAN profile names this certificate")
        if request.authorization is None:
            return self._challenge("log_in", "log in with user name and password, or a TLS client certificate")
        try:
            return self._by_digest(request, request.authorization)
        except RemoteProtocolError as error:
            return self._challenge(error.reason, error.detail)
        except (StoreError, SealError) as error:
            log.error("gateway %s: nobody can log in at home: %s", self.sessions.realm, error)
            return Refusal(503, "store", "the gateway's store cannot be read; try again later")

    def move(self, request: LoginRequest, target: str) -> None:
        """Let a request that was let in come once more, with the same header, for the target it is redirected to."""
        if request.authorization is not None:
            try:
                self.sessions.move(parse_answer(request.authorization), target)
            except RemoteProtocolError:  # it was let in by its certificate
                return

    def _by_digest(self, request: LoginRequest, authorization: str) -> Account | Refusal:
        answer = parse_answer(authorization)
        wait_s = self._throttle.wait_s(answer.user, request.address)
        if wait_s and not self.sessions.is_session(answer):  # a session is secret: who goes on with one is no guesser
            return Refusal(
                403, "too_many_failed_logins", "wait before the next try; nothing is locked", wait_s=wait_s
            )  # fmt: skip
        account = self.accounts.of_user(answer.user)
        verifier = None if account is None else self.accounts.verifier(account)
        verdict = self.sessions.judge(answer, request.method, request.target, verifier)
        if account is None or verdict is Verdict.WRONG:
            count = self._throttle.failed(answer.user, request.address)
            if account is not None and count.bit_count() == 1 and count > 2:  # 4, 8, 16 ...: the log must not flood
                self._failed(account.user, count)
            return self._challenge("wrong_password", "user name or password is wrong")
        if verdict is Verdict.STALE:
            return Refusal(
                401, "stale", "right, with a nonce that counts no more: answer the new one",
                tuple(self.sessions.challenges(is_stale=True)),
            )  # fmt: skip
        self._throttle.succeeded(answer.user, request.address)
        return account

    def _challenge(self, reason: str, detail: str) -> Refusal:
        return Refusal(401, reason, detail, tuple(self.sessions.challenges()))
