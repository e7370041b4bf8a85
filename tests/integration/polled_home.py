"""`polled_home.py FOLDER PERIOD_S` serves a home: prints its address, then its state every PERIOD_S, as JSON lines."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import trio

from tests.integration.han_home import ANNA, BEN, Home, consumer

_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


async def main(*arguments: str) -> None:
    """Serve until killed."""
    folder, period_s = arguments
    home = Home(Path(folder), (consumer(*ANNA, 0), consumer(*BEN, 1)))
    async with home.serving(days=1):
        print(json.dumps({"address": home.address}), flush=True)
        assert home.server is not None
        while True:
            await trio.sleep(float(period_s))
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_SIZE
            state = {
                "sessions": home.server.sessions.count, "files": len(os.listdir("/proc/self/fd")), "bytes": resident,
            }  # fmt: skip
            print(json.dumps(state), flush=True)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
