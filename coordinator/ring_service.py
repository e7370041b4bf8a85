"""
Becoming the ring service of a database's areas, standing by until that can be, and staying it.

A process that stands by serves /healthz, /readyz and /metrics and nothing else: not even enrolment, so that everything
that a coordinator decides is decided in one place.  It opens no socket for gateways, which find the active one by its
address or by a load balancer that asks /readyz.
"""

from __future__ import annotations

import errno
import logging
import os
import platform
import socket
from collections.abc import Collection
from contextlib import AsyncExitStack
from functools import partial
from urllib.parse import urlsplit

import trio
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from coordinator.config import CoordinatorConfig
from coordinator.gwa.ca import TLS_CHAIN_FILE, TLS_KEY_FILE
from coordinator.metrics import CoordinatorMetrics
from coordinator.rings.numbers import EpochNumbers
from coordinator.storage.engine import fault_of
from coordinator.storage.lease import RENEW_S, STALLED_S, Lease, refusal
from coordinator.storage.store import Store
from coordinator.threads import in_thread, look_up
from coordinator.web.health import install_health
from coordinator.web.serve import serve as serve_web
from protocol.errors import StromkreisError

log = logging.getLogger(__name__)
_LOOK_S = 0.5  # between two looks whether the lease can be taken
PATIENCE_S = STALLED_S + 2.0  # of a process that is not to stand by: for so long its predecessor may seem alive
ISOLATED_S = 60.0  # without the database, where another stands by: longer than its restart


class RingServiceState:
    """Whether this process is the ring service, for /readyz and metrics."""

    def __init__(self, metrics: CoordinatorMetrics) -> None:
        self._metrics = metrics
        self._waits_for: str | None = "the database has not answered yet"
        self._renewed_s = trio.current_time()
        self.term = 0
        metrics.ring_service(is_active=False, term=0)

    def stand_by(self, waits_for: str) -> None:
        """Another is; once for each."""
        if waits_for != self._waits_for:
            log.info("standing by: %s", waits_for)
        self._waits_for = waits_for

    def activate(self, term: int) -> None:
        """We are."""
        self._waits_for, self.term, self._renewed_s = None, term, trio.current_time()
        self._metrics.ring_service(is_active=True, term=term)

    def renewed(self) -> None:
        """We still are."""
        self._renewed_s = trio.current_time()

    @property
    def unrenewed_s(self) -> float:
        """For how long that has not been known."""
        return trio.current_time() - self._renewed_s

    def not_ready(self) -> str | None:
        """Why gateways must not be sent here; None where they may."""
        if self._waits_for is not None:
            return f"standing by: {self._waits_for}"
        if self.unrenewed_s > STALLED_S:
            return f"the lease has not been renewed for {self.unrenewed_s:.0f} s: another may be the ring service"
        return None

    def described(self) -> str:
        """The role, in a line."""
        return f"ring service: active, term {self.term}"


class RingService:
    """The lease of this process, its state, and the epoch numbers that come with it."""

    def __init__(self, lease: Lease, state: RingServiceState, *, has_standby: bool) -> None:
        self._lease = lease
        self.state = state
        self.numbers = EpochNumbers(*lease.numbers)
        self._has_standby = has_standby

    @property
    def lease(self) -> Lease:
        """What fences the writing transactions."""
        return self._lease

    async def watch(self) -> None:
        """Renew the lease and the numbers.  Raises StromkreisError once another process is the ring service."""
        while True:
            await trio.sleep(RENEW_S)
            try:
                await in_thread(self._lease.renew)
                if self.numbers.is_low:
                    self.numbers.extend(*await in_thread(self._lease.reserve, self.numbers.at_least))
            except SQLAlchemyError as error:  # nobody can write meanwhile; whoever comes first when it is back has it
                log.warning("whether we are the ring service is not known: %s", fault_of(error))
                if self._has_standby and self.state.unrenewed_s > ISOLATED_S:
                    raise StromkreisError(
                        f"the database has not answered for {ISOLATED_S:g} s: another may be the ring service, and"
                        " gateways that call here do not find it"
                    ) from error
            else:
                self.state.renewed()


async def become(
    opened: AsyncExitStack, config: CoordinatorConfig, store: Store, metrics: CoordinatorMetrics,
    reached: Collection[int],
) -> RingService:  # fmt: skip
    """
    Wait until we are the ring service: for ever where we are to stand by, else for a predecessor that is being stopped.

    `reached` are epoch numbers that were used, whatever the database says.  Raises StromkreisError where the
    predecessor stays.
    """
    lease, state = Lease(store.database, config.areas, _name()), RingServiceState(metrics)
    opened.callback(lease.release)
    refused: StromkreisError | None = None  # raised outside the nursery, which would make a group of it
    async with trio.open_nursery() as nursery:
        until_s, is_served = trio.current_time() + PATIENCE_S, False
        while True:
            try:
                holder = await in_thread(lease.take, reached)
            except SQLAlchemyError as error:
                if not config.standby:
                    refused = StromkreisError(f"{store.database.name}: {fault_of(error)}")
                    break
                holder = f"the database fails: {fault_of(error)}"
            if holder is None:
                break
            if not config.standby and trio.current_time() >= until_s:
                refused = refusal(store.database, holder)
                break
            state.stand_by(holder)
            if config.standby and not is_served:
                is_served = True
                await _serve_standby(nursery, config, metrics, state)
            await trio.sleep(_LOOK_S)
        nursery.cancel_scope.cancel()
    if refused is not None:
        raise refused
    state.activate(lease.term)
    log.info("we are the ring service of %s, term %d", ", ".join(lease.areas), lease.term)
    return RingService(lease, state, has_standby=config.standby)


async def _serve_standby(
    nursery: trio.Nursery, config: CoordinatorConfig, metrics: CoordinatorMetrics, state: RingServiceState
) -> None:
    app = FastAPI(title="Stromkreis coordinator, standing by", openapi_url=None, docs_url=None, redoc_url=None)

    async def not_ready() -> str | None:
        return state.not_ready()

    install_health(app, metrics, not_ready, state.described)
    certificate = config.web.certificate or config.pki_path / TLS_CHAIN_FILE
    key = config.web.private_key or config.pki_path / TLS_KEY_FILE
    has_keys = await look_up(lambda: certificate.exists() and key.exists())
    wanted = [each for each in config.web.listen if has_keys or each.startswith("http://")]
    listen = [each for each in wanted if is_free(each)]  # the active one may have them, on the same machine
    if listen:
        addresses = await nursery.start(partial(serve_web, app, listen, certificate=certificate, private_key=key))
        log.info("standing by: /readyz and /metrics at %s", ", ".join(addresses))


def is_free(address: str) -> bool:
    """Whether nobody listens at http(s)://HOST:PORT now."""
    parts = urlsplit(address)
    family = socket.AF_INET6 if ":" in (parts.hostname or "") else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((parts.hostname or "", parts.port or 0))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def _name() -> str:
    return f"{platform.node()[:60]}, process {os.getpid()}"
