"""
The browser's part of a log-in through an OpenID provider: it comes back to a port of ours on loopback (RFC 8252, 7.3).

Only the address that the provider was told is answered, and only a request with this log-in's state; what else asks
there gets 404 and changes nothing.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Final
from urllib.parse import parse_qs, urlsplit

from protocol.errors import StromkreisError

_LOOK_S: Final = 1.0
_SILENT_S: Final = 5.0
_PAGE: Final = b"<!doctype html><title>Stromkreis</title><p>%s You may close this window."


def code_from_browser(
    begin: Callable[[str], tuple[str, str]], show: Callable[[str], None], timeout_s: float
) -> tuple[str, str]:
    """
    State and code of a log-in: `begin` gets the redirect URI and gives state and URL, `show` gets that URL.

    Raises StromkreisError where the provider refuses, or nobody has logged in after `timeout_s`.
    """
    brought: dict[str, str] = {}

    class Callback(BaseHTTPRequestHandler):
        timeout = _SILENT_S  # browsers open connections in advance, and one that says nothing would hold up the next

        def do_GET(self) -> None:
            query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            is_ours = secrets.compare_digest(query.get("state", "").encode(), state.encode())
            if urlsplit(self.path).path != "/callback" or not is_ours or not {"code", "error"} & query.keys():
                self.send_error(404)
                return
            brought.update(query)
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(_PAGE % (b"You are logged in." if "code" in query else b"The log-in was refused."))

        def log_message(self, *_: object) -> None:  # the code is in the address
            pass

    with HTTPServer(("127.0.0.1", 0), Callback) as server:
        state, url = begin(f"http://127.0.0.1:{server.server_port}/callback")
        show(url)
        server.timeout, until_s = _LOOK_S, time.monotonic() + timeout_s
        while not brought:
            if time.monotonic() > until_s:
                raise StromkreisError(f"nobody has logged in within {timeout_s:g} s; try again")
            server.handle_request()
    if "code" not in brought:
        raise StromkreisError(f"the provider refuses: {brought['error'][:80]}")
    return state, brought["code"]
