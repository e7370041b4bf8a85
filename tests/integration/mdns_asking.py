"""`mdns_asking.py INTERFACE NAME...` prints the addresses of hosts, and port and addresses of other names' services."""

from __future__ import annotations

import sys
from random import Random

import trio

from node.mdns.lookup import Lookup, NotFoundError


async def main(*arguments: str) -> None:
    """Ask for each until it is found: nothing here says when avahi has probed for what it publishes."""
    interface, *names = arguments
    lookup = Lookup([interface], Random())
    for name in names:
        while True:
            try:
                if name.endswith(".local"):
                    found = await lookup.addresses(name)
                else:
                    port, found = await lookup.service(name, "_socks._tcp")
                    found = [str(port), *found]
                break
            except NotFoundError:
                continue
        print(name.replace(" ", "_"), *found)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
