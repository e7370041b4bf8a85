"""
Reads meters over a trio stream: asked (modes A to C) or listened to (mode D and P1).

The reception time is the arrival of the answer's first character, taken before anything is decoded: at 300 baud a
readout lasts a minute, and the 500 ms that TR-03109-1 allows (REQ.TLSHDLC.SMGW.50) count from there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

import trio

from node.lmn.iec62056_21.client import Done, Instruction, ReadoutClient, Send, SetBaudrate
from node.lmn.iec62056_21.framing import Readout, ReadoutReader
from node.lmn.iec62056_21.readings import Interpretation, readings_of
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading

_RECEIVE_SIZE = 4096


@runtime_checkable
class SpeedLink(Protocol):
    """What a link offers whose speed can be changed, once everything written has left."""

    async def set_baudrate(self, baudrate: int) -> None:
        """Change the speed after the output is drained."""
