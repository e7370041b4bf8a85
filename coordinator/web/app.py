"""
The web application of a coordinator: REST, dashboard, metrics, health.

It is read-only but for enrolment and bills, has no log-in of its own and shows only what the operator may know anyway;
bills want the operator's token.  The default address is loopback, and whoever opens it further puts a reverse proxy
with a log-in before it.  The usual interactive API pages are off because they fetch their scripts from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client.exposition import choose_encoder

from coordinator.emp.billing_service import BillingService
from coordinator.gwa.enrolment import Enrolment
from coordinator.metrics import CoordinatorMetrics
from coordinator.storage.store import Store
from coordinator.web.api import make_router
from coordinator.web.bills import make_bill_router
from coordinator.web.dashboard import make_dashboard
from coordinator.web.errors import Guard, install_errors
from coordinator.web.status import StatusSource
from protocol.errors import LocalProtocolError


def _now() -> datetime:
    return datetime.now(UTC)


def make_app(
    store: Store,
    source: StatusSource,
    metrics: CoordinatorMetrics,
    *,
    enrolment: Enrolment | None = None,
    desk: BillingService | None = None,
    operator_token: str = "",
    clock: Callable[[], datetime] = _now,
) -> FastAPI:
    """The application over one store; `enrolment` None leaves the route to enrol out, `desk` None those of bills."""
    app = FastAPI(
        title="Stromkreis coordinator",
        version="1",
        description="Exact totals of areas, the rings that made them, the directory of gateways. No single reading.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(Guard)
    install_errors(app, metrics)
    app.include_router(
        make_router(store, source, enrolment=enrolment, metrics=metrics, clock=clock)
    )  # fmt: skip
    if desk is not None:
        if not operator_token:
            raise LocalProtocolError("the routes of bills need an operator's token")
        app.include_router(make_bill_router(desk, operator_token))
    app.include_router(make_dashboard(store, source, has_bills=desk is not None))

    @app.get("/metrics", include_in_schema=False)
    async def _metrics(request: Request) -> Response:
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics.registry), headers={"Content-Type": media_type})

    @app.get("/healthz", include_in_schema=False)
    async def _healthz() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @app.get("/readyz", include_in_schema=False)
    async def _readyz() -> PlainTextResponse:
        reason = source.not_ready()
        return PlainTextResponse("ok\n" if reason is None else f"{reason}\n", 200 if reason is None else 503)

    return app
