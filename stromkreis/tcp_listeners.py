"""Where a command of this package listens, and what it says where it cannot."""

from __future__ import annotations

import trio

from protocol.errors import StromkreisError


async def listen_at(option: str, host: str, port: int) -> tuple[list[trio.SocketListener], int]:
    """
    Listeners of an address that a command's `option` names, and their port; 0 lets the system choose.

    Raises StromkreisError where the address is taken or none of this machine's.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise StromkreisError(f"{option}: cannot listen on {host}:{port} ({error.strerror or error})") from error
    return listeners, listeners[0].socket.getsockname()[1]
