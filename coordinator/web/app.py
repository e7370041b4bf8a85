"""
The web application of a coordinator: REST, dashboard, metrics, health.

What is said of single gateways, and whatever changes something, wants an account's token (`coordinator.web.access`).
Dashboard and totals show what is no secret on this machine: the default address is loopback, and whoever opens it
further puts a reverse proxy with a log-in before it.  The usual interactive API pages are off because they fetch their
scripts from elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from coordinator.config import Role
from coordinator.emp.billing_service import BillingService
from coordinator.emp.inbox import DeliveryInbox
from coordinator.gwa.accounts import Accounts
from coordinator.gwa.enrolment import Enrolment
from coordinator.gwa.firmware import FirmwareRollout
from coordinator.gwa.leaving import Leaving
from coordinator.gwa.oidc import OidcLogIn
from coordinator.gwa.oidc_provider import OidcProvider, oidc_client
from coordinator.gwa.profiles import ProfileRollout
from coordinator.gwa.query_proofs import QueryProofs
from coordinator.gwa.renewal import Renewal
from coordinator.gwa.tunnel_orders import TunnelOrders
from coordinator.metrics import CoordinatorMetrics
from coordinator.oidc_config import OidcConfig
from coordinator.status import StatusSource
from coordinator.storage.accounts import AccountRole
from coordinator.storage.engine import fault_of
from coordinator.storage.schema import read_status
from coordinator.storage.store import Store
from coordinator.threads import look_up
from coordinator.web.access import Access
from coordinator.web.accounts import make_account_router
from coordinator.web.api import make_directory_router, make_rings_router, make_totals_router
from coordinator.web.bills import make_bill_router
from coordinator.web.certificates import make_certificate_router
from coordinator.web.dashboard import make_dashboard
from coordinator.web.deliveries import make_inbox_router
from coordinator.web.enrolment_log import make_log_router
from coordinator.web.errors import Guard, install_errors
from coordinator.web.firmware import make_firmware_router
from coordinator.web.forwarded import ForwardedClient, Networks
from coordinator.web.health import install_health
from coordinator.web.oidc import make_oidc_router
from coordinator.web.profiles import make_profile_router
from coordinator.web.tunnel_orders import make_outcome_router
from protocol.errors import LocalProtocolError


def _now() -> datetime:
    return datetime.now(UTC)


def make_app(
    store: Store,
    source: StatusSource | None,
    metrics: CoordinatorMetrics,
    *,
    role: Role = Role.ALL,
    enrolment: Enrolment | None = None,
    billing_service: BillingService | None = None,
    profiles: ProfileRollout | None = None,
    orders: TunnelOrders | None = None,
    inbox: DeliveryInbox | None = None,
    operator_token: str = "",
    oidc: OidcConfig | None = None,
    time_lapse: bool = False,
    proxies: Networks = (),
    has_participants: bool = False,
    clock: Callable[[], datetime] = _now,
) -> FastAPI:
    """
    The application of a role over one store.

    `enrolment` None leaves the routes of certificates out, `billing_service` None those of bills, `profiles` None those
    of profile sets, `orders` None those of tunnels, `inbox` None those of deliveries; `source` belongs to the rings'
    role.  Whoever shows `operator_token` is an administrator; empty: there are no routes of accounts.  `oidc` is the
    OpenID provider at which accounts may log in, too.  `time_lapse` marks every total: metering time runs faster than
    real time.  `proxies` are before it, and say who called.  `has_participants`: each is shown its own totals
    elsewhere, so all totals want a log-in where https is for others.
    """
    app = FastAPI(
        title="Stromkreis coordinator",
        version="1",
        description="Exact totals of areas, the rings that made them, the directory of gateways. No single reading.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(Guard)
    if proxies:
        app.add_middleware(ForwardedClient, proxies=proxies)
    install_errors(app, metrics)
    access = Access(Accounts(store.accounts, store.audit, operator_token, lambda: clock().timestamp(), time.monotonic))
    all_totals = access.require_over_https(AccountRole.VIEWER) if has_participants else []
    if role.does(Role.EMP):
        app.include_router(make_totals_router(store, time_lapse=time_lapse), dependencies=all_totals)
        if billing_service is not None:
            app.include_router(make_bill_router(billing_service, access))
        if inbox is not None:
            app.include_router(make_inbox_router(inbox, access))
    if role.does(Role.GWA):
        app.include_router(make_directory_router(store))
        app.include_router(make_log_router(store))
        if operator_token:  # without it nobody could make the first account
            app.include_router(make_account_router(access))
            if oidc is not None:
                provider = OidcProvider(oidc, oidc_client(oidc), time.monotonic)
                log_in = OidcLogIn(oidc, provider, access.accounts, lambda: clock().timestamp(), time.monotonic)
                app.include_router(make_oidc_router(log_in))
        if enrolment is not None:
            renewal = Renewal(store.gateways, store.certificates, enrolment.authority, enrolment.issued)
            leaving = Leaving(store.gateways, store.certificates, enrolment.directory)
            app.include_router(
                make_certificate_router(enrolment, renewal, leaving, enrolment.publisher, metrics, clock)
            )
        if profiles is not None:
            proofs = QueryProofs(profiles.gateways, profiles.certificates)
            firmware = FirmwareRollout(store.firmware, profiles)
            app.include_router(make_profile_router(profiles, access, clock, proofs, orders, firmware))
            app.include_router(make_firmware_router(firmware, access, clock, proofs))
            if orders is not None:
                app.include_router(make_outcome_router(orders, proofs, clock))
    if role.does(Role.RINGS):
        if source is None:
            raise LocalProtocolError("the routes of rings need a source of their status")
        app.include_router(make_rings_router(source))
        dashboard = make_dashboard(store, source, has_bills=billing_service is not None, time_lapse=time_lapse)
        app.include_router(dashboard, dependencies=all_totals)

    async def not_ready() -> str | None:
        return source.not_ready() if source is not None else await look_up(_database_fault, store)

    install_health(app, metrics, not_ready, lambda: None if source is None else source.described())
    return app


def _database_fault(store: Store) -> str | None:
    try:
        read_status(store.database)
    except SQLAlchemyError as error:
        return f"the database fails: {fault_of(error)}"
    return None
