"""The example of a subscriber runs, and goes on where it ended."""

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def run(directory: Path) -> list[list[str]]:
    command = [sys.executable, str(_ROOT / "examples/metering_log_subscriber.py"), str(directory), "4"]
    subprocess.run(command, check=True, cwd=_ROOT, timeout=120, env={"PYTHONPATH": str(_ROOT), "PATH": "/usr/bin:/bin"})
    return [line.split(",") for line in (directory / "load_curve.csv").read_text().splitlines()]


def test_the_load_curve_goes_on_where_it_ended(tmp_path: Path) -> None:
    first = run(tmp_path)
    both = run(tmp_path)
    assert both[: len(first)] == first
    assert len(both) > len(first) > 0
    times = [time for _, time, _, _ in both]
    assert times == sorted(set(times))
    assert all(value.endswith("e-1 Wh") for _, _, value, _ in both)
