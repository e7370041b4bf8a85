"""A node that is told to stop lets the rounds under way end, for a while."""

from types import SimpleNamespace
from typing import Any

import pytest
import trio
from pydantic import ValidationError
from trio.testing import MockClock

from node.config import LinkConfig
from node.process_stop import settled


@pytest.mark.parametrize(("ends_s", "drain_s", "stopped_s"), [(0, 20, 0), (3, 20, 3), (30, 20, 20), (30, 0, 0)])
async def test_a_stop_waits_for_the_round_and_no_longer_than_it_may(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, ends_s: int, drain_s: int, stopped_s: int
) -> None:
    gateways: list[Any] = [SimpleNamespace(is_in_round=ends_s > 0), SimpleNamespace(is_in_round=False)]
    begun_s = trio.current_time()

    async def end() -> None:
        await trio.sleep(ends_s)
        gateways[0].is_in_round = False

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end)
        await settled(lambda: gateways, drain_s)
        nursery.cancel_scope.cancel()
    assert trio.current_time() - begun_s == pytest.approx(stopped_s, abs=0.1)
    assert ("within a round" in caplog.text) is (ends_s > drain_s)


@pytest.mark.parametrize("text", ["tcp://0.0.0.0:*", "tcp://h:7400", "tcp://h:7400-7499", "tcp://[::1]:1-65535"])
def test_a_head_listens_on_any_one_or_some_ports(text: str) -> None:
    assert LinkConfig(listen=text).listen == text


@pytest.mark.parametrize(
    "text", ["ipc:///x", "tcp://h", "tcp://h:7499-7400", "tcp://h:1-65536", "tcp://h:1-", "tcp://h:*-2"]
)
def test_ports_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="FIRST-LAST"):
        LinkConfig(listen=text)
