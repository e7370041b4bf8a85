"""Play one seed: a ring of real machines through faults or lies, then a healing time in which it must make progress."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from loadtest.ring import RingSize
from loadtest.simulator.checks import Tally, Violation
from loadtest.simulator.faults import CALM, Faults
from loadtest.simulator.liar import Liar
from loadtest.simulator.lying_member import LIES, STEADY, LyingMember
from loadtest.simulator.suite import CheapSuite
from loadtest.simulator.world import PERIOD_S, World
from protocol.dcnet.crypto.suite import StandardSuite, Suite
from protocol.dcnet.machines.search import lost_rounds_granted
from protocol.dcnet.parameters.choice import choose
from protocol.wire import Outcome

HEALING_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    What to simulate.

    `liar` is "head" (an honest machine with a twisted tongue), "adaptive" (a head with plans), "member" or empty.  As
    many gateways are corrupt as the ring's numbers allow for, and first in turn to be head; a lying member is one, at
    any place, and tells the kind of lie `lie`, or another one in each seed.  `real` takes the real primitives.
    """

    gateways: int = 16
    rounds: int = 24
    faults: Faults = CALM
    liar: str = ""
    lie: str = ""
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
    is_named: bool  # whether a head found the lying member
    lies: int


def ring_size(scenario: Scenario) -> RingSize:
    """The ring's numbers as the product chooses them."""
    numbers = choose(scenario.gateways, scenario.corrupt, scenario.dropout)
    return RingSize(numbers.n, numbers.k, numbers.t, numbers.t_c, numbers.k_min, numbers.n_min, rounds=scenario.rounds)


def play(seed: int, scenario: Scenario) -> Played:
    """Play a seed.  Raises Violation or PrivacyBroken where something does not hold."""
    suite: Suite = StandardSuite() if scenario.real else CheapSuite()
    corrupt = set(range(max(1, choose(scenario.gateways, scenario.corrupt, scenario.dropout).corrupt)))
    liar = Liar(corrupt, is_cunning=scenario.liar == "adaptive") if scenario.liar in {"head", "adaptive"} else None
    lying_member = _lying_member(suite, seed, scenario) if scenario.liar == "member" else None
    world = World(suite, ring_size(scenario), seed, scenario.faults, liar, lying_member)
    world.start()
    healing = HEALING_ROUNDS + (0 if lying_member is None else lost_rounds_granted(world.view))
    troubled = max(1, scenario.rounds - healing)
    for round_ in range(troubled):
        if scenario.faults.clog and world.random.random() < scenario.faults.clog:
            _clog(world)
        world.run_until(1.0 + round_ * PERIOD_S)
    world.faults = CALM
    world.run_until(1.0 + (scenario.rounds + 4) * PERIOD_S)
    world.exposure.close()
    world.checks.one_history()
    if liar is None:
        world.checks.conservation()
        _check_all_ended(world, scenario)
    if lying_member is not None:
        _check_search(world, scenario, lying_member, healing)
    elif liar is None:
        _check_progress(world, scenario)
    lies = 0 if lying_member is None else lying_member.told
    return Played(
        seed, world.tally, world.transcript.hexdigest(), world.exposure.smallest, bool(world.checks.accused), lies
    )


def _lying_member(suite: Suite, seed: int, scenario: Scenario) -> LyingMember:
    """Who lies, and how: another gateway and another lie in each seed."""
    random = Random(f"lying member {seed}")
    position, victim = random.sample(range(scenario.gateways), 2)
    lie = scenario.lie or list(LIES)[seed % len(LIES)]
    return LyingMember(position, lie, victim, suite.group, random)


def _clog(world: World) -> None:
    """Swizzled clogging: a random set of ways stops, and they open again one after the other."""
    victims = world.random.sample(range(world.view.size), world.view.size // 4)
    for index in victims:
        for other in ("ledger", f"m{world.random.randrange(world.view.size)}"):
            world.clog(f"m{index}", other, world.random.random() * PERIOD_S)
            world.clog(other, f"m{index}", world.random.random() * PERIOD_S)


def _check_all_ended(world: World, scenario: Scenario) -> None:
    if len(world.checks.ended) != scenario.rounds:
        raise Violation(f"{scenario.rounds - len(world.checks.ended)} rounds never ended")


def _check_search(world: World, scenario: Scenario, liar: LyingMember, healing: int) -> None:
    """
    A lying member costs no more rounds than are stated, and one that lies in every round is named and left out.

    The first without faults only: a head that is replaced in the middle of a search begins another one.  A seed or a
    seed_commitment costs nothing.  Who does not always lie may do so again each time that the search is laid down.
    """
    if liar.lie in STEADY and scenario.rounds > healing:
        honest = world.view.everybody & ~(1 << liar.position)
        last = [world.checks.ended[scenario.rounds - 2], world.checks.ended[scenario.rounds - 1]]
        if any(each.outcome is not Outcome.OPENED or each.roster != honest for each in last):
            raise Violation("a member that lies in every round was not found")
    if scenario.faults != CALM:
        return
    bound = (
        0
        if liar.lie in {"seed", "seed_commitment", "partial", "words", "macs", "usurp"}
        else lost_rounds_granted(world.view)
    )
    if liar.lie in {"whim", "framing"}:
        bound += scenario.rounds.bit_length()
    spoilt = sum(each.reason == "the masks did not cancel" for each in world.checks.ended.values())
    if spoilt > bound:
        raise Violation(f"a lying member cost {spoilt} rounds, and {bound} at most were stated")


def _check_progress(world: World, scenario: Scenario) -> None:
    """After the faults have stopped the last rounds open, with everybody in them."""
    last = [world.checks.ended[r] for r in range(scenario.rounds - 2, scenario.rounds) if r in world.checks.ended]
    if any(each.outcome is not Outcome.OPENED or each.roster != world.view.everybody for each in last):
        raise Violation("no full round after the faults had stopped")
