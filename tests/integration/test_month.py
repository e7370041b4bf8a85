"""A small month of deliveries as a program: real processes, rings, cut connections, kills, exact to the last Wh."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_a_small_month_is_exact_over_cuts_and_kills(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.month", str(tmp_path / "month"), "--gateways", "24", "--processes", "1",
         "--rounds", "6", "--period-s", "4", "--setup-s", "60", "--kills", "1", "--cut-every-s", "15",
         "--tafs", "1", "7"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    report = json.loads((tmp_path / "month" / "report.json").read_text())
    assert report["failures"] == []
    assert (report["deliveries"], report["rings_are_exact"]) == (48, True)
    assert [each.split(" at ")[0] for each in report["kills"]] == ["node-1", "coordinator"]
    assert not (tmp_path / "month" / "plan.json").exists()
