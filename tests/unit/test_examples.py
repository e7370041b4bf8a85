"""The examples run as a reader would start them, and say what they promise."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = [
    ("ring_of_five.py", "2126 Wh from 5 gateways"),
    ("decode_telegram.py", "1-0:1.8.0*255  123456789 x 10^-1 Wh  valid"),
    ("decode_telegram.py", "octet 0: transport_crc"),
]


@pytest.mark.parametrize(("name", "said"), EXAMPLES)
def test_an_example_runs_and_says_what_it_promises(name: str, said: str) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / name)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    assert said in run.stdout
