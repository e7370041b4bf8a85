"""How far gateways that leave have come: durable, asked once, and nothing starts on a file that is damaged."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from node.leave_records import Leave, LeaveRecords, LeaveState
from protocol.errors import StromkreisError
from stromkreis.leave import app

NAME = "ESTK0000000001"


def test_a_request_is_kept_and_asking_again_takes_only_discard_along(tmp_path: Path) -> None:
    records = LeaveRecords(tmp_path)
    assert records.read() == {}
    first = records.ask(NAME, 5, discard=False)
    assert first == Leave(NAME, LeaveState.ASKED, 5)
    assert records.ask(NAME, 9, discard=False) == first
    assert records.ask(NAME, 9, discard=True) == Leave(NAME, LeaveState.ASKED, 5, discard=True)
    assert LeaveRecords(tmp_path).read() == {NAME: Leave(NAME, LeaveState.ASKED, 5, discard=True)}


def test_one_that_has_paid_may_be_revoked_already_and_starts_only_to_say_so(tmp_path: Path) -> None:
    records = LeaveRecords(tmp_path)
    records.keep(paid := Leave(NAME, LeaveState.PAID, 5))
    assert (records.ask(NAME, 9, discard=True), records.read()[NAME].is_over) == (paid, False)


def test_a_gateway_that_was_told_is_not_asked_again(tmp_path: Path) -> None:
    records = LeaveRecords(tmp_path)
    records.keep(told := Leave(NAME, LeaveState.TOLD, 5))
    assert records.ask(NAME, 9, discard=True) == told
    assert records.read()[NAME].is_over


@pytest.mark.parametrize(
    "text", ["", "{}", '{"gateway": "ESTK0000000002", "state": "asked", "asked_ms": 1, "owes": []}']
)
def test_a_damaged_file_says_what_it_is_and_what_to_do(tmp_path: Path, text: str) -> None:
    records = LeaveRecords(tmp_path)
    records.ask(NAME, 5, discard=False)
    (records.directory / f"{NAME}.json").write_text(text)
    with pytest.raises(StromkreisError, match="expected the state of a gateway that leaves"):
        records.read()


def configuration(directory: Path) -> str:
    path = directory / "stromkreis.toml"
    (directory / "node").mkdir()
    path.write_text(
        f'[node]\ndata_dir = "{directory}/node"\nroot_certificate = "root.pem"\n'
        + "".join(f'[[node.gateways]]\nid = "ESTK000000000{i}"\nmeters = ["sml+tcp://127.0.0.1:1"]\n' for i in (1, 2))
    )
    return str(path)


def test_the_command_asks_once_it_is_confirmed_and_shows_what_is_waited_for(tmp_path: Path) -> None:
    config, run = configuration(tmp_path), CliRunner().invoke
    refused = run(app, ["start", NAME, "-c", config], input="n\n")
    assert (refused.exit_code, LeaveRecords(tmp_path / "node").read()) == (1, {})
    done = run(app, ["start", NAME, "-c", config], input="y\n")
    assert (done.exit_code, list(LeaveRecords(tmp_path / "node").read())) == (0, [NAME])
    assert "the node" in run(app, ["status", "-c", config]).output
    everybody = run(app, ["start", "--all", "--yes", "--discard", "-c", config])
    assert everybody.exit_code == 0
    assert {each.discard for each in LeaveRecords(tmp_path / "node").read().values()} == {True}


def test_a_gateway_of_another_node_is_refused_by_name(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["start", "ESTK0000000009", "--yes", "-c", configuration(tmp_path)])
    assert isinstance(result.exception, StromkreisError)
    assert "ESTK0000000009 is none of this node's" in str(result.exception)


def test_no_file_is_written_where_a_link_in_the_place_of_the_directory_leads(tmp_path: Path) -> None:
    """The command may be root's, and the directory is the node's."""
    node, elsewhere = tmp_path / "node", tmp_path / "elsewhere"
    node.mkdir()
    elsewhere.mkdir()
    records = LeaveRecords(node)
    records.directory.symlink_to(elsewhere)
    with pytest.raises(OSError, match="leaving"):
        records.ask(NAME, 5, discard=False)
    assert list(elsewhere.iterdir()) == []
