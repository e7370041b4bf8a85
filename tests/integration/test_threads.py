"""What blocks, and an end that does not wait for it for ever."""

import threading

import pytest
import trio
import trio.testing

from coordinator import threads
from coordinator.threads import in_thread, look_up


async def test_a_write_is_waited_for_and_one_that_never_returns_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "GRACE_S", 30.0)
    release, done = threading.Event(), []

    def write() -> None:
        assert release.wait(60)
        done.append(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_thread, write)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        release.set()
    assert done == [1], "it was in the middle of it"

    monkeypatch.setattr(threads, "GRACE_S", 0.05)
    release.clear()
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_thread, write)
            nursery.start_soon(look_up, write)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    release.set()


async def test_what_it_raises_comes_out_as_it_is() -> None:
    def fail() -> None:
        raise ValueError("as it is")

    for call in (in_thread, look_up):
        with pytest.raises(ValueError, match="as it is"):
            await call(fail)
    assert await in_thread(int, "5") == 5
