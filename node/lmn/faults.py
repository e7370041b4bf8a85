"""What a driver may raise, by name: its own defect costs its bus and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

import trio

from protocol.errors import InvariantError, LocalProtocolError, RemoteProtocolError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a step gave nothing: a reason for the log and the metrics, and a detail without what was received."""

    reason: str
    detail: str = ""


class LinkEnded(trio.BrokenResourceError):
    """A line that says in words why it ended, or cannot be opened; never with what was received."""


async def caught(step: Awaitable[T], timeout_s: float) -> T | Fault:
    """A step of a driver: its result, or its fault by name.  Here, and only here, a defect is kept from spreading."""
    try:
        with trio.fail_after(max(0.0, timeout_s)):
            return await step
    except InvariantError:
        raise
    except Exception as error:  # noqa: BLE001  a driver's defect must cost its own bus only
        return _named(error)


def _named(error: BaseException) -> Fault:
    match error:
        case ExceptionGroup(exceptions=[first, *_]):
            if error.split(InvariantError)[0] is not None:
                raise error
            return _named(first)
        case RemoteProtocolError():
            return Fault(error.reason, where(error))
        case trio.TooSlowError():
            return Fault("silent")
        case StopAsyncIteration():
            return Fault("link_closed")
        case LocalProtocolError():
            return Fault("driver_defect", str(error))
        case LinkEnded():
            return Fault("link_broken", str(error))
        case OSError() | trio.BrokenResourceError() | trio.ClosedResourceError():
            return Fault("link_broken", type(error).__name__)
        case _:
            # The text of an unforeseen exception may quote what was received; its type may not.
            return Fault("driver_defect", type(error).__name__)


def where(error: RemoteProtocolError) -> str:
    """An error's detail and place."""
    return error.detail if error.offset is None else f"{error.detail} at byte {error.offset}"
