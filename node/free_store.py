"""Opening the store, where another process may still have it: one that was cut off with its machine, for minutes."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import Final

import trio
from prometheus_client import CollectorRegistry

from node.config import NodeConfig
from node.monitoring import serve_monitoring
from node.readiness import Readiness
from node.security.module import KeyDirectory
from node.storage.cipher import Cipher
from node.storage.engine import Store
from node.storage.errors import StoreHeldError

log = logging.getLogger(__name__)
_STORE_LOOK_S: Final = 1.0


async def free_store(
    config: NodeConfig, keys: KeyDirectory, cipher: Cipher, registry: CollectorRegistry, readiness: Readiness,
    stop: trio.Event | None,
) -> Store | None:  # fmt: skip
    """
    The store, once no other process has it: one that was cut off with its machine may live on for minutes.

    None where `stop` is set before.  Monitored meanwhile, so that nobody takes the wait for a hang.  Raises StoreError
    where it cannot be opened.
    """
    open_store = partial(Store, config.store_path, cipher, blinding_key=keys.retired_commitment_key)
    try:
        return open_store()
    except StoreHeldError as error:
        log.warning("waits until the other process ends: %s", error)
    readiness.waits_for = f"{config.store_path}: another process has the store open"
    store = None
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_monitoring, registry, config.metrics, lambda: None, readiness.checks)
        while store is None and not (stop is not None and stop.is_set()):
            with suppress(StoreHeldError):
                store = open_store()
            await trio.sleep(_STORE_LOOK_S if store is None else 0)
        nursery.cancel_scope.cancel()
    readiness.waits_for = "the node is starting"
    return store
