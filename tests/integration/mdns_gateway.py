"""`mdns_gateway.py ID INTERFACE` announces a gateway on an interface, until it is terminated."""

from __future__ import annotations

import signal
import sys
from random import Random

import trio

from node.mdns.service import MdnsService
from protocol.mdns.records import Service


async def main(*arguments: str) -> None:
    """Announce it."""
    identity, interface = arguments
    services = [Service("_https._tcp", 443, (("path", "/"),)), Service("_socks._tcp", 1_080)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(MdnsService(identity, services, [interface], Random()).run)
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            await anext(signals)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
