"""
Processes that compute and leave nothing behind: not after an interrupt, not where their parent was killed.

They compute with one thread each: on a machine with other work the threads of linear algebra and of scikit-learn wait
for each other, fifty times as long.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from multiprocessing import active_children, get_context
from typing import Literal

from threadpoolctl import ThreadpoolController

from protocol.errors import StromkreisError

_LOOK_S = 1.0


@contextmanager
def workers(count: int, start: Literal["fork", "spawn"]) -> Iterator[ProcessPoolExecutor]:
    """
    A pool of `count` processes; whatever ends the block early ends them at once.

    Raises StromkreisError where one of them dies, as it does when memory runs out.
    """
    pool = ProcessPoolExecutor(count, get_context(start), _begin, (os.getpid(),))
    try:
        yield pool
    except BaseException as error:
        for child in active_children():
            child.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise StromkreisError(
                "a process that computed died, perhaps for lack of memory; run again to go on, with fewer --processes"
            ) from error
        raise
    pool.shutdown()


def _begin(parent: int) -> None:
    """In a worker: an interrupt is the parent's to answer, and without a parent there is nothing to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)


@lru_cache(maxsize=1)
def _thread_pools() -> ThreadpoolController:
    """Those of the libraries that are loaded by the first use; to look for them takes as long as a small tree."""
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[object]:
    """Within it, numerical libraries compute with one thread."""
    limited: AbstractContextManager[object] = _thread_pools().limit(limits=1)
    return limited
