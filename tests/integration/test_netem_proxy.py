"""The back end `proxy` over real sockets: every byte, cuts, resets, ends, bounds, and its command."""

import hashlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from loadtest.ports import free_port
from netem import selfcheck
from netem.emulation import Backend
from netem.errors import InvalidDataError
from netem.network import Network
from netem.profiles import Direction, LinkProfile
from netem.proxy import ProxyEmulation, emulate
from netem.scenario import LinkState

ROOT = Path(__file__).parents[2]
LATE_S = 0.08
"""This process and the relays in it wait for their turn on a machine that others load."""

Handler = Callable[[trio.SocketStream], Awaitable[None]]


def profile(up: Direction | None = None, down: Direction | None = None) -> LinkProfile:
    return LinkProfile(name="test", title="test", up=up or Direction(), down=down or Direction())


def state_of(here: LinkProfile, **more: object) -> dict[str, LinkState]:
    return {"here": LinkState(here, **more), "coordinator": LinkState(profile())}  # type: ignore[arg-type]


async def echo(stream: trio.SocketStream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)
    await stream.send_eof()


@asynccontextmanager
async def relayed(
    here: LinkProfile, handler: Handler = echo, *, when_cut: str = "stall", lines: int = 1
) -> AsyncIterator[tuple[ProxyEmulation, tuple[str, int]]]:
    async with trio.open_nursery() as nursery:

        async def serve(stream: trio.SocketStream) -> None:
            with suppress(trio.BrokenResourceError):  # the relay has reset it: what many of these tests are about
                await handler(stream)

        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        target = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        relay = {"source": "here", "listen": "127.0.0.1:0", "target": target, "when_cut": when_cut}
        network = Network.model_validate(
            {"endpoints": [{"name": "coordinator"}, {"name": "here", "lines": lines}], "relays": [relay]}
        )
        async with emulate(network, state_of(here), rng=Random(1)) as emulation:
            (address,) = emulation.addresses.values()
            yield emulation, (address.host, address.port)
        nursery.cancel_scope.cancel()


async def ask(stream: trio.SocketStream, text: bytes = b"ask") -> float:
    started_s = trio.current_time()
    await stream.send_all(text)
    got = b""
    while len(got) < len(text):
        chunk = await stream.receive_some(100)
        assert chunk, "the connection ended"
        got += chunk
    assert got == text
    return trio.current_time() - started_s


async def test_every_byte_comes_back_through_a_bad_line() -> None:
    bad = profile(
        Direction(delay_s=0.03, jitter_s=0.02, loss=0.02, rate_bit_s=20_000_000),
        Direction(delay_s=0.03, jitter_s=0.02, loss=0.02, rate_bit_s=20_000_000),
    )
    data, got = Random(1).randbytes(1_000_000), bytearray()
    async with relayed(bad) as (emulation, address):
        async with await trio.open_tcp_stream(*address) as stream, trio.open_nursery() as nursery:

            async def take() -> None:
                async for chunk in stream:
                    got.extend(chunk)

            nursery.start_soon(take)
            with trio.fail_after(120):
                await stream.send_all(data)
                await stream.send_eof()
        counters = emulation.counters()
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
    assert counters["relayed_bytes"] == 2 * len(data)
    assert counters["retransmissions"] > 0
    assert counters["reset_connections"] == 0


async def test_answers_take_a_round_trip_and_the_first_one_a_handshake_more() -> None:
    slow = profile(Direction(delay_s=0.1), Direction(delay_s=0.05))
    async with relayed(slow) as (_, address), await trio.open_tcp_stream(*address) as stream:
        assert 0.3 <= await ask(stream) <= 0.3 + 2 * LATE_S
        for _ in range(3):
            assert 0.15 <= await ask(stream) <= 0.15 + LATE_S


async def test_a_stalled_path_keeps_the_connection_and_goes_on_after_healing() -> None:
    async with relayed(profile()) as (emulation, address), await trio.open_tcp_stream(*address) as stream:
        await ask(stream)
        await emulation.apply(state_of(profile(), is_up=False))
        await stream.send_all(b"held")
        with trio.move_on_after(0.3) as waited:
            await stream.receive_some(10)
        assert waited.cancelled_caught
        async with await trio.open_tcp_stream(*address) as late:
            await late.send_all(b"late")
            await emulation.apply(state_of(profile()))
            with trio.fail_after(120):
                assert await stream.receive_some(10) == b"held"
                assert await late.receive_some(10) == b"late"


async def test_a_cut_resets_connections_where_the_relay_is_told_to() -> None:
    async with relayed(profile(), when_cut="reset") as (emulation, address):
        async with await trio.open_tcp_stream(*address) as stream:
            await ask(stream)
            await emulation.apply(state_of(profile(), is_up=False))
            with trio.fail_after(120), pytest.raises(trio.BrokenResourceError):
                await stream.receive_some(10)
        async with await trio.open_tcp_stream(*address) as refused:
            with trio.fail_after(120), pytest.raises(trio.BrokenResourceError):
                await ask(refused)
        await emulation.apply(state_of(profile()))
        async with await trio.open_tcp_stream(*address) as again:
            await ask(again)
        assert emulation.counters()["reset_connections"] == 1
        assert emulation.counters()["refused_connections"] == 1


async def test_a_partition_cuts_the_path_between_groups() -> None:
    async with relayed(profile()) as (emulation, address), await trio.open_tcp_stream(*address) as stream:
        await emulation.apply(state_of(profile(), group=1))
        await stream.send_all(b"apart")
        with trio.move_on_after(0.3) as waited:
            await stream.receive_some(10)
        assert waited.cancelled_caught
        both = {name: LinkState(profile(), group=1) for name in ("here", "coordinator")}
        await emulation.apply(both)
        with trio.fail_after(120):
            assert await stream.receive_some(10) == b"apart"


