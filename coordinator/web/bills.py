"""
The REST interface of tariffs and bills.

Tariffs are public: whoever asks sees them, as documents with signature and certificate.  Bills are the operator's:
these routes want the operator's token, over HTTPS, and never say more than one amount for a gateway and period.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fastapi import APIRouter, Path, Query

from coordinator.emp.billing_service import BillingService
from coordinator.storage.accounts import AccountRole
from coordinator.storage.bills import BillRecord, BillStatus
from coordinator.storage.tariffs import PublishedTariff
from coordinator.web.access import Access
from coordinator.web.errors import problem_responses
from coordinator.web.models import (
    BillPage,
    BillsAnswer,
    BillsRequest,
    BillView,
    Excused,
    TariffDocument,
    TariffPage,
    TariffView,
)
from protocol.dcnet.billing.tariff import Tariff
from protocol.errors import RemoteProtocolError

_CURSOR = re.compile(r"([A-Z0-9]{14})-([0-9a-f]{64})")


def make_bill_router(billing_service: BillingService, access: Access) -> APIRouter:
    """The routes below `/api/v1` for tariffs and bills."""
    router = APIRouter(prefix="/api/v1", responses=problem_responses(422), tags=["bills"])

    operator = access.require(AccountRole.OPERATOR, audited=True)
    refusals = problem_responses(401, 403, 404, 409)

    @router.post("/tariffs", operation_id="publish_tariff", status_code=201, dependencies=operator, responses=refusals)
    def _publish(body: TariffDocument) -> TariffView:
        """Sign a tariff and publish it; the same one again has the same digest."""
        return _tariff(billing_service.publish(Tariff.from_document(body.model_dump(exclude_none=True))))

    @router.get("/tariffs", operation_id="tariffs")
    def _tariffs() -> TariffPage:
        """All published tariffs, newest first, without their prices."""
        return TariffPage(items=[_tariff(each) for each in billing_service.billing.tariffs.all()])

    @router.get(
        "/tariffs/{digest}", operation_id="tariff", responses=problem_responses(404), response_model_exclude_none=True
    )
    def _tariff_document(digest: str) -> TariffDocument:
        """The document of a published tariff; its canonical JSON is what was signed."""
        tariff = billing_service.billing.tariffs.get(_bytes(digest)).tariff
        return TariffDocument(
            name=tariff.name, obis=tariff.obis, unit=tariff.unit, currency=tariff.currency,
            price_scaler=tariff.price_scaler, start=f"{_time(tariff.start_s):%Y-%m-%dT%H:%M:%SZ}",
            interval_s=tariff.interval_s, prices=list(tariff.prices), tiers=list(tariff.tiers) or None,
            use_case=tariff.use_case,
        )  # fmt: skip

    @router.post("/bills", operation_id="ask_for_bills", status_code=202, dependencies=operator, responses=refusals)
    def _ask(body: BillsRequest) -> BillsAnswer:
        """Ask the gateways of an area for their bills over a period; what is billed already is left out."""
        asked = billing_service.ask(body.area, (body.from_, body.to), _bytes(body.tariff))
        return BillsAnswer(
            bills=asked.bills, intervals=asked.intervals, nothing_left=asked.nothing_left, unranged=asked.unranged
        )

    @router.delete(
        "/range-proofs/{gateway}", operation_id="excuse_range_proofs", dependencies=operator,
        responses=problem_responses(401, 403),
    )  # fmt: skip
    def _excuse(gateway: Annotated[str, Path(max_length=14)]) -> Excused:
        """Wait no more for the range proofs that a gateway owes, as one that has lost its store can never make them."""
        return Excused(proofs=billing_service.excuse(gateway))

    @router.get("/bills", operation_id="bills", dependencies=access.require(AccountRole.OPERATOR),
                responses=problem_responses(401, 403))  # fmt: skip
    def _bills(
        area: Annotated[str | None, Query(max_length=64, description="Only this area.")] = None,
        tariff: Annotated[str | None, Query(description="Only bills by the tariff of this digest.")] = None,
        status: BillStatus | None = None,
        gateway: Annotated[str | None, Query(max_length=14)] = None,
        cursor: Annotated[str | None, Query(description="`next` of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="Size of a page.")] = 100,
    ) -> BillPage:
        """Bills by gateway, with exact amounts and how they stand."""
        found = billing_service.billing.bills.page(
            limit=limit + 1, area=area, tariff=None if tariff is None else _bytes(tariff), status=status,
            gateway=gateway, after=None if cursor is None else _after(cursor),
        )  # fmt: skip
        page = found[:limit]
        following = f"{page[-1].gateway}-{page[-1].request.hex()}" if len(found) > limit else None
        return BillPage(items=[_bill(each, billing_service) for each in page], next=following)

    return router


def _bytes(digest: str) -> bytes:
    if re.fullmatch("[0-9a-f]{64}", digest) is None:
        raise RemoteProtocolError("tariff_digest", "expected a tariff's digest, 64 hexadecimal digits")
    return bytes.fromhex(digest)


def _after(cursor: str) -> tuple[str, bytes]:
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise RemoteProtocolError("cursor", "not a cursor of this interface")
    return match[1], bytes.fromhex(match[2])


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _tariff(published: PublishedTariff) -> TariffView:
    tariff = published.tariff
    certificate = x509.load_der_x509_certificate(published.certificate).public_bytes(Encoding.PEM).decode()
    return TariffView(
        digest=published.digest.hex(), name=tariff.name, obis=tariff.obis, unit=tariff.unit,
        currency=tariff.currency, price_scaler=tariff.price_scaler, start=_time(tariff.start_s),
        interval_s=tariff.interval_s, intervals=len(tariff.prices), signature=published.signature.hex(),
        certificate=certificate, published_at=_time(published.published_ms / 1000),
    )  # fmt: skip


def _decimal(number: Decimal | None) -> str | None:
    return None if number is None else f"{number:f}"


def _bill(bill: BillRecord, billing_service: BillingService) -> BillView:
    return BillView(
        gateway=bill.gateway, request=bill.request.hex(), area=bill.area, tariff=bill.tariff.hex(),
        obis=bill.obis, first_interval=_time(bill.first_s), last_interval=_time(bill.last_s),
        intervals=bill.interval_count, status=bill.status.value,
        amount=_decimal(bill.amount), rounded_to=_decimal(bill.rounded_to), energy=_decimal(bill.energy),
        averaged=bill.averaged,
        currency=billing_service.billing.tariffs.get(bill.tariff).tariff.currency, reason=bill.reason,
        asked_at=_time(bill.asked_ms / 1000), ended_at=None if bill.ended_ms is None else _time(bill.ended_ms / 1000),
    )  # fmt: skip
