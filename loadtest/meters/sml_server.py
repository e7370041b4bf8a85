"""
Simulated SML meters behind a TCP port.

Any number of them share a port, like meters on one bus: a request names its meter by server id, one without goes to
the first; what they push goes to every connection.  A port per meter is `serve` with a list of one.  A thousand meters
are a thousand small objects and as many sockets as gateways connect, nothing more.

A connection that breaks, or asks for a frame beyond the bound, costs itself only.  Cancelling `serve` closes them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

import trio

from loadtest.meters.sml import Meter, by_server_id
from node.lmn.sml.bodies import OpenRequest
from node.lmn.sml.messages import decode_file
from node.lmn.sml.transport import Frame, TransportReader
from protocol.errors import RemoteProtocolError

Now = Callable[[], datetime]

_REQUEST_SIZE_MAX = 16_384
_BACKLOG = 4096  # thousands of gateways connect within one second of a load test


async def serve(
    meters: Sequence[Meter],
    now: Now,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """
    Serve `meters` until cancelled; the port is reported through `nursery.start`.

    `now` is the simulated (aware) time, asked for each frame; intervals of pushing run by trio's clock.
    """
    listeners = await trio.open_tcp_listeners(port, host=host, backlog=_BACKLOG)
    handler = partial(serve_stream, meters, now)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_listeners, handler, listeners))
        task_status.started(listeners[0].socket.getsockname()[1])


async def serve_stream(meters: Sequence[Meter], now: Now, stream: trio.abc.Stream) -> None:
    """Be the meters on one connection or line, until it ends."""
    bus, first = by_server_id(meters), meters[0]
    lock = trio.Lock()
    async with stream:
        try:
            async with trio.open_nursery() as nursery:
                for meter in {id(meter): meter for meter in (first, *bus.values())}.values():
                    if meter.push_interval_s is not None:
                        nursery.start_soon(_push, meter, meter.push_interval_s, now, stream, lock)
                await _answer(meters, now, stream, lock)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


async def _push(meter: Meter, interval_s: float, now: Now, stream: trio.abc.Stream, lock: trio.Lock) -> None:
    due = trio.current_time()
    while True:
        async with lock:
            await stream.send_all(meter.push(now()))
        due = max(due + interval_s, trio.current_time())
        await trio.sleep_until(due)


async def _answer(meters: Sequence[Meter], now: Now, stream: trio.abc.Stream, lock: trio.Lock) -> None:
    reader = TransportReader(_REQUEST_SIZE_MAX)
    async for data in stream:
        for item in reader.feed(data):
            if not isinstance(item, Frame):
                continue
            try:
                messages = decode_file(item.payload)
            except RemoteProtocolError:
                continue
            wanted = next((m.body.server_id for m in messages if isinstance(m.body, OpenRequest)), None)
            # Looked up each time: what a meter calls itself changes when it is exchanged.
            meter = meters[0] if wanted is None else by_server_id(meters).get(wanted)
            frame = meter.respond(messages, now()) if meter is not None else None
            if frame is not None:
                async with lock:
                    await stream.send_all(frame)
