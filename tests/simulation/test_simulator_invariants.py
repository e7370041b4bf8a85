"""The simulator notices masks that one process used twice, and members that know two histories of one ring."""

import pytest

from loadtest.simulator.checks import Violation
from loadtest.simulator.faults import CALM, Faults
from loadtest.simulator.run import Scenario, ring_size
from loadtest.simulator.suite import CheapSuite
from loadtest.simulator.world import PERIOD_S, World
from protocol import wire
from protocol.dcnet.machines.incarnations import Incarnation


def played(faults: Faults = CALM, rounds: int = 5) -> World:
    world = World(CheapSuite(), ring_size(Scenario(gateways=12, rounds=8)), 3, faults)
    world.start()
    world.run_until(1.0 + rounds * PERIOD_S)
    return world


def test_processes_that_forget_what_they_masked_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each share leaves twice, as from a store that was put back: without nonces of their own both had one mask."""
    to_head = World.to_head

    def twice(world: World, position: int, message: wire.RingMessage) -> None:
        to_head(world, position, message)
        if isinstance(message, wire.MaskedInput):
            to_head(world, position, message)

    monkeypatch.setattr(World, "to_head", twice)
    with pytest.raises(Violation, match="used its masks of round 0 attempt 0 twice"):
        played()


def test_a_restarted_process_has_a_nonce_of_its_own() -> None:
    world = played()
    before = [gateway.member.incarnation.nonce for gateway in world.gateways if gateway.member is not None]
    for gateway in world.gateways:
        world.crash(gateway)
    world.run_until(world.now_s + 10 * PERIOD_S)
    incarnations = [gateway.member.incarnation for gateway in world.gateways if gateway.member is not None]
    assert len(before) == len(incarnations) == 12
    assert all(isinstance(each, Incarnation) and each.nonce not in before for each in incarnations)


def test_two_histories_of_one_ring_are_seen() -> None:
    world = played()
    world.checks.one_history()
    member = world.gateways[4].member
    assert member is not None
    assert member.history.settled >= 3
    member.history._hashes[32:64] = bytes(32)
    with pytest.raises(Violation, match="two histories of the first 1 rounds"):
        world.checks.one_history()
