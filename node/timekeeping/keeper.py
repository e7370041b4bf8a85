"""
Keeps the gateway's clock by the administrator's time service: NTP over TLS, each poll a connection of its own.

Polls are at least a minute apart (chapter 14) and jittered, so that gateways that were switched on together do not come
together.  An answer that is to be ignored costs itself: the clock runs free, the next poll comes earlier, and a metric
and a line say what was wrong.  With each poll it is seen whether what is measured may be billed, and every change of
that is told: a clock that runs free for too long deviates by more than PTB-A 50.8 allows without any answer saying so.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Final

import trio

from node.timekeeping.clock import Deviation, GatewayClock
from protocol.errors import RemoteProtocolError
from protocol.ntp import PACKET_SIZE, ROUND_TRIP_MAX_US, Sample, build_request, read_response

log = logging.getLogger(__name__)
POLL_MIN_S: Final = 60.0
_CONNECT_S: Final = 20.0
_ANSWER_S: Final = ROUND_TRIP_MAX_US / 1_000_000


@dataclass(frozen=True, slots=True)
class TimeServer:
    """Where it is, and the context that authenticates both sides."""

    host: str
    port: int
    context: ssl.SSLContext


@dataclass(slots=True)
class TimeKeeper:
    """
    One process's clock; `random_bits` is for cookies, `rng` for jitter alone.

    `listeners` are called with what each answer did to the clock, `billing_listeners` with whether what is measured may
    be billed, where that has changed; `outcome` with `taken`, or with the reason of an
    answer, or of a connection, that was none.
    """

    clock: GatewayClock
    server: TimeServer
    poll_s: float
    random_bits: Callable[[int], int]
    rng: Random
    outcome: Callable[[str], None]
    listeners: list[Callable[[Deviation], None]] = field(default_factory=list)
    billing_listeners: list[Callable[[bool], None]] = field(default_factory=list)
    _is_reported: bool = False
    _last: Deviation | None = None
    _was_for_billing: bool | None = None  # None: before the first poll

    def is_for_billing(self) -> bool:
        """Whether what is measured now may be billed."""
        return self.clock.is_for_billing

    @contextmanager
    def listening(
        self, listener: Callable[[Deviation], None], on_billing: Callable[[bool], None] = lambda _: None
    ) -> Iterator[None]:
        """Call both with what was last, where it is worth telling, and with what comes until the block is left."""
        self.listeners.append(listener)
        self.billing_listeners.append(on_billing)
        if self._last is not None:
            listener(self._last)
        if self._was_for_billing is False:
            on_billing(False)
        try:
            yield
        finally:
            self.listeners.remove(listener)
            self.billing_listeners.remove(on_billing)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Poll until cancelled; reports the end of the first poll, whatever came of it."""
        taken = await self.poll()
        task_status.started()
        while True:
            pause_s = self.poll_s if taken else POLL_MIN_S
            await trio.sleep(max(POLL_MIN_S, pause_s * self.rng.uniform(0.9, 1.1)))
            taken = await self.poll()

    async def poll(self) -> bool:
        """Ask once and correct the clock; False where no answer came that may be used."""
        is_taken = await self._poll()
        was, self._was_for_billing = self._was_for_billing, self.is_for_billing()
        if self._was_for_billing is not (was is None or was):  # before the first poll nothing was suspended
            for listener in self.billing_listeners:
                listener(self._was_for_billing)
        return is_taken

    async def _poll(self) -> bool:
        try:
            sample = await self._ask()
        except RemoteProtocolError as error:
            self._refuse(error.reason, error.detail)
        except (OSError, trio.BrokenResourceError) as error:
            self._refuse("ntp_no_connection", type(error.__cause__ or error).__name__)
        except trio.TooSlowError:
            self._refuse("ntp_no_answer", "the time service does not answer")
        else:
            self._is_reported = False
            self.outcome("taken")
            deviation = self._last = self.clock.correct(sample)
            for listener in self.listeners:
                listener(deviation)
            return True
        return False

    def _refuse(self, reason: str, detail: str) -> None:
        self.outcome(reason)
        if not self._is_reported:  # once until an answer comes again
            log.warning("time service %s:%d: %s: %s", self.server.host, self.server.port, reason, detail)
            self._is_reported = True

    async def _ask(self) -> Sample:
        server = self.server
        with trio.fail_after(_CONNECT_S):
            stream = await trio.open_ssl_over_tcp_stream(
                server.host, server.port, ssl_context=server.context, https_compatible=True
            )
        async with _closed_at_once(stream):
            with trio.fail_after(_CONNECT_S):
                await stream.do_handshake()
            cookie = self.random_bits(64)
            sent_us = self.clock.now_us()
            with trio.fail_after(_ANSWER_S + 1):
                await stream.send_all(build_request(cookie))
                answer = await _receive_exactly(stream, PACKET_SIZE)
            received_us = self.clock.now_us()
        return read_response(
            answer, cookie, sent_us, received_us, is_synchronised=self.clock.is_synchronised
        )  # fmt: skip


@asynccontextmanager
async def _closed_at_once(stream: trio.SSLStream[trio.SocketStream]) -> AsyncIterator[None]:
    """Close the connection at the end, without a last word that a silent server could keep waiting for."""
    try:
        yield
    finally:
        await trio.aclose_forcefully(stream)


async def _receive_exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    """So many octets, or fewer where the stream ends before."""
    received = b""
    while len(received) < size:
        more = await stream.receive_some(size - len(received))
        if not more:
            break
        received += more
    return received
