"""`stromkreis simulate`: campaigns of many seeds that are stopped, gone on with, or broken by one of them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loadtest.simulator.gateway import Gateway
from stromkreis.__main__ import build

SMALL = ["simulate", "--gateways", "8", "--rounds", "12", "--jobs", "1"]
OLD_DISKS = ["--crash", "0.05", "--rollback", "0.6", "--rounds", "18"]


def run(*arguments: str) -> tuple[int, str]:
    words = [*SMALL, *arguments]
    result = CliRunner().invoke(build(words), words, env={"COLUMNS": "500", "TERM": "dumb"})
    return result.exit_code, result.output


def test_a_campaign_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.json", tmp_path / "parts.json"
    for seeds, file in (("5", whole), ("2", parts), ("5", parts)):
        code, output = run("--seeds", seeds, "--crash", "0.05", "--resume", str(file))
        assert code == 0, output
        assert f"{seeds} seeds without a violation" in output
    assert json.loads(parts.read_text()) == json.loads(whole.read_text())
    assert json.loads(whole.read_text())["played"] == 5


def test_a_campaign_that_is_done_plays_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "done.json"
    assert run("--seeds", "2", "--resume", str(file))[0] == 0
    monkeypatch.setattr("loadtest.simulator.campaign.play", lambda *_: pytest.fail("a seed was played again"))
    code, output = run("--seeds", "2", "--resume", str(file))
    assert code == 0
    assert "2 seeds without a violation" in output


@pytest.mark.parametrize(
    ("changed", "says"),
    [(["--liar", "head"], "another scenario"), (["--seed", "7"], "another first")],
)
def test_a_campaign_of_other_options_is_refused(changed: list[str], says: str, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    assert run("--seeds", "1", "--resume", str(file))[0] == 0
    before = file.read_text()
    code, output = run("--seeds", "1", *changed, "--resume", str(file))
    assert code == 2
    assert says in output
    assert file.read_text() == before


def test_a_campaign_of_other_sources_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    assert run("--seeds", "1", "--resume", str(file))[0] == 0
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sources": "0123456789abcdef"}))
    code, output = run("--seeds", "2", "--resume", str(file))
    assert code == 2
    assert "another sources" in output


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"played": "many"}'])
def test_a_file_that_records_no_campaign_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(text)
    code, output = run("--seeds", "1", "--resume", str(file))
    assert code == 2
    assert "no record of a campaign" in output
    assert file.read_text() == text


def test_a_record_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    code, output = run("--seeds", "1", "--resume", str(tmp_path / "nowhere" / "run.json"))
    assert code == 2
    assert "No such file or directory" in output


def test_a_seed_that_breaks_something_is_told_with_its_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record ends before it, so who goes on meets it again."""
    monkeypatch.setattr(Gateway, "review", lambda *_: True)
    file = tmp_path / "run.json"
    code, output = run("--seeds", "40", *OLD_DISKS, "--resume", str(file))
    assert code == 1
    broken = json.loads(file.read_text())["played"]
    assert f"seed {broken}: Violation: energy was lost or counted twice" in output
    replayed = next(line for line in output.splitlines() if line.startswith("replay: stromkreis simulate"))
    arguments = replayed.removeprefix("replay: stromkreis simulate ").split()
    assert arguments[:4] == ["--seed", str(broken), "--seeds", "1"]
    assert run(*arguments)[0] == 1
