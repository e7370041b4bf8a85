"""
Where gateways deliver: the COSEM/HTTP web service of the market participant, and that of the administrator.

Each is a server of its own with mutual TLS (BSI TR-03109-1, details, chapter 13): whoever connects shows a gateway's
TLS certificate below the SM-PKI root, of a gateway that is enrolled and not revoked.  A delivery is a POST of one
message, its id in `x-CID`; the same one again is answered as if it were new.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, Protocol

from cryptography import x509
from fastapi import APIRouter, FastAPI, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from coordinator.emp.inbox import DeliveryInbox
from coordinator.metrics import CoordinatorMetrics
from coordinator.storage.accounts import AccountRole
from coordinator.storage.certificates import CertificateRepository
from coordinator.storage.deliveries import DeliveryRecord
from coordinator.storage.gateways import GatewayRepository, GatewayStatus
from coordinator.web.access import Access
from coordinator.web.delivery_models import DeliveryPage, DeliveryView, MissingPage, MissingPeriodView
from coordinator.web.errors import Guard, install_errors, problem_responses
from coordinator.web.models import moment_of
from protocol import pki
from protocol.cosem.delivery import CONTENT_TYPE
from protocol.errors import RemoteProtocolError

DELIVERY_PATH: Final = "/cosem/deliveries"
_CORRELATION: Final = re.compile(r"uuid:\s?([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})")
_MISSING_MAX: Final = 1_000


class Receiver(Protocol):
    """What takes deliveries: the inbox, or the administrator's relay."""

    def receive(
        self, gateway_id: str, signers: Sequence[x509.Certificate], delivery_id: str, message: bytes, now_ms: int
    ) -> bool:
        """Whether the message is new; RemoteProtocolError where it is refused."""


class GatewayDirectory:
    """Which gateway a TLS certificate is, and which certificates it signs with."""

    def __init__(
        self, gateways: GatewayRepository, certificates: CertificateRepository, root: x509.Certificate,
        sub_ca: x509.Certificate,
    ) -> None:  # fmt: skip
        self._gateways = gateways
        self._certificates = certificates
        self._root = root
        self._sub_ca = sub_ca

    def identify(self, pem: str, now: datetime) -> str:
        """
        The id of the gateway that shows this certificate.

        Raises RemoteProtocolError: what `pki.verify_chain` raises, `gateway_unknown`, `gateway_revoked`.
        """
        certificate = x509.load_pem_x509_certificate(pem.encode())
        pki.verify_chain(certificate, [self._sub_ca], self._root, now, role=pki.Role.GATEWAY_TLS)
        gateway_id = pki.gateway_id(certificate)
        gateway = self._gateways.some([gateway_id]).get(gateway_id)
        if gateway is None:
            raise RemoteProtocolError("gateway_unknown", "no gateway of this id is enrolled")
        if gateway.status is not GatewayStatus.ACTIVE:
            raise RemoteProtocolError("gateway_revoked", "this gateway was revoked")
        return gateway_id

    def signers_of(self, gateway_id: str) -> list[x509.Certificate]:
        """All signature certificates of a gateway: what it signed before a renewal stays readable."""
        return [
            pki.load_certificate(each.certificate)
            for each in self._certificates.of_gateway(gateway_id)
            if each.role is pki.Role.GATEWAY_SIGNATURE
        ]


