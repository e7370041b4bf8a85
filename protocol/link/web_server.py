"""
Web servers on anycorn and trio, where the fault of one connection costs that connection and nothing else.

anycorn runs all connections in one nursery and lets some of their errors out of it, and with them the whole process:

- a TLS record that does not authenticate, after the handshake, is an `ssl.SSLError` that it does not expect;
- a TLS 1.3 key update that asks for one in return makes the reading side write while the writing side waits for a
  client that does not read: `anyio.BusyResourceError`;
- no descriptor left for the next connection is an error of the listener, which ends it.

Anybody who reaches the port can cause each of them.  anycorn has no hook for a connection's handler and anyio none for
its listener, so both are wrapped here, once a process.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anycorn
import anycorn.run
import anyio
import trio
from anyio._backends._trio import TCPSocketListener

from protocol.log_limit import PEER_LINE_S, LogLimiter

log = logging.getLogger(__name__)
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED})
_EXHAUSTED_S = 0.1  # until the next try: connections end meanwhile

_server: Any = anycorn.run  # neither module exports what is wrapped
_listener: Any = TCPSocketListener
_handler_of = _server.tcp_server_handler
_accept = TCPSocketListener.accept


_lines = LogLimiter(PEER_LINE_S, trio.current_time)


def _report(text: str) -> None:
    if _lines.is_due(text):
        log.warning(text)


def _contained(*arguments: Any) -> Callable[[Any], Awaitable[None]]:
    handle = _handler_of(*arguments)

    async def connection(stream: Any) -> None:
        try:
            await handle(stream)
        except* Exception as group:  # noqa: BLE001 - whatever it is, it is this connection's; a cancellation passes
            fault: BaseException = group
            while isinstance(fault, BaseExceptionGroup):
                fault = fault.exceptions[0]
            _report(f"a web connection ended by an error ({type(fault).__name__})")

    return connection


async def _patient_accept(listener: TCPSocketListener) -> Any:
    while True:
        try:
            return await _accept(listener)
        except anyio.BrokenResourceError as error:
            if getattr(error.__cause__, "errno", None) not in _EXHAUSTED:
                raise
            _report("a web connection is not accepted: no descriptor is left; raise the limit of open files")
            await trio.sleep(_EXHAUSTED_S)


async def serve_asgi(app: Any, config: anycorn.Config, task_status: Any) -> None:
    """
    Serve an ASGI application until cancelled; `task_status` gets the addresses bound, as anycorn has them.

    Raises what `config.create_sockets` raises.
    """
    _server.tcp_server_handler = _contained
    _listener.accept = _patient_accept
    await anycorn.serve(app, config, mode="asgi", task_status=task_status)
