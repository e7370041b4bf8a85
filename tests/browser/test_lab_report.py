"""The lab's report in a real Chromium: every chart drawn, nothing fetched, no complaint, readable on a small screen."""

from pathlib import Path

import pytest

from loadtest.lab.claims import judge
from loadtest.lab.report import write_page
from loadtest.lab.run import Results, run
from loadtest.lab.settings import SMOKE, Settings
from tests.browser.chromium import drawn_report


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    base = {name: getattr(SMOKE, name) for name in SMOKE.__slots__}
    attacks = ("linkage", "bills", "timing", "identification", "distance", "tariff", "differencing", "utility")
    return run(Settings(**{**base, "attacks": attacks, "trials": 20}), tmp_path_factory.mktemp("lab"))


@pytest.mark.parametrize("width", [1280, 480])
def test_the_report_is_drawn_without_a_request_or_a_complaint(results: Results, tmp_path: Path, width: int) -> None:
    page_file = tmp_path / "lab.html"
    write_page(results, judge(results), page_file)
    with drawn_report(page_file, width, charts=8) as page:
        charts = page.locator(".charts article").count()
        drawn = page.evaluate(
            "[...document.querySelectorAll('.charts article')].filter(a => a.querySelector('svg')).length"
        )
        claims = page.locator(".verdict").count()
    assert charts == drawn >= 8
    assert claims == 8
