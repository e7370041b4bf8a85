"""Requests for a bill as they come from the coordinator: one at a time, beside the rounds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

import trio

from node.aggregation.bills import Bills
from node.metrics import NodeMetrics
from node.storage.errors import StoreError
from protocol import wire
from protocol.dcnet.billing.bill import IntervalsLeftOutError, request_digest
from protocol.dcnet.billing.tariff import pack_intervals, read_tariff, unpack_intervals
from protocol.errors import RemoteProtocolError
from protocol.log_limit import PEER_LINE_S, LogLimiter
from protocol.logs.events import Event, Parameter

log = logging.getLogger(__name__)
_NOTE_S = 3_600.0  # between two entries of one kind: who asks without end shall not push the others out of the log


class Note(Protocol):
    """See node.logs.gateway_log."""

    def __call__(self, event: Event, **parameters: Parameter) -> None: ...  # noqa: D102


class BillRequests:
    """Those of one gateway; `post` sends a message to the coordinator, `note` writes into the consumer's log."""

    def __init__(
        self, bills: Bills, identity: str, metrics: NodeMetrics, post: Callable[[wire.Message], None], note: Note
    ) -> None:
        self._bills = bills
        self._identity = identity
        self._metrics = metrics
        self._post = post
        self._note = note
        self._lines = LogLimiter(PEER_LINE_S, trio.current_time)
        self._notes = LogLimiter(_NOTE_S, trio.current_time)
        self._is_busy = False

    def receive(self, request: wire.BillRequest, nursery: trio.Nursery) -> None:
        """Answer in a task of its own; whoever asks meanwhile gets no answer, and asks again."""
        if self._is_busy:
            self._metrics.dropped("bills")
            return
        self._is_busy = True
        nursery.start_soon(self._answer, request)

    async def _answer(self, request: wire.BillRequest) -> None:
        metrics = self._metrics
        try:
            bill = await self._bills.answer(request)
        except RemoteProtocolError as error:
            metrics.bill("declined")
            if self._lines.is_due(error.reason):
                log.warning("gateway %s declines a bill: %s", self._identity, error)
            if self._notes.is_due(error.reason):
                self._note(Event.BILL_DECLINED, reason=error.reason)
            self._post(_declined(request, error))
        except StoreError as error:
            metrics.store_error()
            log.error("gateway %s does not answer a bill: %s", self._identity, error)
        else:
            if bill is not None:
                metrics.bill("answered")
                if self._notes.is_due(bill.request.hex()):
                    log.info("gateway %s answers a bill", self._identity)
                    self._note(Event.BILL_ANSWERED, **_about(request))
                self._post(bill)
        finally:
            self._is_busy = False


def _about(request: wire.BillRequest) -> dict[str, Parameter]:
    """What the consumer's log says of a request that was answered."""
    tariff = read_tariff(request.tariff)
    indices = unpack_intervals(request.intervals, len(tariff.prices))
    until_s = tariff.interval_s_of(max(indices) + 1)
    return {"tariff": tariff.name, "count": len(indices), "until": datetime.fromtimestamp(until_s, UTC).isoformat()}


def _declined(request: wire.BillRequest, error: RemoteProtocolError) -> wire.BillDeclined:
    name = request_digest(request.tariff, request.intervals)
    if not isinstance(error, IntervalsLeftOutError):
        return wire.BillDeclined(name, error.reason)
    tariff = read_tariff(request.tariff)
    count = len(tariff.prices)
    left_out = [tariff.index_of(start) for start in error.intervals_s]
    priced = {index for index in left_out if index is not None}.union(unpack_intervals(request.intervals, count))
    return wire.BillDeclined(name, error.reason, pack_intervals(sorted(priced), count), left_out.count(None))
