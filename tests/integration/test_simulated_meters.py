"""`stromkreis node --gateways 8 --meters simulated`: gateways and their meters in one process."""

from functools import partial

import trio

from coordinator.gwa.ca import ROOT_FILE
from loadtest.network import Network
from node.config import NodeConfig
from node.gateway_config import FleetConfig
from protocol.dcnet.machines.effects import Ended
from protocol.wire import Outcome
from stromkreis.simulated_meters import run_with_meters


def whole(network: Network) -> list[Ended]:
    """The opened rounds that every gateway is in."""
    everybody = (1 << network.gateways) - 1
    return [each for each in network.ended() if each.outcome is Outcome.OPENED and each.roster == everybody]


async def test_gateways_read_the_meters_of_their_own_process(network: Network) -> None:
    async with trio.open_nursery() as nursery:
        await network.start_coordinator(nursery)
        assert network.coordinator_config is not None
        assert network.token is not None
        token_file = network.directory / "token"
        token_file.write_text(f"{network.token.get_secret_value()}\n")
        node = NodeConfig(
            data_dir=network.directory / "node", coordinator=network.web[0], area=network.area, token_file=token_file,
            root_certificate=network.coordinator_config.pki_path / ROOT_FILE, policy=network.policy,
            fleet=FleetConfig(count=network.gateways), metrics="http://127.0.0.1:0",
        )  # fmt: skip
        nursery.start_soon(partial(run_with_meters, node, network.meters_config()))
        await network.wait_until(lambda: len(whole(network)) >= 2)
        last = whole(network)[-1]
        nursery.cancel_scope.cancel()
    count, energy_import = last.total[:2]
    assert count == network.gateways
    assert energy_import > 0
