"""
`hostile_home.py PORT SECONDS` is devices at home that mean no good to the gateway's server on loopback.

They connect and say nothing, send half a header, pipeline requests without reading, and guess passwords.
"""

from __future__ import annotations

import ssl
import sys

import trio

DEVICES = 16
_GUESS = (
    b'GET /smgw/ HTTP/1.1\r\nHost: x\r\nAuthorization: Digest username="anna", realm="x", nonce="x",'
    b' uri="/smgw/", qop=auth, nc=00000001, cnonce="x", response="00"\r\n\r\n'
)
_SENT = (b"", b"GET /smgw/ HTTP/1.1\r\nX-Slow: ", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 200, _GUESS)


async def device(port: int, number: int) -> None:
    """One device, which goes on whatever becomes of its connections."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for turn in range(number, sys.maxsize):
        try:
            with trio.move_on_after(2):
                plain = await trio.open_tcp_stream("127.0.0.1", port)
                async with plain:
                    if turn % 5:
                        stream = trio.SSLStream(plain, context)
                        await stream.do_handshake()
                        await stream.send_all(_SENT[turn % 5 - 1])
                    await trio.sleep(0.3)
        except (OSError, trio.BrokenResourceError, ssl.SSLError):
            await trio.sleep(0.02)


async def main(port: int, seconds: float) -> None:
    """All devices, for so long."""
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for number in range(DEVICES):
                nursery.start_soon(device, port, number)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), float(sys.argv[2]))
