"""Asking a process of the load test, also one in a network namespace of its own."""

from __future__ import annotations

import http.client
from functools import partial
from urllib.parse import urlsplit

import trio

from netem.errors import NetemError
from netem.netns import in_namespace


async def get(url: str, namespace: str | None, timeout_s: float = 20.0) -> tuple[int, str] | None:
    """Status and body of a GET; None where nobody answers.  `namespace` is the one to ask from."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    ask = partial(_get, parts.hostname or "", parts.port or 80, path, timeout_s)
    try:
        return await trio.to_thread.run_sync(ask if namespace is None else partial(in_namespace, namespace, ask))
    except (OSError, http.client.HTTPException, NetemError):
        return None


def _get(host: str, port: int, path: str, timeout_s: float) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()
