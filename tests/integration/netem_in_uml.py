"""
What `test_netem_uml.py` runs in the guest: the commands of `stromkreis netem` on an interface, step by step.

Writes found.json into the directory it is given: what the commands said, and the qdiscs after each step.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

PROFILE = """[line]
title = "test"
up = { delay_s = 0.06, jitter_s = 0.005, loss = 0.1, rate_bit_s = 1_000_000, queue_s = 0.1 }
down = { delay_s = 0.03, jitter_s = 0.005, rate_bit_s = 2_000_000, queue_s = 0.1 }
"""
SCENARIO = """duration_s = 60
events = [
  { at_s = 0, action = 'degrade', profile = 'none' },
  { at_s = 0.5, action = 'cut' },
]
"""


def netem(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stromkreis", "netem", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def qdiscs(interface: str) -> str:
    return subprocess.run(["tc", "qdisc", "show", "dev", interface], capture_output=True, text=True, check=True).stdout


def show() -> dict[str, object]:
    links = subprocess.run(["ip", "-br", "link", "show", "type", "ifb"], capture_output=True, text=True, check=True)
    ours = [line.split()[0] for line in links.stdout.splitlines() if line.startswith("netem")]
    return {"root": qdiscs("d0"), "ifbs": {name: qdiscs(name) for name in ours}}


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


def main(output: Path) -> None:
    found: dict[str, object] = {}
    profiles, cut = output / "profiles.toml", output / "cut.toml"
    profiles.write_text(PROFILE, encoding="utf-8")
    cut.write_text(SCENARIO, encoding="utf-8")
    mine = ("--backend", "tc", "--profiles", str(profiles))

    found["check"], found["check_error"] = netem("check", "line", *mine, "--duration-s", "2", "--json").communicate()

    subprocess.run(["ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1"], check=True)
    subprocess.run(["ip", "link", "set", "d0", "up"], check=True)
    found["before"] = show()
    on_interface = (*mine, "--interface", "d0", "--profile", "line")
    run = netem("run", *on_interface)
    found["told"] = next_line(run)
    found["shaped"] = show()
    second = netem("run", *on_interface)
    found["second"] = second.communicate()[1]
    found["second_status"] = second.returncode
    found["beside_second"] = show()
    run.send_signal(signal.SIGTERM)
    found["stopped_error"] = run.communicate()[1]
    found["stopped_status"] = run.returncode
    found["stopped"] = show()
    killed = netem("run", str(cut), *on_interface)
    next_line(killed)
    next_line(killed)
    found["unshaped"] = show()
    next_line(killed)
    found["cut"] = show()
    killed.kill()
    killed.communicate()
    found["killed"] = show()
    found["cleaned"] = netem("clean").communicate()[0]
    found["after_clean"] = show()
    (output / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
