"""Rings whose head draws rosters to see one member: it is in and out of opened sums as often as its tokens allow."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from loadtest.simulator.checks import Violation
from loadtest.simulator.faults import CALM, Faults
from loadtest.simulator.gateway import INTERVAL_S
from loadtest.simulator.run import Scenario, ring_size
from loadtest.simulator.suite import CheapSuite
from loadtest.simulator.world import PERIOD_S, World
from protocol import wire
from protocol.dcnet.discipline.returns import REFILL_S, TOKENS_MAX, Attendance
from protocol.dcnet.machines.effects import HeadEffect, ToCoordinator
from protocol.dcnet.machines.head import Head

ROUNDS = 64
VICTIM = 7
TROUBLE = Faults(loss=0.01, delay_s=0.1, crash=0.01)


class DrawnRosters(World):
    """
    Every head leaves the victim out in odd rounds; with `is_secret` it opens them all the same, and says they are void.

    `sums` are the rosters that it opened, by round: what it has differences of.
    """

    def __init__(self, seed: int, faults: Faults, *, is_secret: bool, counts_returns: bool = True) -> None:
        size = ring_size(Scenario(gateways=12, rounds=ROUNDS))
        super().__init__(CheapSuite(), size, seed, faults, counts_returns=counts_returns)
        self.is_secret = is_secret
        self.sums: dict[int, int] = {}

    def play(self) -> None:
        self.start()
        for round_ in range(ROUNDS):
            self.run_until(self.view.timing.open_at_s(round_) - 0.01)
            for gateway in self.gateways:
                if isinstance(gateway.head, Head):
                    # Out of this round's E, where it is odd.
                    gateway.head.presence._not_before[VICTIM] = round_ + round_ % 2
        self.run_until(1.0 + (ROUNDS + 1) * PERIOD_S)

    def from_head(self, position: int, effects: Sequence[HeadEffect]) -> None:
        said: list[HeadEffect] = []
        for each in effects:
            if isinstance(each, ToCoordinator) and isinstance(each.message, wire.RingTotal):
                total = each.message
                self.sums[total.round] = self.view.from_wire(total.roster)
                if self.is_secret and total.round % 2:
                    nobody = self.view.to_wire(0)
                    void = wire.RingVoid(total.epoch, total.ring, total.round, total.term, "a lie", nobody)
                    said.append(ToCoordinator(void))
                    continue
            said.append(each)
        super().from_head(position, said)

    def returns_in_sums(self) -> list[int]:
        """The rounds whose sum has the victim, where the last sum before had not: what differences it is in."""
        rounds = sorted(self.sums)
        pairs = zip([None, *rounds], rounds, strict=False)
        return [
            round_
            for before, round_ in pairs
            if self.sums[round_] >> VICTIM & 1 and (before is None or not self.sums[before] >> VICTIM & 1)
        ]


def most(rounds: int) -> int:
    return TOKENS_MAX + rounds * INTERVAL_S // REFILL_S + 1


@pytest.mark.parametrize("faults", [CALM, TROUBLE], ids=["calm", "trouble"])
@pytest.mark.parametrize("is_secret", [False, True], ids=["openly", "falsely void"])
@pytest.mark.parametrize("seed", range(3))
def test_no_two_sums_differ_by_a_member_more_often_than_it_has_tokens(
    seed: int, is_secret: bool, faults: Faults
) -> None:
    world = DrawnRosters(seed, faults, is_secret=is_secret)
    world.play()
    world.checks.returns(INTERVAL_S)
    returns = world.returns_in_sums()
    for first, since in enumerate(returns):
        for count, until in enumerate(returns[first:], 1):
            assert count <= most(until - since)
    assert len(world.gateways[VICTIM].returns) <= most(ROUNDS)
    if not is_secret:
        world.checks.conservation()
    if faults is CALM:
        assert len(returns) >= TOKENS_MAX  # it is taken in again as long as it pays
        assert len(world.sums) >= ROUNDS - 4


@pytest.mark.parametrize("is_secret", [False, True], ids=["openly", "falsely void"])
def test_without_counted_returns_the_same_heads_see_it_in_every_second_round(is_secret: bool) -> None:
    world = DrawnRosters(1, CALM, is_secret=is_secret, counts_returns=False)
    world.play()
    assert len(world.returns_in_sums()) > most(ROUNDS)


def test_a_bucket_that_gives_tokens_for_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Attendance, "tokens_at", lambda _self, _now_s: TOKENS_MAX)
    world = DrawnRosters(2, CALM, is_secret=False)
    world.play()
    with pytest.raises(Violation, match="came back"):
        world.checks.returns(INTERVAL_S)


@pytest.mark.parametrize("seed", range(4))
def test_a_ring_with_honest_heads_and_faults_keeps_its_members_in(seed: int) -> None:
    """Void rounds and crashes cost few returns: most rounds open, with nearly everybody."""
    size = ring_size(Scenario(gateways=12, rounds=ROUNDS))
    world = World(CheapSuite(), size, seed, Faults(loss=0.005, delay_s=0.1, crash=0.002), counts_returns=True)
    world.start()
    world.run_until(1.0 + (ROUNDS + 1) * PERIOD_S)
    world.checks.returns(INTERVAL_S)
    world.checks.conservation()
    assert world.tally.opened >= 0.8 * ROUNDS
