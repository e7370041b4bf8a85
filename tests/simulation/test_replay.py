"""An event log is played again: the same machine goes the same way, and where it does not, that is shown."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from loadtest.lying_head import LyingHead
from loadtest.simulator.faults import CALM, Faults
from loadtest.simulator.lying_member import LyingMember
from loadtest.simulator.replay import Log, ReplayError, Step, read_log, replay
from loadtest.simulator.run import Scenario, ring_size
from loadtest.simulator.suite import CheapSuite
from loadtest.simulator.world import PERIOD_S, World
from protocol.dcnet.machines.member import Member
from protocol.errors import RemoteProtocolError
from stromkreis.__main__ import build

TROUBLE = Faults(loss=0.02, duplicate=0.05, delay_s=0.2, crash=0.05, clog=0.3)


def world(seed: int, faults: Faults = CALM, rounds: int = 14, **who: Any) -> World:
    played = World(CheapSuite(), ring_size(Scenario(gateways=12, rounds=rounds)), seed, faults, **who)
    played.start()
    played.run_until(1.0 + (rounds + 1) * PERIOD_S)
    return played


def logs(played: World) -> list[dict[str, Any]]:
    machines: list[Any] = [played.ledger]
    for gateway in played.gateways:
        machines += [each for each in (gateway.member, gateway.head) if each is not None and hasattr(each, "events")]
    return [json.loads(json.dumps(each.bug_report())) for each in machines]


def simulate(file: Path) -> Result:
    arguments = ["simulate", "--replay", str(file)]
    return CliRunner().invoke(build(arguments), arguments)


def steps(document: dict[str, Any]) -> list[Step]:
    return list(replay(Log.model_validate(document)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("faults", [CALM, TROUBLE], ids=["calm", "trouble"])
def test_every_machine_goes_the_recorded_way_again(seed: int, faults: Faults) -> None:
    played = 0
    for document in logs(world(seed, faults)):
        try:
            again = steps(document)
        except ReplayError:  # it came back in the last round: nothing whole is left
            assert document["dropped"]
            continue
        assert [(each.row, each.differs) for each in again if each.differs] == []
        played += len(again)
    assert played > 200


def refusing() -> LyingHead:
    """A member that refused an opening, a roster, confirmations, a recovery and a result."""
    liar = LyingHead(CheapSuite())
    liar.offer()
    for message in (
        liar.open(term=9), liar.open(), liar.roster({1, 2, 3}), liar.roster(), liar.confirmed([1]), liar.confirmed(),
        liar.recover({0}), liar.recover({1}), replace(liar.result(), signature=bytes(64)), liar.result(),
    ):  # fmt: skip
        with suppress(RemoteProtocolError):
            liar.say(message)
    return liar


def test_what_a_member_refused_it_refuses_again() -> None:
    document = refusing().member.bug_report()
    refused = [row["refused"] for row in document["events"] if "refused" in row]
    assert refused == [
        "head_out_of_turn", "not_included", "too_few_confirmations", "not_in_roster", "forged_result",
    ]  # fmt: skip
    again = steps(document)
    assert len(again) == 12
    assert [each for each in again if each.differs] == []


def test_confirmations_count_again_after_another_heads_opening() -> None:
    liar = LyingHead(CheapSuite())
    liar.offer()
    liar.say(liar.open(), liar.roster())
    confirmed = liar.confirmed()
    with suppress(RemoteProtocolError):
        liar.say(liar.open(term=9, served={1}))
    liar.member.appointed(1, 0.0)
    assert [type(each).__name__ for each in liar.say(confirmed)] == ["Reveal"]
    assert [each for each in steps(liar.member.bug_report()) if each.differs] == []


def test_a_lying_members_round_is_given_up_again() -> None:
    liar = LyingMember(5, "share", 2, CheapSuite().group, Random(1))
    documents = logs(world(5, rounds=2, lying_members=[liar]))
    heads = [each for each in documents if each["machine"] == "head"]
    assert any(
        each["effect"] == "CorruptSum" for head in heads for row in head["events"] for each in row.get("effects", [])
    )
    assert [each for head in heads for each in steps(head) if each.differs] == []


def test_a_machine_that_goes_another_way_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    document = refusing().member.bug_report()
    monkeypatch.setattr(Member, "_on_recover", lambda _self, _message, _now_s: [])
    differing = [each for each in steps(document) if each.differs]
    assert [each.row["event"] for each in differing] == ["Recover", "Recover"]
    assert "recorded not_in_roster" in differing[0].differs


def test_the_command_plays_a_log_and_says_whether_it_went_the_same_way(tmp_path: Path) -> None:
    document = refusing().member.bug_report()
    file = tmp_path / "member.json"
    file.write_text(json.dumps(document))
    result = simulate(file)
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "12 events played, 0 differ from the log")
    document["events"][-1]["after"] = "served"
    file.write_text(json.dumps(document))
    result = simulate(file)
    assert result.exit_code == 1
    assert "DIFFERS: after: waiting, recorded served" in result.output


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"event_log": 2}, "event_log"),
        ({"machine": "meter"}, "machine"),
        ({"ring": {}}, "ring.n"),
        ({"more": 1}, "more"),
    ],
)
def test_a_file_that_is_no_event_log_is_refused_with_the_place(
    tmp_path: Path, change: dict[str, Any], what: str
) -> None:
    file = tmp_path / "log.json"
    file.write_text(json.dumps(refusing().member.bug_report() | change))
    with pytest.raises(ReplayError, match=what):
        read_log(file)
    assert simulate(file).exit_code == 1


@pytest.mark.parametrize(
    "events", [[{}], [{"at_s": 0.0, "event": "Open"}], [{"at_s": 0.0, "event": "Reveal", "round": 0}]], ids=str
)
def test_events_that_cannot_be_played_are_refused(events: list[dict[str, Any]]) -> None:
    document = refusing().member.bug_report() | {"events": events}
    with pytest.raises(ReplayError):
        steps(document)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="cannot be read"):
        read_log(tmp_path / "none.json")


def test_a_log_without_a_whole_round_is_refused() -> None:
    document = refusing().member.bug_report() | {"dropped": 7}
    with pytest.raises(ReplayError, match="no whole round"):
        steps(document)
