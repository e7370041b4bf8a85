"""The lab's report in a real Chromium: every chart drawn, nothing fetched, no complaint, readable on a small screen."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from loadtest.lab.claims import judge
from loadtest.lab.report import write_page
from loadtest.lab.run import Results, run
from loadtest.lab.settings import SMOKE, Settings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    base = {name: getattr(SMOKE, name) for name in SMOKE.__slots__}
    attacks = ("linkage", "bills", "timing", "identification", "distance", "tariff", "differencing", "utility")
    return run(Settings(**{**base, "attacks": attacks, "trials": 20}), tmp_path_factory.mktemp("lab"))


@pytest.mark.parametrize("width", [1280, 480])
def test_the_report_is_drawn_without_a_request_or_a_complaint(results: Results, tmp_path: Path, width: int) -> None:
    assert CHROMIUM is not None, "no chromium on this machine (Debian package chromium)"
    page_file = tmp_path / "lab.html"
    write_page(results, judge(results), page_file)
    asked: list[str] = []
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if line.type in {"error", "warning"} else None)
        page.goto(page_file.as_uri(), timeout=120_000)
        page.wait_for_function("document.querySelectorAll('.charts .main-svg').length >= 8", timeout=120_000)
        charts = page.locator(".charts article").count()
        drawn = page.evaluate(
            "[...document.querySelectorAll('.charts article')].filter(a => a.querySelector('svg')).length"
        )
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        claims = page.locator(".verdict").count()
        browser.close()
    assert complaints == []
    assert {url for url in asked if not url.startswith(("file:", "data:", "blob:"))} == set()
    assert charts == drawn >= 8
    assert claims == 8
    assert overflow <= 0
