"""
The web service for tunnel orders: market participants order over mutual TLS, gateways tell what has become of it.

The participants' side is a server of its own: whoever connects shows a participant's TLS certificate below the SM-PKI
root that is on no revocation list.  Gateways come to the coordinator's usual server and sign that it is they.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, FastAPI, Header, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from coordinator.gwa.query_proofs import QueryProofs
from coordinator.gwa.tunnel_orders import OrderState, TunnelOrders
from coordinator.metrics import CoordinatorMetrics
from coordinator.web.access import address_of
from coordinator.web.errors import Guard, install_errors, problem_responses
from coordinator.web.models import ApiModel
from protocol.errors import RemoteProtocolError
from protocol.profiles.base import Identifier
from protocol.profiles.query import PROOF_SIZE_MAX
from protocol.profiles.tunnel_order import OrderId, Outcome

ORDER_PATH = "/cls/v1/tunnels"
LISTS_PATH = "/cls/v1/revocation-lists"
GatewayId = Annotated[str, Path(pattern=r"^E[A-Z]{3}[0-9A-F]{2}[0-9]{8}$")]
Proof = Annotated[str, Header(alias="X-Gateway-Proof", max_length=PROOF_SIZE_MAX)]


class TunnelOrderRequest(ApiModel):
    """Which proxy profile of which gateway a tunnel is wanted by."""

    gateway: Annotated[str, Field(pattern=r"^E[A-Z]{3}[0-9A-F]{2}[0-9]{8}$")]
    proxy: Identifier
    duration_s: Annotated[int, Field(ge=10, le=172_800)] | None = None
    """It ends after so long, or after the profile's `duration_max_s`."""


class TunnelOrderView(ApiModel):
    """How an order stands."""

    id: OrderId
    outcome: str
    """`waiting`, `connected`, `expired`, or why the gateway has opened nothing."""
    server_name: str | None
    """What the gateway shows in the handshake with the participant (SNI), None for nothing."""


class TunnelOutcome(ApiModel):
    """What has become of an order."""

    outcome: Outcome


def make_order_app(orders: TunnelOrders, metrics: CoordinatorMetrics, bundle: Callable[[], bytes]) -> FastAPI:
    """The participants' web service; serve it with mutual TLS only.  `bundle` makes the revocation lists (PEM)."""
    app = FastAPI(title="Stromkreis tunnel orders", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(Guard)
    install_errors(app, metrics)

    @app.post(ORDER_PATH, status_code=202)
    async def _order(request: Request, body: TunnelOrderRequest) -> TunnelOrderView:
        pem, address = _certificate(request), address_of(request)

        def place() -> OrderState:
            return orders.place(orders.participant(pem), body.gateway, body.proxy, body.duration_s, address)

        return _view(await run_in_threadpool(place))

    @app.get(f"{ORDER_PATH}/{{order}}")
    async def _state(request: Request, order: OrderId) -> TunnelOrderView:
        pem = _certificate(request)
        return _view(await run_in_threadpool(lambda: orders.state(orders.participant(pem), order)))

    @app.get(LISTS_PATH)
    async def _lists() -> Response:
        return Response(await run_in_threadpool(bundle), media_type="application/x-pem-file")

    return app


def make_outcome_router(orders: TunnelOrders, proofs: QueryProofs, clock: Callable[[], datetime]) -> APIRouter:
    """The gateways' route below `/api/v1`."""
    router = APIRouter(prefix="/api/v1/tunnel-orders", tags=["profiles"], responses=problem_responses(422))

    @router.post(
        "/{gateway}/{order}", operation_id="tunnel_outcome", status_code=204, responses=problem_responses(403, 404)
    )
    def _outcome(gateway: GatewayId, order: OrderId, body: TunnelOutcome, proof: Proof) -> None:
        """Take a gateway's word on a tunnel that it was ordered to open; signed by its key."""
        proofs.check(gateway, proof, int(clock().timestamp() * 1000))
        orders.answer(gateway, order, body.outcome)

    return router


def _certificate(request: Request) -> str:
    chain = request.scope.get("extensions", {}).get("tls", {}).get("client_cert_chain") or ()
    if not chain:
        raise RemoteProtocolError("https_required", "tunnels are ordered over mutual TLS only")
    return str(chain[0])


def _view(state: OrderState) -> TunnelOrderView:
    return TunnelOrderView(id=state.order.id, outcome=state.outcome, server_name=state.server_name)
