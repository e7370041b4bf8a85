"""
`hostile_systems.py PORT SECONDS` is devices at home that mean no good to the gateway's proxy on loopback.

They connect and say nothing, offer other methods, begin TLS without end, flood with frames, and show certificates that
nobody knows.
"""

from __future__ import annotations

import sys
from functools import cache

import trio

from node.cls.stream import SocksTlsStream
from protocol.socks_tls import SocksTlsClient
from tests.integration.hostile_home import play
from tests.unit.socks_tls_pair import client_side

_SENT = (b"", b"\x05\x02\x00\x06", b"\x05\x01\x06\x01\x01\xff\xff", b"\x05\x01\x06" + b"\x01\x03\x40\x00" * 4_096)


_unknown = cache(client_side)  # a certificate of nobody's


async def _attack(transport: trio.SocketStream, turn: int) -> None:
    if turn:
        await transport.send_all(_SENT[turn - 1])
        return
    stream = SocksTlsStream(transport, SocksTlsClient(_unknown()))
    await stream.flush()
    await stream.receive_some()


if __name__ == "__main__":
    trio.run(play, int(sys.argv[1]), float(sys.argv[2]), _attack)
