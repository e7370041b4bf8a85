"""Ways in which an epoch comes about, or does not: what must hold says loadtest.simulator.setup_world."""

import pytest

from coordinator.rings.epochs import Phase
from loadtest.simulator.setup_world import Adversities, SetupWorld

SEEDS = range(25)


def dealing(world: SetupWorld) -> set[str]:
    return {name for name, each in world.gateways.items() if each.ring_digest is not None}


@pytest.mark.parametrize("size", [5, 17, 40])
def test_in_calm_everybody_is_in_a_ring_after_one_try(size: int) -> None:
    for seed in range(10):
        world = SetupWorld(seed, size, Adversities()).run()
        assert dealing(world) == set(world.gateways)
        assert set(world._rejected) == {0}


@pytest.mark.parametrize("loss", [0.05, 0.2])
def test_lost_and_doubled_messages_cost_no_try_while_greetings_come(loss: float) -> None:
    for seed in SEEDS:
        world = SetupWorld(seed, 12, Adversities(loss=loss, doubled=0.1, delay_s_max=3.0)).run()
        assert world.epoch.phase is Phase.DEALING
        assert set(world._rejected) == {0}
        assert dealing(world) == world.epoch.members
        assert len(world.epoch.members) >= 11, "whose joins are all lost within the window waits for the next epoch"


@pytest.mark.parametrize("restarts", [1, 3, 8])
def test_restarts_between_the_steps_go_on_with_the_try(restarts: int) -> None:
    for seed in SEEDS:
        adversities = Adversities(loss=0.05, delay_s_max=5.0, restarts=restarts)
        world = SetupWorld(seed, 12, adversities).run()
        assert world.epoch.phase is Phase.DEALING
        assert len(dealing(world)) == 12


@pytest.mark.parametrize("withholding", [1, 3])
def test_withheld_values_cost_a_try_and_whoever_withheld_the_epoch(withholding: int) -> None:
    """D8: the others draw afresh, and no value is shown for a second list, with restarts in between as well."""
    for seed in SEEDS:
        world = SetupWorld(seed, 14, Adversities(withholding=withholding, restarts=2, loss=0.05)).run()
        assert world.epoch.phase is Phase.DEALING
        assert len(dealing(world)) == 14 - withholding
        assert max(world._rejected) >= 1
        assert all(len(each.shown) <= len(world._rejected) for each in world.gateways.values())


@pytest.mark.parametrize("invented", [1, 6])
def test_invented_members_get_no_deal_from_whom_they_are_shown_to(invented: int) -> None:
    """D8 (b): in the own ring each is found; in other rings by all who drew it, of 66 checks of 40 gateways: all."""
    for seed in SEEDS:
        world = SetupWorld(seed, 34, Adversities(invented=invented, loss=0.02)).run()
        assert dealing(world) == set()
        assert {each.refusal for each in world.gateways.values()} <= {"invented", ""}
