"""The system's Chromium, and a page that is watched while a test uses it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import BrowserContext, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
wants_chromium = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="no chromium on this machine (Debian package chromium)"
)


@dataclass
class Watched:
    """A page with everything that it asked for and complained about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def watch(context: BrowserContext) -> Watched:
    """A new page, watched from its first request on."""
    made = Watched(context.new_page())
    made.page.on("request", lambda request: made.requests.append(request.url))
    made.page.on("pageerror", lambda error: made.complaints.append(str(error)))
    made.page.on(
        "console", lambda line: made.complaints.append(line.text) if line.type in {"error", "warning"} else None
    )
    return made
