"""The REST interface of accounts: log in and out, manage accounts, read the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field, SecretStr

from coordinator.gwa.accounts import NAME_PATTERN, PASSWORD_SIZE_MAX
from coordinator.storage.accounts import AccountRecord, AccountRole
from coordinator.web.access import Access, Authorization, address_of, bearer_of
from coordinator.web.errors import problem_responses
from coordinator.web.models import ApiModel, moment_of
from protocol.errors import RemoteProtocolError

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
NameInPath = Annotated[str, Path(pattern=NAME_PATTERN)]
Password = Annotated[SecretStr, Field(min_length=1, max_length=PASSWORD_SIZE_MAX)]


class LogIn(ApiModel):
    """Who logs in."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    password: Password


class Session(ApiModel):
    """A log-in that worked."""

    token: str
    """For `Authorization: Bearer`; whoever has it is this account."""
    name: str
    role: AccountRole
    until: datetime
    """When it is over."""


class NewAccount(ApiModel):
    """An account to make."""

    name: Name
    role: AccountRole
    password: Password
    """12 characters at least."""


class AccountChange(ApiModel):
    """What is to be different; what is left out stays."""

    role: AccountRole | None = None
    password: Password | None = None
    disabled: bool | None = None


class AccountView(ApiModel):
    """An account, without its password."""

    name: str
    role: AccountRole
    created_at: datetime
    disabled_at: datetime | None
    is_external: bool
    """Whether it logs in at the OpenID provider, which says its role, too."""


class AccountPage(ApiModel):
    """All accounts by name."""

    items: list[AccountView]


class AuditEntryView(ApiModel):
    """An entry of the audit log."""

    number: Annotated[int, Field(ge=1)]
    time_ms: int
    """Unix time in milliseconds."""
    account: str
    role: str
    action: str
    """`operationId` of the request, `log_in`, `log_in_failed`, or `refused:` and the operation."""
    subject: str
    """What the request's path and query name."""
    address: str
    previous: str
    """SHA-256 of the entry before, 32 bytes in hexadecimal."""
    digest: str
    """SHA-256 of this one."""


class AuditPage(ApiModel):
    """Entries in order."""

    items: list[AuditEntryView]
    next: int | None
    """`after` of the next page."""


def make_account_router(access: Access) -> APIRouter:
    """The routes below `/api/v1` for accounts."""
    router = APIRouter(prefix="/api/v1", tags=["accounts"], responses=problem_responses(422))
    accounts, refusals = access.accounts, problem_responses(401, 403, 404, 409)
    administrator, changes = AccountRole.ADMINISTRATOR, access.require(AccountRole.ADMINISTRATOR, audited=True)

    @router.post("/sessions", operation_id="log_in", status_code=201, responses=problem_responses(401, 403))
    def _log_in(body: LogIn, request: Request) -> Session:
        """Log in; only over HTTPS.  Whoever fails waits longer each time, nothing is locked."""
        if request.url.scheme != "https":
            raise RemoteProtocolError("https_required", "passwords travel over HTTPS only")
        done = accounts.log_in(body.name, body.password.get_secret_value(), address_of(request))
        return Session(token=done.token, name=done.name, role=done.role, until=moment_of(done.until_ms))

    @router.delete("/sessions", operation_id="log_out", status_code=204, responses=problem_responses(401, 403),
                   dependencies=access.require(AccountRole.VIEWER, audited=True))  # fmt: skip
    def _log_out(authorization: Authorization = None) -> None:
        """Log out: the token that the request shows is good for nothing any more."""
        accounts.log_out(bearer_of(authorization))

    @router.get("/accounts", operation_id="accounts", dependencies=access.require(administrator),
                responses=problem_responses(401, 403))  # fmt: skip
    def _all() -> AccountPage:
        """All accounts."""
        return AccountPage(items=[_view(each) for each in accounts.repository.all()])

    @router.post("/accounts", operation_id="create_account", status_code=201, dependencies=changes, responses=refusals)
    def _create(body: NewAccount) -> AccountView:
        """Make an account."""
        accounts.create(body.name, body.role, body.password.get_secret_value())
        return _found(body.name)

    @router.patch("/accounts/{name}", operation_id="change_account", dependencies=changes, responses=refusals)
    def _change(name: NameInPath, body: AccountChange) -> AccountView:
        """Change an account; it is logged out everywhere."""
        password = None if body.password is None else body.password.get_secret_value()
        accounts.change(name, role=body.role, password=password, disabled=body.disabled)
        return _found(name)

    @router.get("/audit-log", operation_id="audit_log", dependencies=access.require(administrator),
                responses=problem_responses(401, 403))  # fmt: skip
    def _audit(
        after: Annotated[int, Query(ge=0, lt=2**62, description="`next` of the page before.")] = 0,
        limit: Annotated[int, Query(ge=1, le=1000, description="Size of a page.")] = 1000,
    ) -> AuditPage:
        """Entries of the audit log, in order."""
        found = accounts.audit.page(after, limit + 1)
        items = [
            AuditEntryView(
                number=each.number, time_ms=each.time_ms, account=each.account, role=each.role, action=each.action,
                subject=each.subject, address=each.address, previous=each.previous.hex(), digest=digest.hex(),
            )
            for each, digest in found[:limit]
        ]  # fmt: skip
        return AuditPage(items=items, next=items[-1].number if len(found) > limit else None)

    def _found(name: str) -> AccountView:
        record = accounts.repository.get(name)
        if record is None:
            raise RemoteProtocolError("account_unknown", f"there is no account {name}")
        return _view(record)

    return router


def _view(record: AccountRecord) -> AccountView:
    disabled = None if record.disabled_ms is None else moment_of(record.disabled_ms)
    return AccountView(
        name=record.name, role=record.role, created_at=moment_of(record.created_ms), disabled_at=disabled,
        is_external=record.subject is not None,
    )  # fmt: skip
