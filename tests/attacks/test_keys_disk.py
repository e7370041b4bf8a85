"""A disk that takes no keys any more: it costs the gateways the epoch, and not the node that holds them all."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from node.storage.errors import StoreError
from protocol.dcnet.setup.epoch import Policy
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA
from tests.integration.test_membership import call, gateway, whole

MODULE = "node.security.module.GatewaySecurityModule"


def full(*_: object) -> None:
    raise StoreError("epochs.sqlite: database or disk is full")


@pytest.mark.parametrize("what", ["epoch", "forget_epochs_before", "forget_epoch"])
async def test_keys_that_cannot_be_written_end_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(f"{MODULE}.sign", lambda *_: bytes(64))
    async with gateway(tmp_path) as mine:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                ours = whole(mine, tmp_path)
                ours._epochs._services = replace(ours._epochs._services, policy=Policy())
                ours._epochs.serve_in(nursery)
                with monkeypatch.context() as disk:
                    disk.setattr(f"{MODULE}.{what}", full)
                    await ours.receive(call(DEFAULT_SCHEMA))
                    for epoch in list(ours._epochs._epochs.values()):
                        ours._epochs._drop_epoch(epoch)
                assert mine.count("store_errors") >= 1
                await ours.receive(call(DEFAULT_SCHEMA))  # it comes again
                assert list(ours._epochs._epochs) == [1]
                scope.cancel()
