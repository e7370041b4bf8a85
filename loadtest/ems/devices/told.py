"""What a device's program and the scenario that has started it say to each other: lines of JSON, and an end."""

from __future__ import annotations

import asyncio
import json
import sys
import time


def tell(event: str, **what: object) -> None:
    """One event with the moment at which it happened (Unix, s)."""
    sys.stdout.write(json.dumps({"event": event, "at_s": time.time(), **what}) + "\n")
    sys.stdout.flush()


async def standard_input() -> asyncio.StreamReader:
    """It ends with the scenario, also where that was killed, and the program shall end with it."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader
