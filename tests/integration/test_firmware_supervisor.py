"""The supervisor with real processes: a release that comes up stays, one that does not goes, whoever is killed when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node.firmware.slots import FirmwareDirectory
from protocol.profiles.firmware import FirmwareState
from tests.unit.firmware_wheels import ROOT, order_of, small_wheel

# What a node does of all that matters here; the installed program is one of the working directory.
PROGRAM = """
import os, signal, sys, threading
def said(text):
    with open("said", "a") as file:
        file.write(f"{VERSION} {text} {os.getpid()}\\n")
def stop(*_):
    said("stops"); os._exit(0)
signal.signal(signal.SIGTERM, stop)
def watch():
    sys.stdin.buffer.read(); said("lost its supervisor"); os._exit(1)
threading.Thread(target=watch, daemon=True).start()
said("starts")
"""
CONFIRMS = (
    PROGRAM
    + """
from pathlib import Path
from node.firmware.slots import FirmwareDirectory
FirmwareDirectory(Path("firmware")).confirm()
said("confirmed")
signal.pause()
"""
)
STAYS = PROGRAM + "signal.pause()"
ENDS = PROGRAM + "os._exit(3)"


class World:
    """A working directory with an installed program, and the supervisor as a process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.directory = FirmwareDirectory(path / "firmware")
        (path / "stromkreis").mkdir()
        (path / "stromkreis/__init__.py").touch()
        (path / "stromkreis/__main__.py").write_text(f'VERSION = "installed"\n{STAYS}')
        self.process: subprocess.Popen[bytes] | None = None

    def stage(self, version: str, program: str, issued_ms: int = 1) -> None:
        """As a node does when it is ordered to."""
        image = small_wheel(self.path / f"{version}.whl", version, f'VERSION = "{version}"\n{program}')
        order = order_of(image, version, issued_ms)
        self.directory.received(order.manifest)
        self.directory.append(order.manifest, image.read_bytes())
        self.directory.stage(order)

    def start(self, installed: str = "0.1.0") -> None:
        """Start the supervisor."""
        script = str(Path(__file__).with_name("supervised.py"))
        # By -c: the script's own directory must not come before the working directory's program.
        self.process = subprocess.Popen(
            [sys.executable, script, str(self.path / "firmware"), installed], cwd=self.path,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
        )  # fmt: skip

    def send(self, how: signal.Signals) -> None:
        """Send the supervisor a signal."""
        assert self.process is not None
        self.process.send_signal(how)

    def end(self, how: signal.Signals) -> int:
        """End the supervisor."""
        assert self.process is not None
        self.send(how)
        return self.process.wait(timeout=120)

    def said(self) -> list[str]:
        """What programs have said so far, without their process ids."""
        file = self.path / "said"
        return [line.rpartition(" ")[0] for line in file.read_text().splitlines()] if file.exists() else []

    def until(self, condition: Callable[[], bool]) -> None:
        """Return once something is so."""
        deadline_s = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline_s, self.said()
            time.sleep(0.02)

    def until_said(self, *lines: str) -> None:
        """Return once exactly this was said."""
        self.until(lambda: self.said() == list(lines))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait()


def test_a_release_that_confirms_itself_stays_over_a_restart(world: World) -> None:
    world.stage("0.2.0", CONFIRMS)
    world.start()
    world.until_said("0.2.0 starts", "0.2.0 confirmed")
    assert world.end(signal.SIGTERM) == 0
    assert world.said()[2:] == ["0.2.0 stops"]
    status = world.directory.read()
    assert (status.current, status.trial, status.newest) == ("a", None, "0.2.0")
    world.start()
    world.until(lambda: len(world.said()) == 5)  # and confirms what is in force, which changes nothing
    assert world.said()[3] == "0.2.0 starts"
    assert world.end(signal.SIGKILL) == -signal.SIGKILL
    world.until(lambda: world.said()[-1] == "0.2.0 lost its supervisor")


def test_one_that_ends_or_is_not_ready_in_time_is_rolled_back(world: World) -> None:
    world.stage("0.2.0", ENDS)
    world.start()
    world.until_said("0.2.0 starts", "installed starts")
    status = world.directory.read()
    assert status.outcome is not None
    assert (status.current, status.outcome.state, status.outcome.reason) == (None, FirmwareState.ROLLED_BACK, "ended")
    assert world.end(signal.SIGTERM) == 0
    world.stage("0.3.0", STAYS)
    world.start()
    world.until(lambda: world.said()[3:] == ["0.3.0 starts"])
    world.send(signal.SIGUSR1)
    world.until(lambda: len(world.said()) == 6)
    assert world.said()[2:] == ["installed stops", "0.3.0 starts", "0.3.0 stops", "installed starts"]
    status = world.directory.read()
    assert status.outcome is not None
    assert status.outcome.reason == "not_confirmed"


def test_a_trial_that_is_cut_off_is_started_once_more_and_no_oftener(world: World) -> None:
    """The supervisor is killed between the mark, the start and the confirmation."""
    world.stage("0.2.0", STAYS)
    for count in (1, 2):
        world.start()
        world.until(lambda count=count: world.said().count("0.2.0 starts") == count)  # type: ignore[misc]
        assert world.directory.read().starts == count
        world.end(signal.SIGKILL)
        world.until(lambda count=count: world.said().count("0.2.0 lost its supervisor") == count)  # type: ignore[misc]
    world.start()
    world.until(lambda: world.said()[-1] == "installed starts")
    status = world.directory.read()
    assert status.outcome is not None
    assert (status.outcome.state, status.outcome.reason) == (FirmwareState.ROLLED_BACK, "cut_off")


def test_a_slot_that_was_altered_is_not_started(world: World) -> None:
    world.stage("0.2.0", CONFIRMS)
    with (world.path / "firmware/a/stromkreis/__main__.py").open("a") as file:
        file.write("\n")
    world.start()
    world.until_said("installed starts")
    status = world.directory.read()
    assert status.outcome is not None
    assert status.outcome.reason == "altered"


def test_a_newer_program_that_was_installed_by_hand_is_started(world: World) -> None:
    """Who mends a hole by hand must not have the node start the release that has it."""
    world.stage("0.2.0", CONFIRMS)
    world.start()
    world.until_said("0.2.0 starts", "0.2.0 confirmed")
    world.end(signal.SIGTERM)
    world.stage("0.3.0", CONFIRMS)
    world.start(installed="0.4.0")
    world.until(lambda: len(world.said()) == 4)
    assert world.said()[3] == "installed starts"
    status = world.directory.read()
    assert status.outcome is not None
    assert (status.current, status.trial, status.newest, status.outcome.reason) == (None, None, "0.2.0", "superseded")
