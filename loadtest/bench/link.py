"""
What a link costs: round trips a second and latency in one process, memory and CPU per connection at either end.

Memory is measured between two processes, the listening and the calling one, as the growth of their resident sets, after
the handshakes and again after messages have gone both ways over every connection (libzmq touches its queues' memory
as messages pass).

    python -m loadtest.bench.link [--connections 2000] [--messages 300]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time

import trio

from protocol.link import Keypair, LinkContext

Numbers = dict[str, float]
PAYLOAD = bytes(200)


async def round_trips(clients: int, total: int) -> Numbers:
    """Return round trips per second, median and 95th percentile in ms, of `clients` peers that ping at once."""
    server = Keypair.generate()
    latencies_s: list[float] = []
    async with LinkContext() as links:
        listener = links.listen("tcp://127.0.0.1:*", server, bytes)

        async def echo() -> None:
            while True:
                listener.send(*await listener.receive())

        async def ping() -> None:
            connection = links.connect(listener.endpoint, server.public, Keypair.generate())
            await connection.send(PAYLOAD)
            await connection.receive()
            ready.append(None)
            await start.wait()
            for _ in range(total // clients):
                began_s = time.perf_counter()
                await connection.send(PAYLOAD)
                await connection.receive()
                latencies_s.append(time.perf_counter() - began_s)

        ready: list[None] = []
        start = trio.Event()
        async with trio.open_nursery() as background:
            background.start_soon(echo)
            async with trio.open_nursery() as nursery:
                for _ in range(clients):
                    nursery.start_soon(ping)
                while len(ready) < clients:
                    await trio.sleep(0.01)
                began_s = time.perf_counter()
                start.set()
            took_s = time.perf_counter() - began_s
            background.cancel_scope.cancel()
    latencies_s.sort()
    return {
        "per_s": len(latencies_s) / took_s,
        "ms_p50": 1000 * latencies_s[len(latencies_s) // 2],
        "ms_p95": 1000 * latencies_s[len(latencies_s) * 95 // 100],
    }


def resident_kb() -> float:
    """Return this process's resident set in KB (Linux)."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


def cpu_s() -> float:
    """Return the CPU time of this process, its I/O threads included."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def call(endpoint: str, server_public: bytes, connections: int, messages: int) -> Numbers:
    """Be the calling process: connect, then ping `messages` times over every connection."""
    keys = [Keypair.generate() for _ in range(connections)]
    numbers: Numbers = {}
    async with LinkContext(max_sockets=connections + 10) as links:
        before_kb = resident_kb()
        calls = [links.connect(endpoint, server_public, pair) for pair in keys]

        async def everywhere(times: int) -> float:
            began_s = time.perf_counter()

            async def pings(number: int) -> None:
                for _ in range(times):
                    await calls[number].send(PAYLOAD)
                    await calls[number].receive()

            async with trio.open_nursery() as nursery:
                for number in range(connections):
                    nursery.start_soon(pings, number)
            return time.perf_counter() - began_s

        numbers["connect_s"] = await everywhere(1)
        numbers["caller_kb_idle"] = (resident_kb() - before_kb) / connections
        began_cpu_s = cpu_s()
        numbers["ping_s"] = await everywhere(messages)
        numbers["caller_kb_used"] = (resident_kb() - before_kb) / connections
        numbers["caller_us_per_ping"] = 1e6 * (cpu_s() - began_cpu_s) / (connections * messages)
    return numbers


async def footprint(connections: int, messages: int) -> Numbers:
    """Be the listening process, start the calling one; return KB per connection and µs of CPU per ping of both."""
    server = Keypair.generate()
    numbers: Numbers = {}
    async with LinkContext() as links:
        listener = links.listen("tcp://127.0.0.1:*", server, bytes)
        before_kb = resident_kb()
        began_cpu_s = 0.0

        async def echo() -> None:
            nonlocal began_cpu_s
            while True:
                listener.send(*await listener.receive())
                if listener.counters.messages_received == connections:
                    numbers["listener_kb_idle"] = (resident_kb() - before_kb) / connections
                    began_cpu_s = cpu_s()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo)
            arguments = ["--call", listener.endpoint, server.public.hex()]
            sizes = ["--connections", str(connections), "--messages", str(messages)]
            process = await trio.run_process(
                [sys.executable, "-m", "loadtest.bench.link", *arguments, *sizes], capture_stdout=True
            )
            numbers["listener_kb_used"] = (resident_kb() - before_kb) / connections
            numbers["listener_us_per_ping"] = 1e6 * (cpu_s() - began_cpu_s) / (connections * messages)
            nursery.cancel_scope.cancel()
    of_the_caller: Numbers = json.loads(process.stdout)
    return numbers | of_the_caller


def main() -> None:
    """Run all and print one JSON object."""
    parser = argparse.ArgumentParser(description="What a link costs.")
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--messages", type=int, default=300, help="pings over every connection")
    parser.add_argument("--call", nargs=2, metavar=("ENDPOINT", "KEY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        endpoint, key = options.call
        print(json.dumps(trio.run(call, endpoint, bytes.fromhex(key), options.connections, options.messages)))
        return
    result = {
        "one_client": trio.run(round_trips, 1, 10_000),
        "fifty_clients": trio.run(round_trips, 50, 40_000),
        "footprint": trio.run(footprint, options.connections, options.messages),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
