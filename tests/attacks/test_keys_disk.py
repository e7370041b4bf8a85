"""A disk that takes no keys any more: it costs the gateways the epoch, and not the node that holds them all."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio

from node.security.module import GatewaySecurityModule
from node.storage.errors import StoreError
from protocol.dcnet.setup.epoch import Policy, ring_timing
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA
from tests.integration.test_membership import call, gateway, whole

MODULE = "node.security.module.GatewaySecurityModule"


def full(*_: object) -> None:
    raise StoreError("epochs.sqlite: database or disk is full")


@pytest.mark.parametrize("what", ["epoch", "forget_epochs_before", "forget_epoch", "forget_ended_epochs"])
async def test_keys_that_cannot_be_written_end_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(f"{MODULE}.sign", lambda *_: bytes(64))
    async with gateway(tmp_path) as mine:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                ours = whole(mine, tmp_path)
                ours._epochs._services = replace(ours._epochs._services, policy=Policy())
                with monkeypatch.context() as disk:
                    disk.setattr(f"{MODULE}.{what}", full)
                    ours._epochs.serve_in(nursery)
                    await ours.receive(call(DEFAULT_SCHEMA))
                    for epoch in list(ours._epochs._epochs.values()):
                        ours._epochs._drop_epoch(epoch)
                assert mine.count("store_errors") >= 1
                await ours.receive(call(DEFAULT_SCHEMA))  # it comes again
                assert list(ours._epochs._epochs) == [1]
                scope.cancel()


async def test_seeds_of_ended_epochs_go_at_the_start_without_a_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node whose coordinator never calls it again would keep the last one for whoever takes it away."""
    monkeypatch.setattr(f"{MODULE}.sign", lambda *_: bytes(64))
    async with gateway(tmp_path) as mine:
        context = mine.membership._context
        module = context.module
        assert isinstance(module, GatewaySecurityModule)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                ours = whole(mine, tmp_path)
                ours._epochs._services = replace(ours._epochs._services, policy=Policy())
                ours._epochs.serve_in(nursery)
                await ours.receive(call(DEFAULT_SCHEMA))
                scope.cancel()
        seeds, end_s = module._directory.seeds, ring_timing(call(DEFAULT_SCHEMA)).open_at_s(call(DEFAULT_SCHEMA).rounds)
        for now_s, is_kept in ((end_s - 1, True), (end_s + 1, False)):
            async with trio.open_nursery() as nursery:
                again = whole(mine, tmp_path / str(now_s))
                again._epochs._services = replace(again._epochs._services, clock=partial(float, now_s))
                again._epochs.serve_in(nursery)
                nursery.cancel_scope.cancel()
            assert (seeds.seed(module.identity, 1) is not None) is is_kept
