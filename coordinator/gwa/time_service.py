"""
The administrator's time service: NTP messages over TLS (BSI TR-03109-1 detail specification 2.0, chapter 14).

Clients show a certificate of the SM-PKI.  A connection may ask more than once; one that says nothing for
`_IDLE_S` is closed, and so many are open at once at most that they cost a bounded number of descriptors.

Whether the time is right says the kernel's own record of its synchronisation (`adjtimex`); where it has none, answers
carry the warning that makes gateways ignore them, unless the operator vouches for the machine's clock.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from time import time_ns
from typing import Final

import trio

from protocol.errors import RemoteProtocolError
from protocol.link.kernel_clock import kernel_clock
from protocol.log_limit import PEER_LINE_S, LogLimiter
from protocol.ntp import PACKET_SIZE, ServerState, answer_request

log = logging.getLogger(__name__)
_IDLE_S: Final = 30.0
_HANDSHAKE_S: Final = 10.0
_CONNECTIONS_MAX: Final = 512
_STRATUM: Final = 3  # adjtimex does not tell the source's: one behind an ordinary server of stratum 2


def kernel_state() -> ServerState:
    """The machine's clock as the kernel's record of its synchronisation has it (Linux)."""
    clock = kernel_clock()
    return ServerState(
        clock.is_synchronised, _STRATUM, b"NTP\0", root_dispersion_us=clock.error_us_max,
        reference_us=time_ns() // 1000,
    )  # fmt: skip


def vouched_state() -> ServerState:
    """The machine's clock where the operator vouches for it."""
    return ServerState(is_synchronised=True, stratum=_STRATUM, reference_id=b"LOCL", reference_us=time_ns() // 1000)


class TimeService:
    """Answers requests; `answered` is called for each with its outcome: `answered` or a reason."""

    def __init__(self, state: Callable[[], ServerState], answered: Callable[[str], None]) -> None:
        self._state = state
        self._answered = answered
        self._lines = LogLimiter(PEER_LINE_S, trio.current_time)
        self._open = 0

    async def serve(
        self, host: str, port: int, context: ssl.SSLContext, *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:  # fmt: skip
        """Listen until cancelled; reports the port.  Raises OSError where it cannot."""
        listeners = await trio.open_tcp_listeners(port, host=host)
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(trio.serve_listeners, self._connected(context), listeners))
            task_status.started(int(listeners[0].socket.getsockname()[1]))

    def _connected(self, context: ssl.SSLContext) -> Callable[[trio.SocketStream], Awaitable[None]]:
        async def connected(plain: trio.SocketStream) -> None:
            if self._open >= _CONNECTIONS_MAX:
                self._answered("too_many_connections")
                await trio.aclose_forcefully(plain)
                return
            self._open += 1
            try:
                await self._serve(trio.SSLStream(plain, context, server_side=True, https_compatible=True))
            finally:
                self._open -= 1
                await trio.aclose_forcefully(plain)

        return connected

    async def _serve(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            with trio.fail_after(_HANDSHAKE_S):
                await stream.do_handshake()
            while await self._one(stream):
                pass
        except trio.TooSlowError:
            self._answered("timeout")
        except trio.BrokenResourceError as error:  # a failed handshake, a reset
            self._answered("connection")
            if self._lines.is_due("connection"):
                log.warning("time service: a connection failed: %s", type(error.__cause__ or error).__name__)
        except RemoteProtocolError as error:
            self._answered(error.reason)
            if self._lines.is_due(error.reason):
                log.warning("time service: %s", error)

    async def _one(self, stream: trio.SSLStream[trio.SocketStream]) -> bool:
        """Answer one request; False where the client has closed.  Raises RemoteProtocolError: nothing is answered."""
        request = b""
        with trio.fail_after(_IDLE_S):
            while len(request) < PACKET_SIZE:
                more = await stream.receive_some(PACKET_SIZE - len(request))
                if not more:
                    return False
                request += more
        received_us = time_ns() // 1000
        answer = answer_request(request, self._state(), received_us, time_ns() // 1000)
        with trio.fail_after(_IDLE_S):
            await stream.send_all(answer)
        self._answered("answered")
        return True
