"""
`hostile_home.py PORT SECONDS` is devices at home that mean no good to the gateway's server on loopback.

They connect and say nothing, send half a header, pipeline requests without reading, and guess passwords.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Awaitable, Callable
from functools import cache

import trio

from protocol.errors import RemoteProtocolError

Attack = Callable[[trio.SocketStream, int], Awaitable[None]]
DEVICES = 16
_GUESS = (
    b'GET /smgw/ HTTP/1.1\r\nHost: x\r\nAuthorization: Digest username="anna", realm="x", nonce="x",'
    b' uri="/smgw/", qop=auth, nc=00000001, cnonce="x", response="00"\r\n\r\n'
)
_SENT = (b"", b"GET /smgw/ HTTP/1.1\r\nX-Slow: ", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 200, _GUESS)


@cache
def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def _attack(plain: trio.SocketStream, turn: int) -> None:
    if turn:
        stream = trio.SSLStream(plain, _context())
        await stream.do_handshake()
        await stream.send_all(_SENT[turn - 1])


async def _device(port: int, number: int, attack: Attack) -> None:
    """One device, which goes on whatever becomes of its connections."""
    for turn in range(number, sys.maxsize):
        try:
            with trio.move_on_after(2):
                plain = await trio.open_tcp_stream("127.0.0.1", port)
                async with plain:
                    await attack(plain, turn % 5)
                    await trio.sleep(0.3)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError, RemoteProtocolError):
            await trio.sleep(0.02)


async def play(port: int, seconds: float, attack: Attack) -> None:
    """All devices, for so long; `attack` has a connection and which of five turns it is."""
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for number in range(DEVICES):
                nursery.start_soon(_device, port, number, attack)


if __name__ == "__main__":
    trio.run(play, int(sys.argv[1]), float(sys.argv[2]), _attack)
