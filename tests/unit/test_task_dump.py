"""What a process says of itself on SIGUSR1: its tasks, where they wait, and no value."""

import os
import signal
import time

import pytest
import trio
import trio.testing

from protocol.link.loop_lag import watch_loop
from stromkreis.task_dump import dump_at_signal, task_lines


async def waits_for_meter(_reading: str) -> None:
    await trio.sleep_forever()


async def test_tasks_are_told_with_the_place_where_they_wait() -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(waits_for_meter, "planted 4711 Wh")
        await trio.testing.wait_all_tasks_blocked()
        text = "\n".join(task_lines())
        nursery.cancel_scope.cancel()
    assert "3 x " in text
    assert "waits_for_meter (test_task_dump.py:" in text
    assert "4711" not in text


async def test_a_signal_has_the_tasks_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dump_at_signal)
        await trio.testing.wait_all_tasks_blocked()
        for count in (1, 2):
            os.kill(os.getpid(), signal.SIGUSR1)
            with trio.fail_after(120):
                while caplog.text.count("a turn of the event loop takes") < count:
                    await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert "dump_at_signal" in caplog.text


async def test_a_task_that_keeps_the_loop_shows_in_the_lag() -> None:
    seen: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_loop, seen.append)
        await trio.testing.wait_all_tasks_blocked()
        time.sleep(0.6)
        with trio.fail_after(120):
            while not seen:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert seen[0] > 0.3
