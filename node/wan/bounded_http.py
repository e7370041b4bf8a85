"""
Asking the coordinator over HTTPS with a bound on what is read: the answer is dropped while it comes, not after.

Whoever answers is only known to hold a certificate of the SM-PKI.  An answer without end, one that trickles, or one
that unpacks to a thousand times its size costs the connection it came on and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import httpx
import trio

from protocol.errors import RemoteProtocolError

ANSWER_SIZE_MAX: Final = 256 * 1024  # bytes: three certificates with those above them have some 8,000
_WHOLE_S: Final = 60.0  # for an answer with all its parts; the client's own time limit is for each of them


async def ask(
    client: httpx.AsyncClient, method: str, path: str, *, json: Any = None, size_max: int = ANSWER_SIZE_MAX,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> httpx.Response:  # fmt: skip
    """
    One request and its answer, read up to `size_max` bytes.

    Raises httpx.TransportError, RemoteProtocolError `answer_too_large` or `answer_encoded`.
    """
    body, is_too_large, is_complete = bytearray(), False, False
    with trio.move_on_after(_WHOLE_S) as scope:
        async with client.stream(method, path, json=json, headers={"Accept-Encoding": "identity", **headers}) as answer:
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                raise RemoteProtocolError("answer_encoded", "an answer was compressed, which nobody asked for")
            async for part in answer.aiter_bytes():
                if not is_too_large:
                    body += part
                if len(body) > size_max:
                    is_too_large = True
                    scope.cancel()  # ends the wait for the next part, and with it each generator that stands in it
            is_complete = True
    if is_too_large:
        raise RemoteProtocolError("answer_too_large", f"an answer of over {size_max} bytes")
    if not is_complete:
        raise httpx.ReadTimeout(f"the answer was not complete after {_WHOLE_S:g} s")
    headers = {"Content-Type": answer.headers.get("Content-Type", "")}
    return httpx.Response(answer.status_code, headers=headers, content=bytes(body), request=answer.request)
