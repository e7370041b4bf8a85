"""
Who may use routes that are not everybody's: a token of a log-in, or the one in operator.token, over HTTPS.

A route names the role that it wants, and whether it is audited: then the entry is durable before anything is done, and
where it cannot be written nothing is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final
from urllib.parse import quote

from fastapi import Depends, Header, Request, params

from coordinator.gwa.accounts import SUBJECT_SIZE_MAX, Accounts, Identity
from coordinator.storage.accounts import AccountRole
from protocol.errors import RemoteProtocolError

Authorization = Annotated[str | None, Header()]
_QUERY: Final = "%&=+:*/@,;?!~"


def bearer_of(authorization: str | None) -> str:
    """The token that a request shows; empty where it shows none."""
    return (authorization or "").removeprefix("Bearer ")


def address_of(request: Request) -> str:
    """Whose request it is, for throttle and audit log."""
    return "unknown" if request.client is None else request.client.host


class Access:
    """Guards routes with the accounts of one coordinator."""

    def __init__(self, accounts: Accounts) -> None:
        self.accounts = accounts

    def require(self, role: AccountRole, *, audited: bool = False) -> list[params.Depends]:
        """The dependencies of a route for accounts of this role."""
        return [Depends(self.identity(role, audited=audited))]

    def identity(self, role: AccountRole, *, audited: bool = False) -> Callable[..., Identity]:
        """The same for a route that wants to know who it is."""

        def _identify(request: Request, authorization: Authorization = None) -> Identity:
            if request.url.scheme != "https":
                raise RemoteProtocolError("https_required", "tokens travel over HTTPS only")
            who, subject = self.accounts.identify(bearer_of(authorization)), _subject(request)
            action = str(getattr(request.scope.get("route"), "operation_id", None) or request.url.path)
            if not who.role.does(role):
                self.accounts.note(who, f"refused: {action}", subject, address_of(request))
                raise RemoteProtocolError("role_too_low", f"{who.name} is {who.role}, this wants role {role}")
            if audited:
                if len(subject) > SUBJECT_SIZE_MAX:  # cut off, it would not say what was asked for
                    detail = f"expected at most {SUBJECT_SIZE_MAX} characters in path parameters and query together"
                    raise RemoteProtocolError("subject_size", detail)
                self.accounts.note(who, action, subject, address_of(request))
            return who

        return _identify

    def require_over_https(self, role: AccountRole) -> list[params.Depends]:
        """The dependencies of routes for accounts of this role, where others than the operator reach the https port."""

        def _check(request: Request, authorization: Authorization = None) -> None:
            if request.url.scheme == "https" and not self.accounts.identify(bearer_of(authorization)).role.does(role):
                raise RemoteProtocolError("role_too_low", f"this wants role {role}")

        return [Depends(_check)]


def _subject(request: Request) -> str:
    """What the path and the query name, percent-encoded; a body may hold what is in no log."""
    named = (quote(str(each), safe="@:*") for each in request.path_params.values())
    return " ".join(filter(None, [*named, quote(request.url.query, safe=_QUERY)]))
