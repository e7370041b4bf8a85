"""
`stromkreis scenario` as a user runs it: the option with the most parts in a short form, every process and device real.

All six, and what waits in real time for minutes and hours, stand behind `make acceptance-ems`; they judge themselves.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loadtest.ems.page import load_results
from loadtest.ems.result import Result
from protocol.errors import StromkreisError
from stromkreis import scenario
from stromkreis.__main__ import build

ROOT = Path(__file__).parents[2]
needs_ems = pytest.mark.skipif(
    not os.environ.get("CI") and any(map(scenario.is_missing, scenario.NEEDED)), reason="make ems has not been called"
)


def play(name: str, out: Path, *arguments: str) -> Result:
    done = subprocess.run(
        [sys.executable, "-m", "stromkreis", "scenario", name, "--duration-s", "6", "--cut-s", "2", "--wan", "ethernet",
         "--out", str(out), *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "report.html").stat().st_size > 1_000_000
    assert not (out / f"run-{name.removeprefix('ems-')}").exists()  # keys and stores of a run that is over
    return load_results(out)[name.removeprefix("ems-")]


@needs_ems
def test_a_remote_ems_commands_through_warm_and_cold_tunnels(tmp_path: Path) -> None:
    result = play("ems-2b", tmp_path)
    assert result.values["remote EMS"].count >= 3
    assert {name for name, each in result.commands.items() if each.count} == {"Modbus charger", "OCPP charge point"}
    assert result.cold is not None
    assert result.cold.count == 3
    assert result.wan_bytes_per_s > 0


def test_a_scenario_that_is_not_there_is_named() -> None:
    for arguments, told in (
        (["scenario", "ems-3"], "expected one of ems-1a, ems-1b"),
        (["scenario", "ems-1a", "--wan", "string"], "--wan"),
        (["scenario", "ems-1b", "--emp-values", "2s"], "1s, 1min, 5min, 15min"),
    ):
        result = CliRunner(env={"TERM": "dumb", "COLUMNS": "200"}).invoke(build(arguments), arguments)
        assert result.exit_code in {1, 2}
        if not any(map(scenario.is_missing, scenario.NEEDED)):
            assert told in result.output


def test_missing_packages_are_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenario, "NEEDED", ("no_such_package",))
    result = CliRunner().invoke(build(["scenario", "ems-1a"]), ["scenario", "ems-1a"])
    assert isinstance(result.exception, StromkreisError)
    assert "no_such_package: install stromkreis[ems], or `make ems`" in str(result.exception)
