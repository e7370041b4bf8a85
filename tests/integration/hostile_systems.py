"""
`hostile_systems.py PORT SECONDS` is devices at home that mean no good to the gateway's proxy on loopback.

They connect and say nothing, offer other methods, begin TLS without end, flood with frames, and show certificates that
nobody knows.
"""

from __future__ import annotations

import sys

import trio

from node.cls.stream import SocksTlsStream
from protocol.errors import RemoteProtocolError
from protocol.socks_tls import SocksTlsClient
from tests.unit.socks_tls_pair import client_side

DEVICES = 16
_SENT = (b"", b"\x05\x02\x00\x06", b"\x05\x01\x06\x01\x01\xff\xff", b"\x05\x01\x06" + b"\x01\x03\x40\x00" * 4_096)


async def device(port: int, number: int) -> None:
    """One device, which goes on whatever becomes of its connections."""
    context = client_side()
    for turn in range(number, sys.maxsize):
        try:
            with trio.move_on_after(2):
                transport = await trio.open_tcp_stream("127.0.0.1", port)
                async with transport:
                    if turn % 5:
                        await transport.send_all(_SENT[turn % 5 - 1])
                    else:
                        stream = SocksTlsStream(transport, SocksTlsClient(context))
                        await stream.flush()
                        await stream.receive_some()
                    await trio.sleep(0.3)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, RemoteProtocolError):
            await trio.sleep(0.02)


async def main(port: int, seconds: float) -> None:
    """All devices, for so long."""
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for number in range(DEVICES):
                nursery.start_soon(device, port, number)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), float(sys.argv[2]))
