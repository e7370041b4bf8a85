"""What every task of a process is doing, for SIGUSR1: names and places in the code, and no value of any variable."""

from __future__ import annotations

import logging
import signal
from collections import Counter
from collections.abc import Iterator
from types import CodeType, CoroutineType, FrameType

import trio

log = logging.getLogger(__name__)


async def dump_at_signal() -> None:
    """Log the tasks at each SIGUSR1, and how long a task that is due waits for its turn; until cancelled."""
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        async for _ in signals:
            due_s = trio.current_time()
            await trio.lowlevel.checkpoint()
            lag_ms = (trio.current_time() - due_s) * 1000
            log.warning("a turn of the event loop takes %.1f ms; its tasks:\n%s", lag_ms, "\n".join(task_lines()))


def task_lines() -> list[str]:
    """A line for each task, indented below the one whose nursery it is in; alike ones beside each other as one."""
    root = trio.lowlevel.current_root_task()
    return [] if root is None else list(_lines(root, 0))


def _lines(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    yield f"{'  ' * depth}{_told(task)}"
    for nursery in task.child_nurseries:
        alike = Counter(_told(child) for child in nursery.child_tasks if not child.child_nurseries)
        yield from (f"{'  ' * (depth + 1)}{f'{count} x ' if count > 1 else ''}{text}" for text, count in alike.items())
        for child in nursery.child_tasks:
            if child.child_nurseries:
                yield from _lines(child, depth + 1)


def _told(task: trio.lowlevel.Task) -> str:
    places = [_place(code, line) for code, line in _stack(task.coro)]
    return f"{task.name}: {' > '.join(places[-3:]) or 'running'}"


def _stack(coroutine: object) -> Iterator[tuple[CodeType, int]]:
    """From the outermost call to where it waits."""
    while isinstance(coroutine, CoroutineType):
        frame: FrameType | None = coroutine.cr_frame
        if frame is not None:
            yield frame.f_code, frame.f_lineno
        coroutine = coroutine.cr_await


def _place(code: CodeType, line: int) -> str:
    return f"{code.co_qualname} ({code.co_filename.rpartition('/')[2]}:{line})"
