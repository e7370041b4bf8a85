"""An EMP that asks for bills without end: the consumer's log keeps its newest entries, and what it asked goes first."""

import logging

import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry

from node.aggregation.bill_requests import BillRequests
from node.metrics import NodeMetrics
from protocol import wire
from protocol.dcnet.billing.bill import request_digest
from protocol.dcnet.billing.tariff import Tariff
from protocol.errors import RemoteProtocolError
from protocol.logs.events import Event, Parameter

SHEET = Tariff("Flat", "1-0:1.8.0*255", "Wh", "ct", -5, 0, 900, (1,) * 8).to_bytes()


class Bills:
    """Answers or declines whatever is asked."""

    def __init__(self, reason: str | None) -> None:
        self.reason = reason

    async def answer(self, request: wire.BillRequest) -> wire.Bill:
        if self.reason is not None:
            raise RemoteProtocolError(self.reason, "a rule stands against it")
        digest = request_digest(request.tariff, request.intervals)
        return wire.Bill(digest, (bytes(16),), (bytes(32),), bytes(16), b"", 0, ())


@pytest.mark.parametrize("reason", ["span_too_short", None])
async def test_a_flood_of_bill_requests_is_answered_and_noted_once_an_hour(
    reason: str | None, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, autojump_clock: object
) -> None:
    del autojump_clock
    caplog.set_level(logging.INFO)
    noted: list[Event] = []
    sent: list[wire.Message] = []

    def note(event: Event, **_: Parameter) -> None:
        noted.append(event)

    requests = BillRequests(
        Bills(reason), "ESTK0000000001", NodeMetrics(CollectorRegistry()), sent.append, note  # type: ignore[arg-type]
    )  # fmt: skip
    request = wire.BillRequest(SHEET, bytes(70), b"certificate", (), b"\xff")
    for _ in range(100):
        requests.receive(request, nursery)
        await trio.testing.wait_all_tasks_blocked()
    assert len(sent) == 100
    assert len(noted) == 1
    assert caplog.text.count("a bill") == 1
    await trio.sleep(3601)
    requests.receive(request, nursery)
    await trio.testing.wait_all_tasks_blocked()
    assert len(noted) == 2
