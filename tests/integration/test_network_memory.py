"""What a process still holds of an epoch that is over."""

import gc
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from loadtest.network import Network
from protocol.dcnet.machines.head import Head
from protocol.dcnet.machines.masks import MaskSchedule
from protocol.dcnet.machines.member import Member
from protocol.dcnet.setup.secrets import EpochSecrets


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No garbage collector: on a gateway it may not come to an epoch's remains for days."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def epochs_held() -> dict[type, set[int]]:
    """The epochs whose secrets, masks and machines are in memory."""
    held: dict[type, set[int]] = {EpochSecrets: set(), MaskSchedule: set(), Member: set(), Head: set()}
    for each in gc.get_objects():
        if type(each) is EpochSecrets and each._view is not None:
            held[EpochSecrets].add(each._view.epoch)
        elif isinstance(each, MaskSchedule | Member | Head):
            held[type(each)].add(each.view.epoch)
    return held


async def test_an_epochs_secrets_leave_the_memory_with_its_last_round(uncollected: None, tmp_path: Path) -> None:
    """What is masked stays masked, whoever reads a gateway's memory later (forward secrecy)."""
    network = Network(tmp_path, origin_unix_s=float(int(time.time())), period_s=1.0)
    network.rounds = 3
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        await network.wait_until(lambda: any(each.epoch > 0 and each.round > 0 for each in network.ended()))
        held = epochs_held()
        nursery.cancel_scope.cancel()
    assert all(0 not in epochs for epochs in held.values()), held
    assert all(epochs for epochs in held.values())
