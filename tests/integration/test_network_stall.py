"""A node that is stopped over the beginning of quarter hours, again and again: no total has a value of another one."""

import signal
import time
from pathlib import Path

import pytest
import trio

from loadtest.children import config_file, process
from loadtest.network import Network
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.rings import positions_of


@pytest.mark.rounds
async def test_a_node_stopped_over_quarter_hours_contributes_each_value_to_its_own(tmp_path: Path) -> None:
    # Half of the meters are asked, half speak unasked; they stand still until every account has begun.
    network = Network(
        tmp_path, rounds=60, period_s=2.0, origin_unix_s=float(int(time.time()) + 40), protocols=("sml", "p1"),
        gateways=12, ring_size=12, dropout=0.2,
    )  # fmt: skip

    def names_in(ended: Ended) -> set[str]:
        members = network.members()[ended.epoch, ended.ring]
        return {members[position] for position in positions_of(ended.roster)}

    stalled = {"ESTK0000000010", "ESTK0000000011"}
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 10, "steady")
        config = str(config_file(network, 10, 2, "stopped"))
        with process(network, "-m", "stromkreis", "node", "--config", config) as child:
            await network.wait_until(lambda: [each for each in network.ended() if stalled <= names_in(each)])
            for _ in range(6):
                now_s = time.time()
                await trio.sleep(network.period_s - (now_s - network.origin_unix_s - 1.6) % network.period_s)
                child.send_signal(signal.SIGSTOP)
                await trio.sleep(0.9)
                child.send_signal(signal.SIGCONT)
                await trio.sleep(network.period_s)
            seen = len(network.ended())
            await network.wait_until(lambda: [each for each in network.ended()[seen:] if stalled <= names_in(each)][1:])
            nursery.cancel_scope.cancel()
    verdict = network.judged(network.ended())
    assert verdict.differences == ()
    assert verdict.conservation_error_wh == 0
    assert verdict.energy_import_wh > 0
