"""Telling the coordinator that a gateway leaves for good, by a statement that its signature key has signed."""

from __future__ import annotations

import base64
from typing import Final

import httpx
import trio

from node.security.module import GatewaySecurityModule
from node.wan.bounded_http import ask
from node.wan.certificates import refusal_text
from protocol.errors import RemoteProtocolError, StromkreisError
from protocol.leave import leave_statement

_OK: Final = 200
_NOBODY_TO_REVOKE: Final = ("gateway_unknown", "gateway_released")


async def announce_leave(client: httpx.AsyncClient, module: GatewaySecurityModule) -> None:
    """
    Return once the coordinator has revoked the gateway, now or before; or has none of its id with these keys.

    Raises StromkreisError, httpx.HTTPError where that is not known: ask again.
    """
    endorsed = await trio.to_thread.run_sync(module.endorse, leave_statement(module.identity))
    if endorsed is None:
        return  # never enrolled
    body = {"gateway": module.identity, "endorsement": base64.b64encode(endorsed[0]).decode()}
    response = await ask(client, "POST", "/api/v1/leave", json=body)
    if response.status_code != _OK and _reason(response) not in _NOBODY_TO_REVOKE:
        raise RemoteProtocolError("leave_refused", f"status {response.status_code}: {refusal_text(response)}")


def _reason(response: httpx.Response) -> str:
    try:
        return str(response.json()["reason"])
    except (ValueError, KeyError, TypeError) as error:
        raise StromkreisError(f"status {response.status_code} without a reason") from error
