"""The simulator on seeds: nothing breaks, the same seed is the same bytes, and a ring without a rule is caught."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadtest.simulator import run
from loadtest.simulator.campaign import Broken, campaign
from loadtest.simulator.checks import Violation
from loadtest.simulator.exposure import PrivacyBroken
from loadtest.simulator.faults import CALM, Faults
from loadtest.simulator.gateway import Gateway
from loadtest.simulator.liar import LIES, Liar
from loadtest.simulator.lying_member import LIES as MEMBERS_LIES
from loadtest.simulator.lying_member import STEADY
from loadtest.simulator.run import Scenario, play
from loadtest.simulator.suite import CheapSuite
from loadtest.simulator.world import World
from protocol import wire
from protocol.dcnet.machines.attempt import Attempt
from protocol.dcnet.machines.blame import Case
from protocol.dcnet.machines.effects import MemberEffect
from protocol.dcnet.machines.ledger import RoundLedger
from protocol.dcnet.machines.member import Member
from protocol.dcnet.machines.member_attempt import Place
from protocol.dcnet.machines.member_states import TRANSITIONS, State
from protocol.dcnet.machines.presence import Presence

SMALL = Scenario(gateways=8, rounds=14)
SCENARIOS = {
    "calm": SMALL,
    "loss": replace(SMALL, faults=Faults(loss=0.02)),
    "slow": replace(SMALL, faults=Faults(delay_s=0.4, duplicate=0.1)),
    "crash": replace(SMALL, faults=Faults(crash=0.05)),
    "ledger crash": replace(SMALL, faults=Faults(ledger_crash=0.2, crash=0.02, delay_s=0.1)),
    "old disks": replace(SMALL, rounds=18, faults=Faults(crash=0.05, rollback=0.6)),
    "lying head, old disks": replace(SMALL, rounds=18, liar="head", faults=Faults(crash=0.05, rollback=0.6)),
    "clogged": replace(SMALL, faults=Faults(clog=0.5, delay_s=0.1)),
    "everything": replace(SMALL, faults=Faults(loss=0.01, crash=0.03, duplicate=0.05, delay_s=0.1, clog=0.3)),
    "lying head": replace(SMALL, liar="head"),
    "adaptive head": replace(SMALL, liar="adaptive"),
    "lying member": replace(SMALL, rounds=30, liar="member"),
    "lying member, and everything": replace(
        SMALL, rounds=30, liar="member", faults=Faults(loss=0.01, crash=0.03, duplicate=0.05, delay_s=0.1, clog=0.3)
    ),
    "lying head, and everything": replace(
        SMALL, liar="head", faults=Faults(loss=0.01, crash=0.03, duplicate=0.05, delay_s=0.1, clog=0.3)
    ),
}


@pytest.mark.parametrize("chunk", range(3))
@pytest.mark.parametrize("name", SCENARIOS)
def test_no_seed_breaks_an_invariant(name: str, chunk: int) -> None:
    is_long = SCENARIOS[name].liar == "member" or SCENARIOS[name].faults.rollback  # many rounds; every lie four times
    count = 36 if is_long else 100
    for seed in range(count * chunk, count * chunk + count):
        play(seed, SCENARIOS[name])


@pytest.mark.parametrize("name", ["everything", "lying head", "adaptive head", "lying member"])
def test_rings_of_sixteen_hold_too(name: str) -> None:
    for seed in range(21):
        play(seed, replace(SCENARIOS[name], gateways=16, rounds=max(18, SCENARIOS[name].rounds)))


def test_rings_in_which_not_everybody_is_a_neighbour_find_their_liar_too() -> None:
    for seed in range(7):
        play(seed, replace(SCENARIOS["lying member"], gateways=24))


@pytest.mark.parametrize("name", ["everything", "lying head", "lying member, and everything"])
def test_the_real_primitives_hold_as_the_cheap_ones_do(name: str) -> None:
    for seed in range(4):
        play(seed, replace(SCENARIOS[name], real=True))


def test_a_seed_is_the_same_bytes_in_every_process() -> None:
    root = Path(__file__).parents[2]
    program = (
        "from dataclasses import replace; from loadtest.simulator.run import Scenario, play;"
        "from loadtest.simulator.faults import Faults;"
        "print(play(7, Scenario(gateways=8, rounds=14, faults=Faults(0.01, 0.05, 0.1, 0.03, 15.0, 0.3))).transcript)"
    )
    transcripts = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True, check=True, text=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }  # fmt: skip
    assert len(transcripts) == 1
    here = play(7, replace(SMALL, faults=Faults(0.01, 0.05, 0.1, 0.03, 15.0, 0.3))).transcript
    assert transcripts == {here + "\n"}


@pytest.mark.parametrize("lie", LIES)
def test_every_lie_is_told_and_opens_nothing(lie: str) -> None:
    told = 0
    for seed in range(12):
        liar = Liar({0}, lies=(lie,), boldness=0.4)
        world = World(CheapSuite(), run.ring_size(replace(SMALL, gateways=12)), seed, Faults(delay_s=0.05), liar)
        world.start()
        world.run_until(150.0)
        world.exposure.close()
        told += liar.told.get(lie, 0)
    assert told > 0


USURPER = replace(SCENARIOS["lying member"], lie="usurp", faults=Faults(ledger_crash=0.2))


@pytest.mark.parametrize("lie", MEMBERS_LIES)
def test_every_lie_of_a_member_is_told_and_costs_what_is_stated(lie: str) -> None:
    """Some lies need somebody who falls silent, or a ledger with past terms; who can be caught in the act is."""
    faults = {"words": Faults(loss=0.01), "partial": Faults(loss=0.01), "usurp": USURPER.faults}.get(lie, CALM)
    played = [play(seed, replace(SCENARIOS["lying member"], lie=lie, faults=faults)) for seed in range(12)]
    assert all(each.lies for each in played) or faults != CALM
    assert sum(each.lies for each in played) >= 4
    if lie in STEADY:
        assert all(each.named for each in played)


def test_no_total_of_a_non_head_stands_however_often_the_ledger_restarts() -> None:
    _plays(USURPER, 20)


def test_an_old_disk_that_is_not_reviewed_counts_energy_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator would notice a gateway that trusts a copy of its disk."""
    monkeypatch.setattr(Gateway, "review", lambda *_: True)
    with pytest.raises(Violation, match="counted twice"):
        _plays(SCENARIOS["old disks"], 20)


