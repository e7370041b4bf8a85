"""Counters that outlive a command: two runs that sent under one counter and key would give the key stream away."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import outcome
import trio

from node.lmn.counters import CounterStore, DurableCounters
from node.security.storage_key import FILE_NAME, FileStorageKeys
from node.storage.cipher import store_cipher
from node.storage.engine import Store
from node.storage.repositories.counters import CounterRepository

T = TypeVar("T")


async def with_durable_counters(work: Callable[[CounterStore], Awaitable[T]]) -> T:
    """Work with counters that are kept below XDG_STATE_HOME.  Raises StoreError, and what the work raises."""
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    directory = home / "stromkreis"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = Store(directory / "sniff.db", store_cipher(FileStorageKeys(directory / FILE_NAME)))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            # What it raises is captured in there: out of here the nursery would wrap it in a group.
            done = await outcome.acapture(work, DurableCounters(CounterRepository(store)))
            nursery.cancel_scope.cancel()
        return done.unwrap()
    finally:
        store.close()
