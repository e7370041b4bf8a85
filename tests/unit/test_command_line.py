"""The command line: every command explains itself, wrong use is told in a sentence, a signal ends a service."""

import json
import logging
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from coordinator.config import CoordinatorConfig
from loadtest.config import MetersConfig
from stromkreis.__main__ import COMMANDS, _Command, build
from stromkreis.config import load
from stromkreis.logs import LogFormat, set_up
from stromkreis.reference import Section, reference

ROOT = Path(__file__).parents[2]


def _invoke(*arguments: str) -> Result:
    return CliRunner().invoke(build(arguments), list(arguments), env={"COLUMNS": "200", "TERM": "dumb"})


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stromkreis", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_help_lists_every_command_with_a_sentence() -> None:
    result = _invoke("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert command.name in result.output
        assert command.help in result.output


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_each_command_explains_itself(command: _Command) -> None:
    result = _invoke(command.name, "--help")
    assert result.exit_code == 0, result.output
    assert "Usage" in result.output


def test_help_loads_neither_gateway_nor_coordinator() -> None:
    code = (
        "import sys; sys.argv = ['stromkreis', '--help']\n"
        "from stromkreis.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([name for name in sys.modules if name in ('trio', 'zmq', 'numpy', 'coordinator', 'node', 'loadtest')])"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_mistyped_command_gets_a_suggestion() -> None:
    result = _invoke("cordinator")
    assert result.exit_code == 2
    assert "coordinator" in result.output


def test_the_defaults_that_meters_tells_are_those_of_its_configuration() -> None:
    shown = {
        option.name: option.show_default
        for option in get_command(build(["meters"])).commands["meters"].params  # type: ignore[attr-defined]
        if isinstance(getattr(option, "show_default", None), str)
    }
    defaults = MetersConfig()
    told = {
        "count": defaults.count, "profile": ",".join(defaults.profiles), "protocol": ",".join(defaults.protocols),
        "link": defaults.link, "seed": defaults.seed, "first_port": defaults.first_port,
        "period_s": f"{defaults.period_s:g}", "annual_kwh": "drawn" if defaults.annual_kwh is None else "",
        "feed_in_percent": defaults.feed_in_percent, "register_decimals": defaults.register_decimals,
    }  # fmt: skip
    assert shown == {name: str(value) for name, value in told.items()}


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True)])
def test_keys_of_meters_in_a_file_that_others_may_read_are_a_warning(tmp_path: Path, mode: int, warned: bool) -> None:
    key = "00112233445566778899aabbccddeeff"
    config = tmp_path / "node.toml"
    config.write_text(
        f'[node]\nroot_certificate = "{tmp_path}/none.pem"\n[[node.gateways]]\nid = "ESTK0000000001"\n'
        f'meters = ["wmbus+radio://h:1?id=M"]\nkeys.M.encryption = "{key}"\n'
    )
    config.chmod(mode)
    done = _run("node", "--config", str(config))
    assert done.returncode == 1
    assert ("others may read it" in done.stderr) == warned
    assert "expected the SM-PKI root certificate" in done.stderr
    assert key not in done.stderr + done.stdout


def test_wrong_configuration_is_a_sentence_and_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "stromkreis.toml"
    path.write_text("[meters]\nperiod_s = 'fast'\n")
    done = _run("meters", "--config", str(path))
    assert done.returncode == 2
    assert "meters.period_s: found 'fast'; expected a valid number" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_section_of_the_reference_is_a_valid_file(tmp_path: Path) -> None:
    path = tmp_path / "all.toml"
    path.write_text(reference(list(Section)), encoding="utf-8")
    assert load(CoordinatorConfig, "coordinator", path) == CoordinatorConfig()
    assert load(MetersConfig, "meters", path) == MetersConfig()


def test_the_reference_tells_each_key_that_can_be_set() -> None:
    lines = reference([Section.COORDINATOR]).splitlines()
    keys = tomllib.loads("\n".join(line.removeprefix("#") for line in lines if not line.startswith("# ")))
    assert set(keys["coordinator"]) == set(CoordinatorConfig.model_fields)
    assert set(keys["coordinator"]["epoch"]) == set(type(CoordinatorConfig().epoch).model_fields)


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = before


def test_json_log_lines_carry_the_event_and_what_varies(
    capsys: pytest.CaptureFixture[str], root_logger: logging.Logger
) -> None:
    set_up(LogFormat.JSON, "info")
    logging.getLogger("node.ring").info("ring opened", extra={"ring": 3})
    logging.getLogger("node.ring").debug("not told")
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert (told["event"], told["ring"], told["level"], told["logger"]) == ("ring opened", 3, "info", "node.ring")


def test_console_log_lines_carry_the_same(capsys: pytest.CaptureFixture[str], root_logger: logging.Logger) -> None:
    set_up(LogFormat.CONSOLE, "INFO")
    logging.getLogger("node.ring").warning("ring void", extra={"ring": 3, "reason": "silent"})
    assert capsys.readouterr().err.endswith("WARNING node.ring: ring void ring=3 reason=silent\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_service(number: int) -> None:
    code = (
        "import sys, trio\n"
        "from stromkreis.services import serve\n"
        "async def run():\n"
        "    try:\n"
        "        print('up', flush=True)\n"
        "        await trio.sleep_forever()\n"
        "    finally:\n"
        "        print('stopped', flush=True)\n"
        "serve(run)\n"
        "print('left', flush=True)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.stdout.read() == "stopped\nleft\n"
        assert process.wait(10) == 0
