"""
Listens for wake-up messages of the administrator (BSI TR-03109-1, details, chapter 2): one datagram, one look.

What is cheap is looked at first: form, recipient, time window, whether it is newer than the last that was taken; only
then the signature.  Nothing is answered, so that nobody learns whether a gateway is here.  A message counts once: its
time must be later than that of the last one and than the start of the process, which holds over restarts.  Whatever is
refused is counted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

import trio
from cryptography import x509

from protocol.errors import RemoteProtocolError, StromkreisError
from protocol.log_limit import PEER_LINE_S, LogLimiter
from protocol.wakeup import SIZE_MAX, WakeUp

log = logging.getLogger(__name__)
WINDOW_S: Final = 30
"""How far a message's time may be from the gateway's: our reading, the guideline leaves the window to its profile."""
VERIFIED_A_SECOND_MAX: Final = 50


class AdministratorOf(Protocol):
    """The signature certificate of a gateway's administrator; None for a gateway that is not here."""

    def __call__(self, identity: str) -> x509.Certificate | None:
        """Raises RemoteProtocolError where the certificate is not known or does not hold."""


class WakeUpListener:
    """Of all gateways of a node; `clock` is real time (Unix, s)."""

    def __init__(
        self, administrator_of: AdministratorOf, woken: Callable[[str], None], clock: Callable[[], float],
        counted: Callable[[str], None],
    ) -> None:  # fmt: skip
        """`woken` gets the gateway of each message that was taken, `counted` what became of each."""
        self._administrator_of = administrator_of
        self._woken = woken
        self._clock = clock
        self._counted = counted
        self._started_s = int(clock())
        self._last_s: dict[str, int] = {}
        self._second = 0
        self._verified = 0
        self._lines = LogLimiter(PEER_LINE_S, trio.current_time)

    async def serve(
        self, host: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:  # fmt: skip
        """Listen until cancelled; `task_status` gets the port.  Raises StromkreisError where it is taken."""
        family = trio.socket.AF_INET6 if ":" in host else trio.socket.AF_INET
        with trio.socket.socket(family, trio.socket.SOCK_DGRAM) as socket:
            try:
                await socket.bind((host, port))
            except OSError as error:
                raise StromkreisError(f"[node] wake_up: cannot listen on {host}:{port} ({error.strerror})") from error
            task_status.started(socket.getsockname()[1])
            while True:
                try:
                    data, _ = await socket.recvfrom(SIZE_MAX + 1)
                except OSError as error:  # an ICMP error of another datagram
                    log.debug("wake-up: %s", error)
                    continue
                self.take(data)

    def take(self, data: bytes) -> None:
        """Look at one datagram; whatever it is, it raises nothing."""
        try:
            identity = self._check(data)
        except RemoteProtocolError as error:
            self._counted(error.reason)
            if self._lines.is_due(error.reason):
                log.warning("a wake-up message is refused: %s", error)
            return
        self._counted("taken")
        log.info("gateway %s is woken up by its administrator", identity)
        self._woken(identity)

    def _check(self, data: bytes) -> str:
        now_s = int(self._clock())
        message = WakeUp.from_bytes(data)
        certificate = self._administrator_of(message.recipient)
        if certificate is None:
            raise RemoteProtocolError("wakeup_recipient", "for a gateway that is not here")
        if abs(message.timestamp_s - now_s) > WINDOW_S:
            raise RemoteProtocolError("wakeup_time", f"made over {WINDOW_S} s from now")
        if message.timestamp_s <= max(self._started_s - 1, self._last_s.get(message.recipient, 0)):
            raise RemoteProtocolError("wakeup_replay", "not newer than the last, or from before the start")
        if now_s != self._second:
            self._second, self._verified = now_s, 0
        self._verified += 1
        if self._verified > VERIFIED_A_SECOND_MAX:
            raise RemoteProtocolError("wakeup_rate", "too many in a second")
        message.verify(certificate)
        self._last_s[message.recipient] = message.timestamp_s
        return message.recipient
