"""A coordinator that appoints one gateway head again and again, in terms that nobody else hears of."""

from pathlib import Path

import pytest
import trio
import trio.testing

from node.aggregation.context import FromCoordinator
from protocol import wire
from tests.integration.test_membership import gateway

TERMS = [6 * turn for turn in range(1, 9)]  # all of them are the turn of position 0


async def test_a_gateway_that_is_appointed_without_end_listens_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each appointment left a listener, its socket and its task until the epoch's end: of all gateways of the node."""
    async with gateway(tmp_path) as mine:
        view, module = mine.liar.view, mine.membership._context.module
        monkeypatch.setattr(type(module), "sign", lambda *_: bytes(64))  # it is not enrolled
        for term in TERMS:
            mine.membership.post(FromCoordinator(wire.Appoint(view.epoch, view.ring, term)))
        with trio.fail_after(120):
            while not any(isinstance(each, wire.HeadAt) and each.term == TERMS[-1] for each in mine.sent):
                await trio.sleep(0.005)
        await trio.testing.wait_all_tasks_blocked()
        assert mine._registry.get_sample_value("stromkreis_node_heads") == 1
        assert mine.count("ring_events", event="head_cannot_listen") == 0