def test_a_calm_ring_of_any_seed_opens_every_round() -> None:
    assert not any(play(seed, SMALL).tally.void for seed in range(60))


def test_a_campaign_is_the_same_in_one_process_and_in_many() -> None:
    alone = list(campaign(SCENARIOS["everything"], 3, 20, 1))
    assert list(campaign(SCENARIOS["everything"], 3, 20, 2)) == alone
    assert [each.seed for each in alone] == list(range(3, 23))


def test_a_campaign_reports_a_violation_with_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gateway, "review", lambda *_: True)
    broken = next(each for each in campaign(SCENARIOS["old disks"], 0, 0, 1) if isinstance(each, Broken))
    assert "counted twice" in broken.what


def test_a_book_that_hears_every_past_term_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RoundLedger, "_is_head_of", lambda *_: True)
    with pytest.raises(Violation, match=r"contributed nothing|something else"):
        _plays(USURPER, 20)


def test_a_judge_that_names_whom_it_likes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator would notice an innocent member that is named."""
    answer = Case.answer

    def naming(self: Case, position: int, message: wire.MaskWords) -> bool:
        is_first = answer(self, position, message)
        self.named |= self.roster & -self.roster
        return is_first

    monkeypatch.setattr(Case, "answer", naming)
    with pytest.raises(Violation, match="did not lie"):
        _plays(SCENARIOS["lying member"], 20)


def test_a_judge_that_names_nobody_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Case, "answer", lambda *_: True)
    with pytest.raises(Violation, match=r"was not found|cost"):
        _plays(replace(SCENARIOS["lying member"], lie="share"), 20)


@pytest.mark.parametrize("liars", [1, 2, 3, 4])
def test_liars_cost_few_rounds_and_every_one_is_named(liars: int) -> None:
    """
    D11: they lie where the victim is in E, make up for it towards it, keep still, or do now so and now so.

    In rings that open without as many of them.
    """
    scenario = replace(SCENARIOS["lying member"], gateways=16, liars=liars, corrupt=0.13)
    for lie in ("pair", "adaptive", "framing"):
        played = [play(seed, replace(scenario, lie=lie)) for seed in range(3)]
        assert all(each.named == liars for each in played)
        assert max(each.blamed for each in played) <= 5


@pytest.mark.parametrize("gateways", [16, 24])
def test_liars_of_several_kinds_blame_no_honest_head_or_member(gateways: int) -> None:
    """In complete rings and in those in which a head lacks the commitments of most dealers."""
    for seed in range(13):
        assert play(seed, _some_liars(seed, gateways)).blamed <= 5


def _some_liars(seed: int, gateways: int) -> Scenario:
    return replace(SCENARIOS["lying member"], gateways=gateways, liars=2 + seed % 3, corrupt=0.13)


def test_a_head_that_hands_in_a_seed_of_another_commitment_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two liars, one in its commitment: evidence with its seed would have the ledger blame the head."""
    monkeypatch.setattr(Attempt, "can_be_proved", True)
    with pytest.raises(Violation, match="an honest head was blamed"):
        [play(seed, _some_liars(seed, 16)) for seed in range(50)]


