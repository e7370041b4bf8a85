"""The REST interface of log-ins through an OpenID provider: begin one, and finish it with the code of the browser."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field, SecretStr

from coordinator.gwa.oidc import OidcLogIn
from coordinator.web.access import address_of
from coordinator.web.accounts import Session
from coordinator.web.errors import problem_responses
from coordinator.web.models import ApiModel, moment_of
from protocol.errors import RemoteProtocolError


class OidcBegin(ApiModel):
    """A log-in to begin."""

    redirect_uri: Annotated[str, Field(max_length=64)]
    """Where the browser comes back to: http://127.0.0.1:PORT/callback."""


class OidcBegun(ApiModel):
    """A log-in that is begun."""

    state: str
    """Comes back with the browser, and is good for one attempt of ten minutes."""
    secret: str
    """For whoever finishes it; the browser does not get it."""
    url: str
    """Where the browser goes."""


class OidcFinish(ApiModel):
    """What the browser brought."""

    state: Annotated[str, Field(max_length=64)]
    secret: Annotated[SecretStr, Field(max_length=64)]
    code: Annotated[SecretStr, Field(min_length=1, max_length=4_096)]


def make_oidc_router(log_in: OidcLogIn) -> APIRouter:
    """The routes below `/api/v1/oidc`; only over HTTPS."""
    router = APIRouter(prefix="/api/v1/oidc", tags=["accounts"], responses=problem_responses(403, 422, 502))

    @router.post("/log-ins", operation_id="begin_oidc_log_in", status_code=201)
    def _begin(body: OidcBegin, request: Request) -> OidcBegun:
        """Begin a log-in through the provider that is configured."""
        _require_https(request)
        begun = log_in.begin(body.redirect_uri)
        return OidcBegun(state=begun.state, secret=begun.secret, url=begun.url)

    @router.post("/sessions", operation_id="finish_oidc_log_in", status_code=201, responses=problem_responses(409))
    def _finish(body: OidcFinish, request: Request) -> Session:
        """Log in with the code that the browser brought back; the role is what the provider's claims stand for."""
        _require_https(request)
        done = log_in.finish(
            body.state, body.secret.get_secret_value(), body.code.get_secret_value(), address_of(request)
        )
        until = moment_of(done.until_ms)
        return Session(token=done.token, name=done.name, role=done.role, until=until)

    return router


def _require_https(request: Request) -> None:
    if request.url.scheme != "https":
        raise RemoteProtocolError("https_required", "codes and tokens travel over HTTPS only")