async def test_a_reset_of_one_side_reaches_the_other() -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await stream.aclose()

    async with relayed(profile(), hang_up) as (_, address), await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(b"x")
        with trio.fail_after(120), pytest.raises(trio.BrokenResourceError):
            await stream.receive_some(10)


class NoNames(trio.abc.HostnameResolver):
    async def getaddrinfo(self, *_: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "name not known")

    async def getnameinfo(self, *_: object) -> tuple[str, str]:
        raise NotImplementedError


@pytest.mark.parametrize("target", ["127.0.0.1", "nowhere.invalid"])
async def test_a_target_out_of_reach_costs_connections_and_one_line(
    target: str, caplog: pytest.LogCaptureFixture
) -> None:
    trio.socket.set_custom_hostname_resolver(NoNames())
    relay = {"source": "here", "listen": "127.0.0.1:0", "target": f"{target}:{free_port()}"}
    network = Network.model_validate({"endpoints": [{"name": "coordinator"}, {"name": "here"}], "relays": [relay]})
    async with emulate(network, state_of(profile()), rng=Random(1)) as emulation:
        (address,) = emulation.addresses.values()
        for _ in range(3):
            async with await trio.open_tcp_stream(address.host, address.port) as stream:
                with trio.fail_after(120), pytest.raises(trio.BrokenResourceError):
                    assert await stream.receive_some(10) != b""
        assert emulation.counters()["refused_connections"] == 3
    (line,) = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert "connections are reset" in line
    assert relay["target"] in line


async def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        relay = {"source": "here", "listen": listen, "target": "127.0.0.1:1"}
        network = Network.model_validate({"endpoints": [{"name": "coordinator"}, {"name": "here"}], "relays": [relay]})
        with pytest.RaisesGroup(pytest.RaisesExc(InvalidDataError, match=f"{listen} is taken")):
            async with emulate(network, state_of(profile()), rng=Random(1)):
                pass


@pytest.mark.parametrize(("lines", "seconds"), [(1, 4.0), (2, 2.0)])
async def test_connections_share_a_line_or_have_one_each(lines: int, seconds: float) -> None:
    # 121 kB on the line for each of two connections at 484 kbit/s: 2 s, or 4 s where they share it.
    narrow = profile(Direction(rate_bit_s=484_480, queue_s=0.1))
    size = 80 * 1_448
    ended_s: list[float] = []

    async def swallow(stream: trio.SocketStream) -> None:
        async for _ in stream:
            pass
        ended_s.append(trio.current_time())

    async with relayed(narrow, swallow, lines=lines) as (_, address):
        started_s = trio.current_time()

        async def send() -> None:
            async with await trio.open_tcp_stream(*address) as stream:
                await stream.send_all(bytes(size))
                await stream.send_eof()
                await stream.receive_some(1)

        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                nursery.start_soon(send)
    assert seconds * 0.97 <= max(ended_s) - started_s <= seconds * 1.15 + LATE_S


async def test_a_reader_that_stops_stops_the_sender() -> None:
    async def never_reads(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    sent = 0
    fast = profile(Direction(delay_s=0.05, rate_bit_s=8_000_000, queue_s=0.1))
    async with relayed(fast, never_reads) as (emulation, address), await trio.open_tcp_stream(*address) as stream:
        with trio.move_on_after(3):
            while True:
                await stream.send_all(bytes(10_000))
                sent += 10_000
        assert emulation.counters()["relayed_bytes"] <= sent
    # The lines hold 1.2 MB; the rest is the kernel's own buffers of the two ends, up to 6 MB each by default.
    assert sent < 20_000_000


async def test_the_self_check_finds_a_profile_to_do_what_it_says() -> None:
    asked = profile(
        Direction(delay_s=0.04, jitter_s=0.004, loss=0.2),
        Direction(delay_s=0.04, jitter_s=0.004, rate_bit_s=8_000_000),
    )
    (found,) = await selfcheck.check(Backend.PROXY, [asked], duration_s=2, rng=Random(1))
    assert 0.077 <= found.round_trip_s.measured <= 0.08 + LATE_S
    assert found.loss.is_right
    assert found.loss.measured > 0.03
    assert found.rate_up_bit_s is None
    assert found.rate_down_bit_s is not None
    assert 5_000_000 <= found.rate_down_bit_s.measured <= 9_000_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_relays_until_a_signal_and_reports(tmp_path: Path, number: int) -> None:
    report = tmp_path / "report.json"
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = f"127.0.0.1:{server.getsockname()[1]}"
        command = [
            sys.executable, "-m", "stromkreis", "netem", "run", "--backend", "proxy", "--profile", "lte",
            "--relay", f"127.0.0.1:0={target}", "--report", str(report),
        ]  # fmt: skip
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                line = process.stderr.readline()
                assert line.startswith("up on proxy: here 127.0.0.1:"), line
                port = int(line.rpartition(":")[2])
                with socket.create_connection(("127.0.0.1", port)) as client:
                    client.sendall(b"through")
                    accepted, _ = server.accept()
                    with accepted:
                        accepted.settimeout(20)
                        assert accepted.recv(100) == b"through"
                        process.send_signal(number)
                        _, told = process.communicate(timeout=30)
            finally:
                process.kill()  # else a failed assertion would wait for it for ever
    assert process.returncode == 0
    assert "removed; connections 1" in told
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["counters"]["relayed_bytes"] == 7
    assert found["backend"] == "proxy"
