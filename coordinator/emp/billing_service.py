"""
Bills are asked for and answers are judged, beside the rounds and slower than they.

`BillingService` is the operator's side, where tariffs are published and bills made; it needs the key that signs tariffs
and no gateway.  `BillCollection` is the gateways' side: a bill that waits is sent to its gateway whenever that one is
here, one at a time and again after a pause until it is answered: neither a restart here nor one there needs anything
else.  Answers are judged one after the other in a thread, some 25 µs for each interval, most of it in libsodium, which
lets the rounds run meanwhile.  The two meet in the database, so that they may be processes of their own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Protocol

import trio
from sqlalchemy.exc import SQLAlchemyError

from coordinator.emp.billing import Asked, Billing
from coordinator.events import Emit, MessagesReady, StatusChanged, StoreFailed, To
from coordinator.metrics import CoordinatorMetrics
from coordinator.storage.bills import BillStatus
from coordinator.storage.tariffs import PublishedTariff
from coordinator.threads import in_thread, look_up
from protocol import wire
from protocol.dcnet.billing.tariff import Tariff, tariff_digest
from protocol.errors import RemoteProtocolError

log = logging.getLogger(__name__)
_LOOK_S = 2.0  # between two looks for gateways that have come; longer, and a bill waits longer for one
_NEW_S = 30.0  # between two looks for bills that another process made
_AGAIN_S = 30.0  # a gateway that has not answered is asked again; shorter, and a slow one is asked twice
_PACE_S = 0.005  # between two requests of up to some 100 KB: the rounds' messages go in between
_FORGET_S = 3600.0
_ANSWERS_MAX = 10_000  # answers that wait to be judged; what is dropped comes again


class Signer(Protocol):
    """Who signs tariffs; `certificate` is DER."""

    certificate: bytes

    def sign(self, text: bytes) -> bytes:
        """ECDSA with SHA-256 over `text`, DER."""


class BillingService:
    """What the operator wants of tariffs and bills; every call blocks, and may come from any thread."""

    def __init__(
        self,
        billing: Billing,
        signer: Signer,
        metrics: CoordinatorMetrics,
        *,
        made: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`made` is called, in the caller's thread, when bills were made."""
        self.billing = billing
        self._signer = signer
        self._metrics = metrics
        self._made = made
        self._clock = clock

    def publish(self, tariff: Tariff) -> PublishedTariff:
        """Sign a tariff and keep it."""
        text = tariff_digest(tariff.to_bytes())
        return self.billing.publish(tariff, self._signer.sign(text), self._signer.certificate, self._now_ms())

    def ask(self, area: str, period: tuple[datetime, datetime], tariff: bytes) -> Asked:
        """Make the bills of an area and a period, to be asked for; raises what `Billing.ask` raises."""
        from_s, to_s = (int(-(-each.astimezone(UTC).timestamp() // 1)) for each in period)
        asked = self.billing.ask(area, from_s, to_s, tariff, self._now_ms())
        self._metrics.bills("asked", asked.bills)
        log.info("area %s: %d bills over %d intervals are asked for", area, asked.bills, asked.intervals)
        if self._made is not None:
            self._made()
        return asked

    def excuse(self, gateway: str) -> int:
        """Wait no more for the range proofs that a gateway owes; how many these were."""
        count = self.billing.range_checks.excuse(gateway)
        log.warning("gateway %s is excused from %d range proofs by the operator", gateway, count)
        return count

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


class BillCollection:
    """Asks gateways for their bills and judges what they answer; `run` serves until cancelled."""

    def __init__(
        self,
        billing: Billing,
        intermediates: Sequence[bytes],
        metrics: CoordinatorMetrics,
        present: Callable[[], Collection[str]],
        emit: Emit,
        *,
        keep_s: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`present` are the gateways that are here now; commitments are kept for `keep_s` of metering time."""
        self.billing = billing
        self._intermediates = tuple(intermediates)
        self._metrics = metrics
        self._present = present
        self._emit = emit
        self._keep_s = keep_s
        self._clock = clock
        self._waiting: dict[str, dict[bytes, float]] = {}  # by gateway: requests and when each was sent last
        self._answers: dict[str, wire.Bill | wire.BillDeclined] = {}
        self._answered = trio.Event()
        self._made = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None

    def wake(self) -> None:
        """Bills were made; from any thread."""
        if self._token is not None:
            self._token.run_sync_soon(self._wake)

    def _wake(self) -> None:
        event, self._made = self._made, trio.Event()
        event.set()

    def receive(self, gateway: str, message: wire.Bill | wire.BillDeclined) -> None:
        """A gateway's answer; one that nobody waits for, or not any more, is counted and has no effect."""
        if message.request not in self._waiting.get(gateway, {}):
            self._metrics.peer_error("unasked_bill")
            return
        if len(self._answers) < _ANSWERS_MAX:
            self._answers[gateway] = message
            self._answered.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_asking)
            nursery.start_soon(self._judge_all)
            nursery.start_soon(self._forget)

    async def _keep_asking(self) -> None:
        seen: trio.Event | None = None
        looked_s = 0.0
        while True:
            if seen is not self._made or trio.current_time() >= looked_s + _NEW_S:
                seen = self._made if await self._look_up() else None
                looked_s = trio.current_time()
                self._emit(StatusChanged())
            for gateway in set(self._present()) & self._waiting.keys():
                await self._ask_one(gateway)
            with trio.move_on_after(_LOOK_S):
                await self._made.wait()

    async def _look_up(self) -> bool:
        try:
            found = await look_up(self.billing.bills.outstanding)
        except SQLAlchemyError as error:
            self._emit(StoreFailed.by(error, "bills cannot be read, nobody is asked"))
            return False
        known, self._waiting = self._waiting, {}
        for gateway, request in found:
            self._waiting.setdefault(gateway, {})[request] = known.get(gateway, {}).get(request, float("-inf"))
        return True

    async def _ask_one(self, gateway: str) -> None:
        """The oldest bill of a gateway, unless it was asked for a moment ago."""
        requests = self._waiting.get(gateway)
        if not requests:
            return
        request = next(iter(requests))
        if 0 <= self._clock() - requests[request] < _AGAIN_S:  # negative: the clock was set back
            return
        try:
            message = await look_up(self.billing.message, gateway, request, self._intermediates)
        except SQLAlchemyError as error:
            self._emit(StoreFailed.by(error, "a bill cannot be read"))
            return
        if message is None:
            requests.pop(request, None)
            return
        requests[request] = self._clock()
        self._emit(MessagesReady([To(gateway, message)]))
        await trio.sleep(_PACE_S)

    async def _judge_all(self) -> None:
        while True:
            await self._answered.wait()
            self._answered = trio.Event()
            answers, self._answers = self._answers, {}
            for gateway, message in answers.items():
                try:
                    await self._judge(gateway, message)
                except SQLAlchemyError as error:
                    self._emit(StoreFailed.by(error, "a bill cannot be written, its gateway is asked again"))
                except RemoteProtocolError as error:
                    log.error("the bill of gateway %s cannot be judged: %s", gateway, error)
                else:
                    self._emit(StatusChanged())

    async def _judge(self, gateway: str, message: wire.Bill | wire.BillDeclined) -> None:
        status: BillStatus | None
        if isinstance(message, wire.Bill):
            status = await in_thread(self.billing.judge, gateway, message, self._now_ms())
        else:
            done = await in_thread(self.billing.decline, gateway, message, self._now_ms())
            status = BillStatus.DECLINED if done else None
        requests = self._waiting.get(gateway, {})
        requests.pop(message.request, None)
        if not requests:
            self._waiting.pop(gateway, None)
        if status is None:
            return
        self._metrics.bills(status.value)
        if status is BillStatus.REFUSED:
            log.warning("the bill of gateway %s is refused: it is not the one for what was committed to", gateway)
        elif isinstance(message, wire.BillDeclined):
            earlier = f", {message.earlier_count} before the tariff's start" if message.earlier_count else ""
            log.warning("gateway %s declines a bill: %s%s", gateway, message.reason, earlier)

    async def _forget(self) -> None:
        while True:
            try:
                await in_thread(self.billing.forget, self._keep_s)
            except SQLAlchemyError as error:
                self._emit(StoreFailed.by(error, "old commitments cannot be deleted"))
            await trio.sleep(_FORGET_S)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
