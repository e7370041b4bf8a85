"""An area that loses more gateways than its rings bear opens again before the old epoch would have ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import trio

from coordinator.config import CoordinatorConfig, WebConfig
from coordinator.epoch_config import EarlyEpochConfig, EpochConfig
from loadtest.network import Network
from loadtest.ports import free_port
from protocol.dcnet.machines.effects import Ended
from protocol.wire import Outcome
from tests.integration.test_network_churn import epoch_seeds

if TYPE_CHECKING:
    import pytest

    from tests.integration.conftest import Ledger


async def test_an_area_that_loses_too_many_for_good_opens_again_early(
    network: Network, ledger: Ledger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network.gateways = 12  # of which n_min = 8 must be there
    network.coordinator_config = CoordinatorConfig(
        listen=f"tcp://127.0.0.1:{free_port()}", web=WebConfig(listen=("https://127.0.0.1:0",)),
        data_dir=tmp_path / "coordinator", areas=(network.area,),
        epoch=EpochConfig(
            rounds=90, period_s=1.0, origin_unix_s=network.origin_unix_s, ring_size=8, power=False, dropout=0.1,
            early=EarlyEpochConfig(epoch_rounds_min=16, void_rounds=3),
        ),
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 7, "steady")
        gone = await network.start_node(nursery, 7, 5, "gone")
        await network.wait_until(lambda: [e for e in network.ended() if e.roster.bit_count() == 12])
        gone.cancel()
        opened = Outcome.OPENED
        # On a busy machine the first epoch with rings is not epoch 0: one that too few join is called anew.
        full = next(each.epoch for each in network.ended() if each.roster.bit_count() == 12)

        def later() -> list[Ended]:
            return [each for each in network.ended() if each.epoch > full and each.outcome is opened]

        await network.wait_until(lambda: later()[2:])
        seeds = tmp_path / "steady" / "keys"
        await network.wait_until(lambda: {epoch for _, epoch in epoch_seeds(seeds)} == {later()[-1].epoch})
        nursery.cancel_scope.cancel()
    ledger.check(network)
    ended = network.ended()
    last = max(each.round for each in ended if each.epoch == full)
    assert 15 <= last < 60, "without early epochs it is void to its round 89"
    assert later()[0].round <= 2
    assert [each.round for each in ended if each.epoch == full] == list(range(last + 1))
    intervals = [row.q for row in network.rows(ended)]
    assert len(intervals) == len(set(intervals)), "no interval has two totals"
    assert network.flown("steady", "gone").is_conserved
    assert f"is called before epoch {full} ends: a ring has opened none of its last" in caplog.text
