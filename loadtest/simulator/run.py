"""Play one seed: a ring of real machines through faults or lies, then a healing time in which it must make progress."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from random import Random

from loadtest.ring import RingSize
from loadtest.simulator.checks import Tally, Violation
from loadtest.simulator.faults import CALM, Faults
from loadtest.simulator.gateway import Gateway
from loadtest.simulator.liar import Liar
from loadtest.simulator.lying_member import LIES, STEADY, LyingMember
from loadtest.simulator.suite import CheapSuite
from loadtest.simulator.world import PERIOD_S, World
from protocol.dcnet.crypto.suite import StandardSuite, Suite
from protocol.dcnet.parameters.choice import choose
from protocol.wire import Outcome

HEALING_ROUNDS = 8
VOIDS_MAX = 5  # rounds that one to four lying members cost, whatever they do


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    What to simulate.

    `liar` is "head" (an honest machine whose messages are altered), "adaptive" (a head that plans), "copies" (such a
    head, and gateways that run in several copies of their disks), "member" or empty.  As many gateways are corrupt as
    the ring's numbers allow for, and first in turn to be head; with copies, and else in every second seed, the
    coordinator is as well and keeps the head in place.  Lying members are `liars`, at any places, and tell the kind of
    lie `lie`, or others in each seed.  `real` takes the real primitives.
    """

    gateways: int = 16
    rounds: int = 24
    faults: Faults = CALM
    liar: str = ""
    lie: str = ""
    liars: int = 1
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
    named: int  # how many lying members were named
    blamed: int  # rounds that were void because masks did not cancel
    lies: int


def ring_size(scenario: Scenario) -> RingSize:
    """The ring's numbers as the product chooses them."""
    numbers = choose(scenario.gateways, scenario.corrupt, scenario.dropout)
    return RingSize(numbers.n, numbers.k, numbers.t, numbers.t_c, numbers.k_min, numbers.n_min, rounds=scenario.rounds)


def play(seed: int, scenario: Scenario) -> Played:
    """Play a seed.  Raises Violation or PrivacyBroken where something does not hold."""
    suite: Suite = StandardSuite() if scenario.real else CheapSuite()
    corrupt = set(range(max(1, choose(scenario.gateways, scenario.corrupt, scenario.dropout).corrupt)))
    is_copying = scenario.liar == "copies"
    is_adaptive = is_copying or scenario.liar == "adaptive"
    is_colluding = is_copying or seed % 2 == 1
    is_head = is_adaptive or scenario.liar == "head"
    liar = Liar(corrupt, is_adaptive=is_adaptive, is_colluding=is_colluding) if is_head else None
    lying = _lying_members(suite, seed, scenario) if scenario.liar == "member" else []
    world = World(suite, ring_size(scenario), seed, scenario.faults, liar, lying, keeps_events=False)
    world.start()
    healing = HEALING_ROUNDS + (VOIDS_MAX if lying else 0)
    troubled = max(1, scenario.rounds - healing)
    if is_copying:
        _plan_copies(world, corrupt, troubled)
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
    world.checks.head_replaced_for_good(world.ledger.unfit)
    blamed = sum(each.reason == "the masks did not cancel" for each in world.checks.ended.values())
    if lying:
        _check_blame(world, scenario, lying, blamed, healing)
    elif liar is None:
        _check_progress(world, scenario)
    return Played(
        seed, world.tally, world.transcript.hexdigest(), world.exposure.smallest, len(world.checks.named), blamed,
        sum(each.told for each in lying),
    )  # fmt: skip


def _lying_members(suite: Suite, seed: int, scenario: Scenario) -> list[LyingMember]:
    """
    Who lies, and how: other gateways and other lies in each seed; all of them frame the same victim.

    The first liar of a seed has the next kind of lie, so that none is left out, the others any.
    """
    random = Random(f"lying member {seed}")
    victim, *positions = random.sample(range(scenario.gateways), 1 + scenario.liars)
    kinds = list(LIES)
    lies = [kinds[seed % len(kinds)], *(random.choice(kinds) for _ in positions[1:])]
    return [
        LyingMember(each, scenario.lie or lie, victim, suite.group, random)
        for each, lie in zip(positions, lies, strict=True)
    ]


def _plan_copies(world: World, corrupt: Collection[int], rounds: int) -> None:
    """
    As many copies, of any gateways, as a ring holds out against: copied + corrupt <= 2t - k (aggregation-2, section 1).

    Each disk is copied in one of the first `rounds` and started in the same or a later one.
    """
    view, random = world.view, world.random
    honest = [each for each in world.gateways if each.index not in corrupt]

    def copy(original: Gateway, started_s: float) -> None:
        world.at(started_s, partial(world.start_beside, original, original.copy_of_disk()))

    for _ in range(2 * view.t - view.k - len(corrupt)):
        copied_s, started_s = sorted(random.uniform(0, rounds * PERIOD_S) for _ in range(2))
        world.at(copied_s, partial(copy, random.choice(honest), started_s))


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


def _check_blame(world: World, scenario: Scenario, liars: list[LyingMember], blamed: int, healing: int) -> None:
    """Who lies in every round is named and left out; and liars cost no more rounds than are stated."""
    steady = {each.position for each in liars if each.lie in STEADY}
    if steady - world.checks.named and scenario.rounds > healing and scenario.faults == CALM:
        raise Violation("a member that lies in every round was not found")
    if blamed > VOIDS_MAX and scenario.faults == CALM:
        raise Violation(f"lying members cost {blamed} rounds, and {VOIDS_MAX} at most were stated")
    last = [world.checks.ended[scenario.rounds - 2], world.checks.ended[scenario.rounds - 1]]
    if any(each.outcome is not Outcome.OPENED for each in last):
        raise Violation("no round after the faults had stopped and the liars were known")


def _check_progress(world: World, scenario: Scenario) -> None:
    """After the faults have stopped the last rounds open, with everybody in them."""
    last = [world.checks.ended[r] for r in range(scenario.rounds - 2, scenario.rounds) if r in world.checks.ended]
    if any(each.outcome is not Outcome.OPENED or each.roster != world.view.everybody for each in last):
        raise Violation("no full round after the faults had stopped")
