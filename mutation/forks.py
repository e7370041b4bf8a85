"""
Work in forked processes: each has the parent's memory as it was and its own bound of memory, and leaves nothing behind.

A process that computes for longer than it may is told apart from one that says how it went.
"""

from __future__ import annotations

import os
import resource
import selectors
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
FAILED = 255  # an exit status of ours: the work itself raised
_MEMORY = 2 << 30  # octets more than the parent has
_WAIT_S = 900.0  # a machine that is shared gives a process a part of its time


@dataclass(frozen=True, slots=True)
class Ended(Generic[T]):
    """How one process ended: its exit status, or the negative number of a signal, and what it wrote."""

    task: T
    status: int
    output: bytes

    @property
    def is_overdue(self) -> bool:
        """Whether it has computed for longer than it might."""
        return self.status == -signal.SIGPROF


@dataclass(slots=True)
class _Running(Generic[T]):
    task: T
    pid: int
    deadline_s: float
    output: list[bytes] = field(default_factory=list)


def fork_each(tasks: Iterable[T], jobs: int, work: Callable[[T, int], int]) -> Iterator[Ended[T]]:
    """
    Run `work(task, fd)` in a process of its own for each task, `jobs` of them at a time; yields each as it ends.

    What is written to `fd` is its output, what `work` returns (0 to 254) its status; its standard streams lead nowhere.
    It bounds its computing time itself, by `signal.ITIMER_PROF`.  Who stops iterating ends the processes that run.
    """
    waiting, running = iter(tasks), dict[int, _Running[T]]()
    with selectors.DefaultSelector() as selector:
        try:
            while True:
                while len(running) < jobs and (task := next(waiting, None)) is not None:
                    pid, pipe = _fork(task, work)
                    running[pipe] = _Running(task, pid, time.monotonic() + _WAIT_S)
                    selector.register(pipe, selectors.EVENT_READ)
                if not running:
                    return
                for key, _ in selector.select(timeout=1.0):
                    data = os.read(key.fd, 1 << 16)
                    running[key.fd].output.append(data)
                    if not data:
                        selector.unregister(key.fd)
                        os.close(key.fd)
                        ended = running.pop(key.fd)
                        yield Ended(ended.task, _wait(ended.pid), b"".join(ended.output))
                for each in running.values():
                    if time.monotonic() > each.deadline_s:
                        os.kill(each.pid, signal.SIGKILL)
        finally:
            for pipe, each in running.items():
                os.kill(each.pid, signal.SIGKILL)
                _wait(each.pid)
                os.close(pipe)


def tell(fd: int, text: str) -> None:
    """Write a text to the parent."""
    with open(fd, "w", encoding="utf-8", closefd=False) as pipe:
        pipe.write(text)


def in_a_process(work: Callable[[], None]) -> None:
    """Run `work` in a process of its own that keeps our standard streams; SystemExit where it does not end well."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            work()
            status = 0
        except KeyboardInterrupt:
            pass
        except SystemExit as end:
            print(end)
        except BaseException:  # noqa: BLE001 - the process ends here
            traceback.print_exc()
        finally:
            os._exit(status)
    try:
        status = _wait(pid)
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)  # who stops us by a signal may not have stopped it
        _wait(pid)
        raise
    if status:
        raise SystemExit(1)


def _wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _fork(task: T, work: Callable[[T, int], int]) -> tuple[int, int]:
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    status = FAILED
    try:
        os.close(read)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        _bound()
        status = work(task, write)
    except BaseException:  # noqa: BLE001 - the process ends here, and its parent is told why
        os.write(write, traceback.format_exc().encode()[-4096:])
    finally:
        os._exit(status)


def _bound() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    with open("/proc/self/statm", encoding="ascii") as pages:
        used = int(pages.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
