"""Errors as problem documents (RFC 9457), and the bounds that every request and answer is held to."""

from __future__ import annotations

import logging
from typing import Any

import trio
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coordinator.metrics import CoordinatorMetrics
from coordinator.storage.engine import fault_of
from coordinator.web.models import Problem
from protocol.errors import RemoteProtocolError
from protocol.profiles.firmware import FILE_SIZE_MAX
from protocol.profiles.profile_set import PROFILE_SET_SIZE_MAX

log = logging.getLogger(__name__)
BODY_SIZE_MAX = 32 * 1024  # bytes; an enrolment request takes about 1 KB
BODY_S = 10.0  # for the whole of it to arrive; longer, and unknown peers hold more connections open
TARIFF_BODY_SIZE_MAX = 512 * 1024  # a year of quarter hours takes some 250 KB
DELIVERY_SIZE_MAX = 4 << 20  # a month of quarter hours takes some 20 KB
_LARGE_BODIES = {
    "/api/v1/tariffs": TARIFF_BODY_SIZE_MAX,
    "/api/v1/profile-sets": PROFILE_SET_SIZE_MAX,
    "/cosem/deliveries": DELIVERY_SIZE_MAX,
    "/api/v1/firmware": FILE_SIZE_MAX,
}
_SLOW_BODIES = {"/api/v1/firmware": 300.0}  # s; read only after the account was looked at
_STATUS = {
    "https_required": 403, "token_unknown": 403, "token_revoked": 403, "token_expired": 403, "token_used_up": 403,
    "token_area": 403,
    "gateway_revoked": 403, "gateway_left": 403, "gateway_released": 409,
    "quality_seal": 403, "cms_signer": 403, "cms_signature": 403, "certificate_expired": 403,
    "certificate_revoked": 403, "gateway_unknown": 404, "renewal_early": 409,
    "duplicate_gateway": 409, "duplicate_key": 409,
    "not_logged_in": 401, "wrong_password": 401, "too_many_failed_logins": 403, "role_too_low": 403,
    "account_disabled": 403, "account_external": 409, "role_unmapped": 403, "oidc_state": 403, "oidc_refused": 403,
    "oidc_claims": 403, "oidc_provider": 502,
    "account_unknown": 404, "account_known": 409, "tariff_unknown": 404, "period_not_over": 409,
    "profile_unknown": 404, "profile_version": 409, "bad_receipt": 403, "bad_proof": 403, "old_proof": 403,
    "delivery_known": 409, "certificate_signature": 403, "unknown_issuer": 403, "key_usage": 403,
    "firmware_unknown": 404, "firmware_version": 409, "firmware_in_use": 409, "too_many_images": 409,
    "not_a_recipient": 403,
    "no_proxy_profile": 403, "ambiguous_profile": 409, "too_many_orders": 403, "order_unknown": 404,
}  # fmt: skip
_TITLES = {
    401: "Not logged in",
    403: "Refused",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    422: "Invalid input",
    502: "The OpenID provider fails",
    503: "Unavailable",
}
_HEADERS = {
    # Everything comes from our own origin, nothing may be framed, and no inline script or style runs.
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of the problems that an operation can answer with."""
    return {
        status: {"model": Problem, "description": _TITLES[status], "content": {"application/problem+json": {}}}
        for status in statuses
    }


def install_errors(app: FastAPI, metrics: CoordinatorMetrics) -> None:
    """Answer every error of `app` with a problem document."""

    @app.exception_handler(RemoteProtocolError)
    async def _remote(_request: Request, error: RemoteProtocolError) -> JSONResponse:
        return _problem(_STATUS.get(error.reason, 422), error.detail, error.reason)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        # What was sent is not repeated: it may hold a token.
        fields = {".".join(str(part) for part in e["loc"][1:]) or "body": str(e["msg"]) for e in error.errors()}
        detail = "; ".join(f"{name}: {message}" for name, message in fields.items())
        return _problem(422, detail, "invalid_input", fields)

    @app.exception_handler(SQLAlchemyError)
    async def _store(_request: Request, error: SQLAlchemyError) -> JSONResponse:
        metrics.peer_error("store_error")
        log.error("a web request gets no answer, the database fails: %s", fault_of(error))
        return _problem(503, "the database fails just now; ask again", "store_error")

    @app.exception_handler(ClientDisconnect)
    async def _gone(_request: Request, _error: ClientDisconnect) -> JSONResponse:
        metrics.peer_error("client_disconnected")  # in the middle of its request; nobody reads the answer
        return _problem(400, "the request was not complete", "client_disconnected")

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> JSONResponse:
        return _problem(error.status_code, str(error.detail), f"http_{error.status_code}")


def _problem(status: int, detail: str, reason: str, fields: dict[str, str] | None = None) -> JSONResponse:
    body = Problem(title=_TITLES.get(status, "Error"), status=status, detail=detail, reason=reason, fields=fields or {})
    return JSONResponse(body.model_dump(), status, media_type="application/problem+json")


class Guard:
    """ASGI middleware: request bodies of bounded size and time, and the security headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = _LARGE_BODIES.get(scope["path"], BODY_SIZE_MAX)
        body_s = _SLOW_BODIES.get(scope["path"], BODY_S)
        left, is_complete, until_s = most, False, trio.current_time() + body_s

        async def bounded() -> Message:
            nonlocal left, is_complete
            if is_complete:  # what comes now is the end of the connection
                return await receive()
            with trio.move_on_at(until_s) as patience:
                message = await receive()
            if patience.cancelled_caught:
                raise HTTPException(408, f"a request has to arrive within {body_s:g} seconds")
            is_complete = not message.get("more_body", False)
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, f"a request has at most {most} bytes")
            return message

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                extra = [(name, value) for name, value in _HEADERS.items() if name not in present]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        await self._app(scope, bounded, guarded)
