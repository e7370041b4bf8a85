"""A node with simulated meters in the same process, one for each gateway of its fleet: for load tests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import trio
from pydantic import SecretStr

from loadtest.config import MetersConfig
from loadtest.meters.meter_list import MeterEntry
from loadtest.meters.run import run as run_meters
from node.config import NodeConfig
from node.descriptors import check_descriptors
from node.fleet import run as run_node
from node.gateway_config import GatewayConfig
from protocol.errors import StromkreisError
from stromkreis.config import load

_FILES_PER_METER = 2  # where it listens, and where its gateway has called


def simulated(node: NodeConfig, file: Path | None) -> MetersConfig:
    """
    The meters of the node's fleet, after the section [meters] of the file; ports that are free.

    Raises StromkreisError for a node without a fleet, and ConfigError.
    """
    if node.fleet is None:
        raise StromkreisError("simulated meters are for a fleet: set node.fleet.count, or give --gateways")
    options = {"count": node.fleet.count, "replay_count_max": 0, "first_port": 0, "ordinal": node.fleet.ordinal}
    return load(MetersConfig, "meters", file, options=options)


def with_meters(node: NodeConfig, meters: Sequence[MeterEntry]) -> NodeConfig:
    """The node, with the meters in the place of those that its fleet would have."""
    listed = (
        GatewayConfig(
            id=gateway.id, area=gateway.area, token=gateway.token, meters=(entry.url,),
            keys={entry.id: {name: SecretStr(key) for name, key in entry.keys.items()}} if entry.keys else {},
        )
        for gateway, entry in zip(node.all_gateways()[len(node.gateways) :], meters, strict=True)
    )  # fmt: skip
    return node.model_copy(update={"gateways": (*node.gateways, *listed), "fleet": None})


async def run_with_meters(node: NodeConfig, meters: MetersConfig, stop: trio.Event | None = None) -> None:
    """Serve meters and gateways until `stop` is set, or cancelled.  Raises StromkreisError as `node.fleet.run` does."""
    check_descriptors(len(node.all_gateways()), meters.count, beside=_FILES_PER_METER * meters.count)
    listening = trio.Event()
    entries: list[MeterEntry] = []

    def on_ready(meter_list: list[MeterEntry]) -> None:
        entries.extend(meter_list)
        listening.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_meters, meters, ready=on_ready))
        await listening.wait()
        await run_node(with_meters(node, entries), stop=stop)
        nursery.cancel_scope.cancel()
