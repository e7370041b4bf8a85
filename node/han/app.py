"""
The web application of one gateway at home, as ASGI: bounds, log-in, then the consumer's page or the HAN API.

Few headers (REQ.Webservice.HttpServer.160), an answer within 20 s (.190), fields up to 4096 and all headers up to
16 KiB (.170, .180 want 250 and 8500), bodies up to 64 KiB of announced length.  A request whose TLS session ends is
given up (.80): nobody waits for its answer.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import trio
from starlette.types import Receive, Scope, Send

from node.han.api import ROOT, HanAnswer, HanApi, HanRequest, failure
from node.han.facades.facade import Facades
from node.han.login import Login, LoginRequest, Refusal
from node.han.page import Page
from protocol.log_limit import PEER_LINE_S, LogLimiter

log = logging.getLogger(__name__)
ANSWER_S: Final = 18.0
BODY_S: Final = 8.0
BODY_SIZE_MAX: Final = 1 << 16
FIELD_SIZE_MAX: Final = 4096
HEADERS_SIZE_MAX: Final = 16_384
REQUESTS_MAX: Final = 16
"""Requests under way at once; more wait for their turn within their time."""
_BODY_METHODS: Final = {"POST", "PUT"}
_METHODS: Final = {"GET", "PUT", "POST", "DELETE"}
_REDIRECTED: Final = 307


class HanApplication:
    """`clock` is real time (Unix, s), for what a refusal says of it."""

    def __init__(
        self, login: Login, api: HanApi, page: Page, clock: Callable[[], float], facades: Facades | None = None
    ) -> None:
        self._login = login
        self._api = api
        self._page = page
        self._facades = facades or Facades()
        self._clock = clock
        self._turns = trio.CapacityLimiter(REQUESTS_MAX)
        self._lines = LogLimiter(PEER_LINE_S, trio.current_time)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; the lifespan has nothing to do."""
        if scope["type"] == "lifespan":
            for stage in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{stage}.complete"})
        elif scope["type"] == "http":
            await _send(send, await self._in_time(scope, receive))
        # A websocket that is not accepted is refused by the server.

    async def _in_time(self, scope: Scope, receive: Receive) -> HanAnswer:
        try:
            with trio.move_on_after(ANSWER_S):
                async with self._turns:
                    return await self._answer(scope, receive)
        except Exception as error:  # noqa: BLE001 - a defect of ours costs this answer; its text might hold a value
            if self._lines.is_due(type(error).__name__):
                log.error("an answer to the home failed (%s)", type(error).__name__)
            return failure(500, "internal", "the gateway could not make the answer")
        return failure(503, "busy", "the gateway did not get round to it; try again")

    async def _answer(self, scope: Scope, receive: Receive) -> HanAnswer:
        headers = _headers(scope)
        sizes = [len(name) + len(value) + 4 for name, value in scope["headers"]]
        if sum(sizes) > HEADERS_SIZE_MAX or max(sizes, default=0) > FIELD_SIZE_MAX:
            detail = f"expected fields up to {FIELD_SIZE_MAX} octets, up to {HEADERS_SIZE_MAX} of them together"
            return failure(431, "header_size", detail)
        method = scope["method"]
        if method not in _METHODS:
            return failure(
                405, "wrong_method", "expected GET, PUT, POST or DELETE", ("Allow", "GET, PUT, POST, DELETE")
            )
        target = scope["raw_path"].decode("latin-1")
        query = scope["query_string"].decode("latin-1") or None  # ASGI cannot tell an empty one from none
        if query is not None:
            target = f"{target}?{query}"
        login = LoginRequest(method, target, _address(scope), headers.get("authorization"), _fingerprint(scope))
        who = self._login.identify(login)
        if isinstance(who, Refusal):
            return HanAnswer(
                who.status, who.body(self._clock()), "application/json",
                tuple(("WWW-Authenticate", each) for each in who.challenges),
            )  # fmt: skip
        body = b""
        if method in _BODY_METHODS:
            read = await _body(headers, receive)
            if isinstance(read, HanAnswer):
                return read
            body = read
        request = HanRequest(who, method, scope["path"], query, headers, body)
        answer = await _while_connected(receive, partial(self._served, request))
        if answer.status == _REDIRECTED:
            self._login.move(login, dict(answer.headers)["Location"])
        return answer

    async def _served(self, request: HanRequest) -> HanAnswer:
        facade = self._facades.of(request.path)
        if facade is not None:
            return await self._facades.answer(facade, request)
        if request.path.startswith(ROOT):
            return await self._api.answer(request)
        return self._page.answer(request.account, request.method, request.path)


async def _while_connected(receive: Receive, answer: Callable[[], Awaitable[HanAnswer]]) -> HanAnswer:
    """The answer, or in its place one that nobody gets where the session ended before it was made."""
    made = failure(503, "disconnected", "the session has ended")
    failed: Exception | None = None

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            made = await answer()
        except Exception as error:  # noqa: BLE001 - raised below as it is, not in a group
            failed = error
        nursery.cancel_scope.cancel()
    if failed is not None:
        raise failed
    return made


def _headers(scope: Scope) -> dict[str, str]:
    """By their names; cookies of several fields are one list (RFC 6265, 5.4)."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        found[key] = f"{found[key]}; {text}" if key == "cookie" and key in found else text
    return found


async def _body(headers: dict[str, str], receive: Receive) -> bytes | HanAnswer:
    """A body of announced length that comes in time."""
    length = headers.get("content-length")
    if length is None:
        return failure(411, "no_length", "expected Content-Length")
    if not length.isdecimal() or int(length) > BODY_SIZE_MAX:
        return failure(413, "body_size", f"expected at most {BODY_SIZE_MAX} octets")
    octets = bytearray()
    with trio.move_on_after(BODY_S):
        while True:
            message = await receive()
            octets += message.get("body", b"")
            if message["type"] != "http.request" or not message.get("more_body"):
                return bytes(octets)
    return failure(408, "slow", f"the body did not come within {BODY_S:g} s", ("Connection", "close"))


async def _send(send: Send, answer: HanAnswer) -> None:
    headers = [("content-length", str(len(answer.content)))] if answer.status != 204 else []
    if answer.content_type:
        headers.append(("content-type", answer.content_type))
        headers.append(("cache-control", "no-store"))  # values of a household stay out of a browser's files
    headers += answer.headers
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
    await send({"type": "http.response.body", "body": answer.content})


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _fingerprint(scope: Scope) -> str | None:
    """SHA-256 of the client certificate of the handshake."""
    tls: Any = (scope.get("extensions") or {}).get("tls") or {}
    chain = tls.get("client_cert_chain") or ()
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(chain[0])).hexdigest() if chain else None
