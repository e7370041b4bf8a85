"""The system's Chromium, and a page that is watched while a test uses it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright

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


@contextmanager
def drawn_report(file: Path, width: int, charts: int) -> Iterator[Page]:
    """
    A report of ours in a window of `width` pixels, once so many of its charts are drawn.

    At the end it must have fetched nothing, complained of nothing, and fit into the window.
    """
    assert CHROMIUM is not None, "no chromium on this machine (Debian package chromium)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        watched = watch(browser.new_context(viewport={"width": width, "height": 900}))
        page = watched.page
        page.goto(file.as_uri(), timeout=120_000)
        page.wait_for_function(f"document.querySelectorAll('.charts .main-svg').length >= {charts}", timeout=120_000)
        yield page
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        browser.close()
    assert watched.complaints == []
    assert {url for url in watched.requests if not url.startswith(("file:", "data:", "blob:"))} == set()
    assert overflow <= 0
