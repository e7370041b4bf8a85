"""The operator's token before routes that are not everybody's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from cryptography.hazmat.primitives import constant_time
from fastapi import Header, Request

from protocol.errors import LocalProtocolError, RemoteProtocolError


def require_operator(token: str) -> Callable[..., None]:
    """
    A FastAPI dependency that lets through who shows the token, over HTTPS.

    Raises LocalProtocolError for an empty token: everybody has that one.
    """
    if not token:
        raise LocalProtocolError("these routes need an operator's token")

    def _operator(request: Request, authorization: Annotated[str | None, Header()] = None) -> None:
        if request.url.scheme != "https":
            raise RemoteProtocolError("https_required", "the operator's token travels over HTTPS only")
        shown = (authorization or "").removeprefix("Bearer ").encode()
        if not constant_time.bytes_eq(shown, token.encode()):
            raise RemoteProtocolError("operator_token", "expected the token in operator.token as Authorization: Bearer")

    return _operator
