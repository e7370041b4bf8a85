"""
Do something inside a network namespace from this process: a socket stays in the namespace it was created in.

A thread of its own enters the namespace and ends, so that no other thread is ever in the wrong one.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import outcome

from netem.errors import MissingPrivilegeError, ToolFailedError

T = TypeVar("T")
RUN_NETNS = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def in_namespace(name: str, function: Callable[[], T]) -> T:
    """
    Call a function on a thread inside the named namespace and return its result.

    Raises ToolFailedError where the namespace is gone, MissingPrivilegeError where it may not be entered, and what the
    function raises.
    """
    results: list[outcome.Maybe[T]] = []

    def enter_and_call() -> T:
        try:
            descriptor = os.open(RUN_NETNS / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ToolFailedError(f"network namespace {name}: cannot be opened: {error.strerror}") from None
        try:
            if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
                reason = os.strerror(ctypes.get_errno())
                raise MissingPrivilegeError(f"network namespace {name}: cannot be entered: {reason}")
        finally:
            os.close(descriptor)
        return function()

    thread = threading.Thread(target=lambda: results.append(outcome.capture(enter_and_call)), daemon=True)
    thread.start()
    thread.join()
    return results[0].unwrap()


def write_sysctl(name: str, value: str) -> None:
    """Set a kernel parameter (`net/ipv4/ip_forward`) of the namespace that the calling thread is in."""
    (Path("/proc/sys") / name).write_text(value, encoding="ascii")
