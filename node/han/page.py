"""
The consumer's page: three files, served after log-in, that ask the HAN API for everything they show.

Nothing comes from elsewhere, and the content security policy says so to the browser.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from node.han.accounts import Account, Role
from node.han.api import HanAnswer, failure

_FOLDER: Final = Path(__file__).parent / "static"
_FILES: Final = {
    "/": ("consumer.html", "text/html; charset=utf-8"),
    "/consumer.css": ("consumer.css", "text/css; charset=utf-8"),
    "/consumer.js": ("consumer.js", "text/javascript; charset=utf-8"),
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    ("Content-Security-Policy", _POLICY), ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"),
)  # fmt: skip


class Page:
    """The page's files, for consumers."""

    def answer(self, account: Account, method: str, path: str) -> HanAnswer:
        """Answer a request for a path that is none of the API."""
        found = _FILES.get(path)
        if found is None:
            return failure(404, "not_there", "there is the page at / and the HAN API at /smgw/")
        if account.role is not Role.CONSUMER:
            return failure(403, "wrong_role", "the page is the consumer's; the HAN API is at /smgw/")
        if method != "GET":
            return failure(405, "wrong_method", "expected GET", ("Allow", "GET"))
        name, content_type = found
        return HanAnswer(200, _content(name), content_type, _HEADERS)


@cache
def _content(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()