def make_delivery_app(
    receiver: Receiver, directory: GatewayDirectory, metrics: CoordinatorMetrics, clock: Callable[[], datetime]
) -> FastAPI:
    """The web service over one receiver; serve it with mutual TLS only."""
    app = FastAPI(title="Stromkreis deliveries", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(Guard)
    install_errors(app, metrics)

    @app.post(DELIVERY_PATH)
    async def _deliver(
        request: Request,
        correlation: Annotated[str, Header(alias="x-CID")],
        content_type: Annotated[str, Header(alias="content-type")],
    ) -> Response:
        chain = request.scope.get("extensions", {}).get("tls", {}).get("client_cert_chain") or ()
        if not chain:
            raise RemoteProtocolError("https_required", "deliveries come over mutual TLS only")
        if content_type.replace(" ", "") != CONTENT_TYPE:
            raise RemoteProtocolError("content_type", f"expected {CONTENT_TYPE}")
        match = _CORRELATION.fullmatch(correlation)
        if match is None:
            raise RemoteProtocolError("correlation_id", "expected x-CID: uuid:… with the delivery's id")
        message, now = await request.body(), clock()

        def receive() -> bool:
            gateway_id = directory.identify(chain[0], now)
            signers = directory.signers_of(gateway_id)
            now_ms = round(now.timestamp() * 1000)
            return receiver.receive(gateway_id, signers, "".join(match.groups()), message, now_ms)

        return Response(status_code=201 if await run_in_threadpool(receive) else 200)

    return app


def make_inbox_router(inbox: DeliveryInbox, access: Access) -> APIRouter:
    """The operator's routes below `/api/v1/deliveries`."""
    router = APIRouter(
        prefix="/api/v1/deliveries", tags=["deliveries"], responses=problem_responses(401, 403, 422),
    )  # fmt: skip

    @router.get("", operation_id="deliveries", dependencies=access.require(AccountRole.VIEWER))
    def _page(
        gateway: Annotated[str | None, Query(max_length=14, description="Only direct ones of this gateway.")] = None,
        after: Annotated[str, Query(max_length=32, description="`next` of the page before.")] = "",
        limit: Annotated[int, Query(ge=1, le=1000, description="Size of a page.")] = 100,
    ) -> DeliveryPage:
        """What was delivered: periods and whether they are complete, no values."""
        found = inbox.deliveries.page(limit=limit + 1, after=after, gateway=gateway)
        page = found[:limit]
        following = page[-1].delivery_id if len(found) > limit else None
        return DeliveryPage(items=[_view(each) for each in page], next=following)

    @router.get("/missing", operation_id="missing_deliveries", dependencies=access.require(AccountRole.VIEWER))
    def _missing() -> MissingPage:
        """Periods between two deliveries that are not there, and delivered ones that have intervals without a value."""
        holes = inbox.missing_periods()[:_MISSING_MAX]
        return MissingPage(
            periods=[
                MissingPeriodView(gateway=each.gateway, profile=each.profile, start=_time(each.start_s),
                                  end=_time(each.end_s))
                for each in holes
            ],
            incomplete=[_view(each) for each in inbox.deliveries.incomplete(_MISSING_MAX)],
        )  # fmt: skip

    @router.get(
        "/values.csv", operation_id="export_deliveries", response_class=StreamingResponse,
        dependencies=access.require(AccountRole.OPERATOR, audited=True),
    )  # fmt: skip
    def _export(
        from_: Annotated[datetime, Query(alias="from", description="First start of a period.")],
        to: Annotated[datetime, Query(description="Last start of a period, exclusive.")],
    ) -> StreamingResponse:
        """All delivered values of periods that begin in a time, as CSV."""
        span = (int(each.replace(tzinfo=each.tzinfo or UTC).timestamp()) for each in (from_, to))
        return StreamingResponse(inbox.export_csv(*span), media_type="text/csv")

    return router


def _view(record: DeliveryRecord) -> DeliveryView:
    return DeliveryView(
        delivery=record.delivery_id, gateway=record.gateway_id, state=record.state, reason=record.reason,
        sender=record.sender, profile=record.profile, taf=record.taf, start=_maybe(record.start_s),
        end=_maybe(record.end_s), is_complete=record.is_complete, missing=record.missing,
        received_at=moment_of(record.received_ms),
    )  # fmt: skip


def _time(moment_s: int) -> datetime:
    return datetime.fromtimestamp(moment_s, UTC)


def _maybe(moment_s: int | None) -> datetime | None:
    return None if moment_s is None else _time(moment_s)