def test_a_head_that_takes_any_revealed_seed_is_blamed_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its evidence holds a seed that the member, by its signature, did not commit to."""
    monkeypatch.setattr("protocol.dcnet.machines.attempt.mac_equal", lambda _left, _right: True)
    with pytest.raises(Violation, match="an honest head was blamed"):
        _plays(replace(SCENARIOS["lying member"], lie="seed"), 20)


def test_a_deputy_that_never_saw_the_round_opened_takes_it_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head opens the round, its deputy hears nothing of it, and the head dies: the members' READY tells."""

    def played() -> list[tuple[wire.Outcome, int, int]]:
        out = []
        for seed in range(6):
            world = World(CheapSuite(), run.ring_size(SMALL), seed, CALM)
            world.start()
            world.run_until(15.0)
            head = world.gateways[world.view.head_of(world.ledger.term)]
            deputy = world.gateways[(head.index + 1) % world.view.size]
            world.clog(f"m{head.index}", f"m{deputy.index}", 60.0)
            while not any(g.member is not None and g.member.current.round == 2 for g in world.gateways):
                world.run_until(world.now_s + 0.01)
            world.crash(head)
            world.run_until(30.0)
            ended = world.checks.ended[2]
            out.append((ended.outcome, ended.attempt, ended.term))
        return out

    assert set(played()) == {(wire.Outcome.OPENED, 1, 1)}
    monkeypatch.setattr(Presence, "first_attempt", lambda _self, _round, least: least)
    assert {term for _, _, term in played()} == {2}, "the deputy opened an attempt that members had been in"


def _plays(scenario: Scenario, seeds: int) -> None:
    for seed in range(seeds):
        play(seed, scenario)


def test_members_that_ask_for_too_little_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules 3 and 4 gone (no confirmations, any roster): the exposure must see small sums come open."""
    size = run.ring_size
    monkeypatch.setattr(run, "ring_size", lambda scenario: replace(size(scenario), t_c=0))
    monkeypatch.setattr(Place, "check_members", lambda *_: None)
    with pytest.raises(PrivacyBroken, match="came open"):
        _plays(replace(SMALL, liar="adaptive"), 60)


def test_a_member_that_serves_two_attempts_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 1 gone: the exposure must see one reading given away twice."""

    class Forgetful(Member):
        def _on_open(self, message: wire.Open, now_s: float) -> list[MemberEffect]:
            self._round_closed = False
            return super()._on_open(message, now_s)

    # The machine's own table would notice as well.
    opening: tuple[State, type[wire.RingMessage]] = (State.SERVED, wire.Open)
    monkeypatch.setitem(TRANSITIONS, opening, (State.SERVED, State.SHARED))
    monkeypatch.setattr("loadtest.simulator.world.Member", Forgetful)
    with pytest.raises(PrivacyBroken, match="two attempts"):
        _plays(replace(SMALL, liar="head"), 60)


def test_a_gateway_that_counts_energy_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The conservation law would notice an account that does not move on."""
    from_member = World.from_member

    def forgetting(self: World, position: int, effects: Any) -> None:
        gateway = self.gateways[position]
        before = gateway.account
        from_member(self, position, effects)
        if self.random.random() < 0.05:
            gateway.account = before

    monkeypatch.setattr(World, "from_member", forgetting)
    with pytest.raises(Violation):
        _plays(SMALL, 20)
