"""
Load tests on processes that run: `smoke` is exact, and a build with a planted fault of 1 Wh fails.

With `make acceptance-loadtest` every scenario that a machine of two cores can play, and each with the planted fault.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import pytest
import trio
from rich.console import Console

from loadtest.demo.processes import PROGRAM, Child
from loadtest.scenarios.faults import starve
from loadtest.scenarios.installation import Process
from loadtest.scenarios.report import Report
from loadtest.scenarios.run import LoadTest
from loadtest.scenarios.scenario import Expected, Group, Scenario, load_scenario, shipped
from loadtest.scenarios.view import View

SETUP_S = 25.0
PLANTED = (sys.executable, str(Path(__file__).with_name("planted_build.py")))
LARGE = {"steady-10k", "steady-50k"}  # by hand: they want the machine for themselves
EVERY = [name for name in shipped() if name not in LARGE] if os.environ.get("STROMKREIS_EVERY_SCENARIO") else []


async def played(scenario: Scenario, out: Path, program: Sequence[str] = PROGRAM) -> tuple[Report, str]:
    """The report of a scenario, and what was said meanwhile."""
    said = StringIO()
    report = await LoadTest(scenario, out, View(Console(file=said, width=200)), program, setup_s=SETUP_S).run()
    return report, said.getvalue()


def patient(scenario: Scenario) -> Scenario:
    """For a machine that others use: longer rounds, and only what must hold on any machine."""
    return scenario.model_copy(update={"period_s": 6.0, "expected": Expected(opened_min=0.0, whole_at_the_end=False)})


async def test_smoke_is_exact_and_its_reports_hold_every_figure(tmp_path: Path) -> None:
    report, said = await played(patient(load_scenario("smoke")), tmp_path)
    assert not report.failures, said
    assert report.is_exact
    assert report.is_conserved_by_accounts
    assert report.opened, said
    assert [each.action for each in report.faults] == ["kill"]
    assert report.costs.gateway_cpu_ms_per_round > 0
    assert report.costs.memory_kb_per_gateway > 0
    stored = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert stored["opened"] == report.opened
    assert "kill killed" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Plotly.newPlot" in (tmp_path / "report.html").read_text(encoding="utf-8")


async def test_a_build_that_adds_a_watt_hour_fails(tmp_path: Path) -> None:
    smallest = {"groups": (Group(name="all", share=1.0),), "events": (), "rounds": 3}
    scenario = patient(load_scenario("smoke")).model_copy(update=smallest)
    report, said = await played(scenario, tmp_path, PLANTED)
    assert report.opened, said
    assert any("not what they must be" in each for each in report.failures)


async def test_a_starved_process_runs_on_afterwards(tmp_path: Path) -> None:
    process = await trio.lowlevel.open_process([sys.executable, "-c", "while True: pass"])
    try:
        child = Child("busy", tmp_path / "log", None, process)
        with trio.move_on_after(0.5):
            await starve([Process("busy", tmp_path, tmp_path, "", None, child)], 0.2)
        state = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        assert state != "T"
    finally:
        process.kill()
        await process.wait()


if EVERY:

    @pytest.mark.parametrize("name", EVERY)
    async def test_every_scenario_is_exact(name: str, tmp_path: Path) -> None:
        report, said = await played(load_scenario(name), tmp_path)
        sys.stdout.write(said)
        assert not report.failures, said

    @pytest.mark.parametrize("name", EVERY)
    async def test_every_scenario_fails_with_a_planted_watt_hour(name: str, tmp_path: Path) -> None:
        report, said = await played(load_scenario(name), tmp_path, PLANTED)
        assert any("not what they must be" in each for each in report.failures), said
