"""The report on energy management in a real Chromium: every chart drawn, nothing fetched, no complaint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.ems.freshness import Freshness
from loadtest.ems.options import OPTIONS
from loadtest.ems.page import write_page
from loadtest.ems.result import Latency, Result
from tests.browser.chromium import drawn_report

FRESH = Freshness(60, 1.0, 1.01, 0.6, 1.1, 1.3, 0, 0.0)
RESULT = Result(
    option="1c", at="2026-11-30T16:00:00+00:00", duration_s=60.0, wan="lte", cut_s=15.0, emp_values="1s",
    values={"local EMS": FRESH, "remote EMS": replace(FRESH, age_s_p50=31.3, gaps=2, gap_s_max=7.0)},
    commands={"Modbus charger": Latency(30, 0.01, 0.02), "local EMS": Latency(0, None, None, 4)},
    reaction=Latency(0, None, None), steps_missed=3, cold=Latency(3, 0.8, 0.9),
    recovery_s={"values, local EMS": 0.0, "commands, local EMS": None}, limit_states=["limited", "failsafe"],
    gateway_cpu_percent=1.2, wan_bytes_per_s=230.0, curves={"local EMS": [(0.0, 0.1), (1.0, 1.1)]},
    failures=["commands, local EMS: not back after the cut"],
)  # fmt: skip


@pytest.mark.parametrize("width", [1400, 480])
def test_the_report_of_options_is_drawn_without_request_or_complaint(tmp_path: Path, width: int) -> None:
    write_page({"1c": RESULT}, tmp_path / "report.html")
    with drawn_report(tmp_path / "report.html", width, charts=5) as page:
        columns = page.locator(".options thead th").count()
        texts = page.locator(".options").inner_text().replace("\N{NO-BREAK SPACE}", " ")
        verdict = page.locator(".verdict").inner_text()
    assert columns == 1 + len(OPTIONS)
    assert verdict == "FAILED: 1c: commands, local EMS: not back after the cut"
    for told in (
        "remote EMS: 31.3 s",
        "2, longest 7.0 s",
        "– / –, 4 failed",
        "0 of 3 steps answered",
        "limited → failsafe",
    ):
        assert told in texts
