"""The documentation site in Chromium without a network: every request of a page is answered, diagrams are drawn."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

SITE = Path(__file__).parents[2] / "out" / "site"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Every host but the server's address is unknown: what a page asks of a network fails.
FLAGS = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
PAGES = (
    "index.html", "tutorial/first-network.html", "howto/operations.html", "explanation/protocol.html",
    "contributing.html", "reference/rest.html", "reference/configuration.html",
    "reference/api/protocol.dcnet.machines.member.html",
)  # fmt: skip


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    if not (SITE / "index.html").exists() or CHROMIUM is None:
        if "CI" in os.environ:
            pytest.fail("wants chromium, and the site that `make site` writes into out/site")
        pytest.skip("wants chromium, and the site that `make site` writes into out/site")
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def chromium(address: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.mark.parametrize("path", PAGES)
def test_a_page_without_a_network_has_no_failed_request(chromium: Browser, address: str, path: str) -> None:
    page = chromium.new_page()
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(f"{request.url}: {request.failure}"))
    page.on("response", lambda answer: failed.extend([answer.url] if answer.status >= 400 else []))
    page.on("pageerror", lambda error: failed.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/{path}", wait_until="networkidle")
    assert page.locator("h1").first.is_visible()
    assert failed == []
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    page.close()


@pytest.mark.parametrize("path", ["explanation/protocol.html", "contributing.html"])
def test_diagrams_are_drawn(chromium: Browser, address: str, path: str) -> None:
    """The theme replaces each block by an element that keeps its drawing in a shadow root nobody else can open."""
    page = chromium.new_page()
    page.goto(f"{address}/{path}", wait_until="networkidle")
    page.wait_for_function("document.querySelectorAll('div.mermaid').length > 2", timeout=60_000)
    assert page.locator("pre.mermaid").count() == 0
    heights = page.locator("div.mermaid").evaluate_all("each => each.map(one => one.getBoundingClientRect().height)")
    assert min(heights) > 50
    page.close()


def test_a_request_to_another_host_would_be_seen(chromium: Browser, address: str) -> None:
    page = chromium.new_page()
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.goto(f"{address}/index.html")
    page.evaluate("fetch('https://example.org/x.js').catch(() => null)")
    page.wait_for_function("true")
    assert failed == ["https://example.org/x.js"]
    page.close()
