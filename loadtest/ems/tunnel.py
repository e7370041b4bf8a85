"""
What programs at home do with the tunnel: SOCKS5 to the communication adapter, and connections that are made again.

The adapter and the gateway each pause after a refusal (chapter 11), so trying again often costs nobody anything.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import trio

from protocol.errors import RemoteProtocolError
from protocol.socks_tls import Destination, Reply, messages

AGAIN_S: Final = 1.0
CHUNK_SIZE: Final = 4_096
_REPLY_S: Final = 90.0
_LINE_SIZE_MAX: Final = 4_096
_NO_AUTHENTICATION: Final = 0
BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError, RemoteProtocolError)


async def open_tunnel(adapter_port: int, name: str) -> trio.SocketStream:
    """
    A connection to the service `name` of the participant, plain SOCKS5 to the adapter.

    Raises RemoteProtocolError `refused`, `no_answer`, OSError.
    """
    stream = await trio.open_tcp_stream("127.0.0.1", adapter_port)
    try:
        with trio.fail_after(_REPLY_S):
            await stream.send_all(messages.greeting(bytes((_NO_AUTHENTICATION,))))
            await _read(stream, messages.read_selection)
            await stream.send_all(messages.request(Destination(f"{name}.emp.example", 443)))
            reply = await _read(stream, messages.read_reply)
        if reply is not Reply.SUCCEEDED:
            raise RemoteProtocolError("refused", f"REP {reply:d}, {reply.name.lower()}")
    except trio.TooSlowError:
        await trio.aclose_forcefully(stream)
        raise RemoteProtocolError("no_answer", f"no reply within {_REPLY_S:g} s") from None
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _read(stream: trio.SocketStream, reader: Callable[[bytes], tuple[Any, int] | None]) -> Any:
    heard = b""
    while (found := reader(heard)) is None:
        # One octet after the other: what follows the message belongs to the program.
        data = await stream.receive_some(1)
        if not data:
            raise RemoteProtocolError("closed", "the adapter closed before it replied")
        heard += data
    return found[0]


async def keep_open(
    adapter_port: int, name: str, serve: Callable[[trio.SocketStream], Awaitable[None]],
    failed: Callable[[str], None], opened: Callable[[float, float], None],
) -> None:  # fmt: skip
    """
    `serve` a tunnel, and another one when it has ended, until cancelled.

    `failed` hears why there is none, `opened` from when to when (Unix, s) it took to open one.
    """
    while True:
        began_s = time.time()
        try:
            stream = await open_tunnel(adapter_port, name)
            opened(began_s, time.time())
            async with stream:
                await serve(stream)
        except* BROKEN as group:  # what is served has tasks of its own
            error = _first(group)
            failed(f"tunnel: {str(error) or type(error).__name__}")
        await trio.sleep(AGAIN_S)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def pipe(one: trio.abc.Stream, other: trio.abc.Stream) -> None:
    """Pass octets on in both directions until one side ends, then close both.  A break is an end."""

    async def pump(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        try:
            while data := await source.receive_some(CHUNK_SIZE):
                await sink.send_all(data)
        except BROKEN:
            pass
        nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, one, other)
            nursery.start_soon(pump, other, one)
    finally:
        for each in (one, other):
            await trio.aclose_forcefully(each)


class Lines:
    """Messages of JSON, one a line, on a stream; several tasks may send."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._sending = trio.Lock()

    async def send(self, **message: object) -> None:
        """Send one.  Raises trio.BrokenResourceError, trio.ClosedResourceError."""
        async with self._sending:
            await self._stream.send_all(json.dumps(message).encode() + b"\n")

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        rest = b""
        while data := await self._stream.receive_some(CHUNK_SIZE):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > _LINE_SIZE_MAX:
                raise RemoteProtocolError("too_long", f"a line of over {_LINE_SIZE_MAX} octets")
            for line in lines:
                yield json.loads(line)

    async def close(self) -> None:
        """End the connection at once."""
        await trio.aclose_forcefully(self._stream)
