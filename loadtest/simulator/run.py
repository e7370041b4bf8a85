"""Play one seed: a ring of real machines through faults or lies, then a healing time in which it must make progress."""

from __future__ import annotations

from dataclasses import dataclass

from loadtest.ring import RingSize
from loadtest.simulator.faults import CALM, Faults
from loadtest.simulator.liar import Liar
from loadtest.simulator.suite import CheapSuite
from loadtest.simulator.world import PERIOD_S, Tally, Violation, World
from protocol.dcnet.parameters import choose
from protocol.dcnet.suite import StandardSuite, Suite
from protocol.wire import Outcome

HEALING_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    What to simulate.

    `liar` is "head" (an honest machine with a twisted tongue), "cunning" (a head with plans) or empty; as many
    gateways are corrupt, and first in turn to be head, as the ring's numbers allow for.  `real` takes the real
    primitives.
    """

    gateways: int = 16
    rounds: int = 24
    faults: Faults = CALM
    liar: str = ""
    corrupt: float = 0.05
    dropout: float = 0.15
    real: bool = False


@dataclass(frozen=True, slots=True)
class Played:
    """What a seed gave."""

    seed: int
    tally: Tally
    transcript: str  # hex digest over every message in order: equal for equal seeds, in any process
    smallest_sum: int


def ring_size(scenario: Scenario) -> RingSize:
    """The ring's numbers as the product chooses them."""
    numbers = choose(scenario.gateways, scenario.corrupt, scenario.dropout)
    return RingSize(numbers.n, numbers.k, numbers.t, numbers.t_c, numbers.k_min, numbers.n_min, rounds=scenario.rounds)


def play(seed: int, scenario: Scenario) -> Played:
    """Play a seed.  Raises Violation or PrivacyBroken where something does not hold."""
    suite: Suite = StandardSuite() if scenario.real else CheapSuite()
    corrupt = set(range(max(1, choose(scenario.gateways, scenario.corrupt, scenario.dropout).corrupt)))
    liar = Liar(corrupt, is_cunning=scenario.liar == "cunning") if scenario.liar else None
    world = World(suite, ring_size(scenario), seed, scenario.faults, liar)
    world.start()
    troubled = max(1, scenario.rounds - HEALING_ROUNDS)
    for round_ in range(troubled):
        if scenario.faults.clog and world.random.random() < scenario.faults.clog:
            _clog(world)
        world.run_until(1.0 + round_ * PERIOD_S)
    world.faults = CALM
    world.run_until(1.0 + (scenario.rounds + 4) * PERIOD_S)
    world.ledger.close()
    if liar is None:
        world.check_conservation()
        _check_progress(world, scenario)
    return Played(seed, world.tally, world.transcript.hexdigest(), world.ledger.smallest)


def _clog(world: World) -> None:
    """Swizzled clogging: a random set of ways stops, and they open again one after the other."""
    victims = world.random.sample(range(world.view.size), world.view.size // 4)
    for index in victims:
        for other in ("book", f"m{world.random.randrange(world.view.size)}"):
            world.clog(f"m{index}", other, world.random.random() * PERIOD_S)
            world.clog(other, f"m{index}", world.random.random() * PERIOD_S)


def _check_progress(world: World, scenario: Scenario) -> None:
    """After the faults have stopped the last rounds open, with everybody in them."""
    last = [world.ended[r] for r in range(scenario.rounds - 2, scenario.rounds) if r in world.ended]
    if len(world.ended) != scenario.rounds:
        raise Violation(f"{scenario.rounds - len(world.ended)} rounds never ended")
    if any(each.outcome is not Outcome.OPENED or each.roster != world.view.everybody for each in last):
        raise Violation("no full round after the faults had stopped")
