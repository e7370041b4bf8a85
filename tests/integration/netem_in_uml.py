"""
What `test_netem_uml.py` runs in the guest: the commands of `stromkreis netem` on an interface, step by step.

Commands are forked from this process, which has imported what they need: a start from the file system of the host takes
seconds in the guest.  Writes found.json into the directory it is given: what the commands said, and the qdiscs after
each step.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import stromkreis.netem  # noqa: F401 - for the children
from stromkreis.__main__ import main as stromkreis_main

PROFILE = """[line]
title = "test"
up = { delay_s = 0.06, jitter_s = 0.005, loss = 0.1, rate_bit_s = 1_000_000, queue_s = 0.1 }
down = { delay_s = 0.03, jitter_s = 0.005, rate_bit_s = 2_000_000, queue_s = 0.1 }
"""
SCENARIO = """duration_s = 60
events = [
  { at_s = 0, action = 'degrade', profile = 'none' },
  { at_s = 3, action = 'cut' },
]
"""


class Command:
    """A running `stromkreis netem`; what it writes goes to two files."""

    _numbers = count()

    def __init__(self, output: Path, *arguments: str) -> None:
        number = next(self._numbers)
        self._paths = output / f"out-{number}", output / f"err-{number}"
        self.process = multiprocessing.get_context("fork").Process(target=self._run, args=(arguments,))
        self.process.start()

    def _run(self, arguments: tuple[str, ...]) -> None:
        for path, descriptor in zip(self._paths, (1, 2), strict=True):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        sys.argv = ["stromkreis", "netem", *arguments]
        stromkreis_main()

    def lines(self, wanted: int) -> list[str]:
        """What it wrote to standard error, once there are so many lines or it has ended."""
        while self.process.is_alive():
            found = self._paths[1].read_text(encoding="utf-8").splitlines() if self._paths[1].exists() else []
            if len(found) >= wanted:
                return found
            time.sleep(0.02)
        return self._paths[1].read_text(encoding="utf-8").splitlines()

    def stop(self, number: int = 0) -> tuple[str, str, int | None]:
        """Its outputs and status, after a signal or, without one, after its end."""
        if number:
            assert self.process.pid is not None
            os.kill(self.process.pid, number)
        self.process.join()
        out, err = (path.read_text(encoding="utf-8") for path in self._paths)
        return out, err, self.process.exitcode


def qdiscs(interface: str) -> str:
    return subprocess.run(["tc", "qdisc", "show", "dev", interface], capture_output=True, text=True, check=True).stdout


def show() -> dict[str, object]:
    links = subprocess.run(["ip", "-br", "link", "show", "type", "ifb"], capture_output=True, text=True, check=True)
    ours = [line.split()[0] for line in links.stdout.splitlines() if line.startswith("netem")]
    return {"root": qdiscs("d0"), "ifbs": {name: qdiscs(name) for name in ours}}


def main(output: Path) -> None:
    found: dict[str, object] = {}
    profiles, cut = output / "profiles.toml", output / "cut.toml"
    profiles.write_text(PROFILE, encoding="utf-8")
    cut.write_text(SCENARIO, encoding="utf-8")
    mine = ("--backend", "tc", "--profiles", str(profiles))

    checked = Command(output, "check", "line", *mine, "--duration-s", "2", "--json")
    found["check"], found["check_error"], _ = checked.stop()

    subprocess.run(["ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1"], check=True)
    subprocess.run(["ip", "link", "set", "d0", "up"], check=True)
    found["before"] = show()
    on_interface = (*mine, "--interface", "d0", "--profile", "line")
    run = Command(output, "run", *on_interface)
    found["told"] = run.lines(1)[0]
    found["shaped"] = show()
    _, found["second"], found["second_status"] = Command(output, "run", *on_interface).stop()
    found["beside_second"] = show()
    _, found["stopped_error"], found["stopped_status"] = run.stop(signal.SIGTERM)
    found["stopped"] = show()
    killed = Command(output, "run", str(cut), *on_interface)
    killed.lines(2)
    found["unshaped"] = show()
    killed.lines(3)
    found["cut"] = show()
    killed.stop(signal.SIGKILL)
    found["killed"] = show()
    found["cleaned"], _, _ = Command(output, "clean").stop()
    found["after_clean"] = show()
    (output / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
