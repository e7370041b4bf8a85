"""
The month before the simulated days: registers at quarter hours, written into a node's store before the node starts.

A month of quarter hours takes hours even where one is seconds long.  What a gateway would have logged is written
instead, with its own keys, as day blocks of the metering log; from then on the node reads its meters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import numpy as np
from cryptography import x509
from numpy.typing import NDArray

from loadtest.month.truth import IMPORT, MONTH_S
from node.config import NodeConfig
from node.configured import open_keys
from node.metering.entries import LoggedReading, encode_block
from node.storage.cipher import store_cipher
from node.storage.engine import Store
from node.storage.repositories.metering_log import MeteringLogRepository
from protocol.metering.interval import day_of
from protocol.metering.reading import Quality
from protocol.metering.units import WATT_HOUR


async def fill(
    config: NodeConfig, registers: Mapping[str, NDArray[np.int64]], count: int, done: Callable[[], None]
) -> None:
    """
    Write the first `count` registers of each of a node's gateways; `done` is called after each gateway.

    Raises StoreError, OSError.
    """
    root = x509.load_pem_x509_certificate(config.root_certificate.read_bytes())
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with closing(open_keys(config, root)) as keys, closing(Store(config.store_path, store_cipher(keys))) as store:
        repository = MeteringLogRepository(store)
        async with store.writing():
            for gateway in config.all_gateways():
                await store.write(_blocks(repository, gateway.id, registers[gateway.id][:count]))
                done()


def _blocks(repository: MeteringLogRepository, name: str, registers: NDArray[np.int64]) -> list[Any]:
    by_day: dict[int, list[LoggedReading]] = defaultdict(list)
    meter = f"{name}/0"
    for index, value in enumerate(registers.tolist()):
        at_s = MONTH_S + index * 900
        by_day[day_of(at_s)].append(
            LoggedReading(meter, IMPORT, value, 0, WATT_HOUR, None, at_s * 1000, at_s * 1000, at_s, 0, on_time=True,
                          quality=Quality.VALID)
        )  # fmt: skip
    return [repository.put_block(name, meter, IMPORT, day, encode_block(each)) for day, each in by_day.items()]
