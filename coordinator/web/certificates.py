"""What gateways ask over HTTPS: to be enrolled, to have their certificates renewed, and who was revoked."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from datetime import datetime

import trio
from cryptography import x509
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from coordinator.gwa.enrolment import Enrolled, Enrolment, EnrolmentRequest, IssuedTriple
from coordinator.gwa.leaving import Leaving
from coordinator.gwa.renewal import Renewal
from coordinator.gwa.revocation import RevocationPublisher
from coordinator.metrics import CoordinatorMetrics
from coordinator.web.errors import problem_responses
from coordinator.web.models import (
    EnrolAnswer,
    EnrolRequest,
    LeaveAnswer,
    LeaveRequest,
    RenewRequest,
    RingServiceAnswer,
    TripleAnswer,
    moment_of,
)
from protocol import pki
from protocol.errors import RemoteProtocolError
from protocol.log_limit import LogLimiter

log = logging.getLogger(__name__)
REFUSAL_S = 1.0  # before an enrolment that is refused hears so; longer, and a gateway with a typing error waits
REFUSED_MAX = 16  # that are delayed at once; more wait their turn, so that trying costs the one who tries
REFUSED_LINE_S = 10.0  # between two log lines about one address


def make_certificate_router(
    enrolment: Enrolment,
    renewal: Renewal,
    leaving: Leaving,
    publisher: RevocationPublisher,
    metrics: CoordinatorMetrics,
    clock: Callable[[], datetime],
) -> APIRouter:
    """The routes below `/api/v1` that have to do with certificates."""
    router = APIRouter(prefix="/api/v1", tags=["gateways"], responses=problem_responses(422))
    lines, delayed = LogLimiter(REFUSED_LINE_S, trio.current_time), trio.CapacityLimiter(REFUSED_MAX)

    @router.post("/enrol", operation_id="enrol", status_code=201, responses=problem_responses(403, 409))
    async def _enrol(body: EnrolRequest, request: Request) -> EnrolAnswer:
        """Admit a gateway that has a token.  Only over HTTPS: the token is a secret.  A refusal takes a second."""
        if request.url.scheme != "https":
            raise RemoteProtocolError("https_required", "an enrolment token travels over HTTPS only")
        try:
            answer = await run_in_threadpool(_enrol_one, enrolment, body, clock())
        except RemoteProtocolError as error:
            metrics.enrolment(enrolled=False)
            address = "an unknown address" if request.client is None else request.client.host
            if lines.is_due(address):
                log.warning("enrolment from %s is refused: %s", address, error)
            async with delayed:
                await trio.sleep(REFUSAL_S)
            raise
        metrics.enrolment(enrolled=True)
        return EnrolAnswer(
            **_triple(answer.certificates), coordinator_curve_key=answer.coordinator_curve_key.hex(),
            coordinator_list_key=answer.list_key.hex(), coordinator_log_key=answer.log_key.hex(),
            endpoint=answer.endpoint,
        )  # fmt: skip

    @router.post("/renew", operation_id="renew", status_code=201, responses=problem_responses(403, 404, 409))
    def _renew(body: RenewRequest) -> TripleAnswer:
        """Issue a gateway's next triple of certificates; its present signature key says who asks."""
        package, endorsement = _from_base64(body.request_package), _from_base64(body.endorsement)
        return TripleAnswer(**_triple(renewal.renew(body.gateway, package, endorsement, clock())))

    @router.post("/leave", operation_id="leave", responses=problem_responses(403, 404, 409))
    def _leave(body: LeaveRequest) -> LeaveAnswer:
        """Revoke a gateway that leaves for good; its signature key says who asks, and asking twice changes nothing."""
        left_ms = leaving.leave(body.gateway, _from_base64(body.endorsement), clock())
        return LeaveAnswer(left_at=moment_of(left_ms))

    @router.get("/ring-service", operation_id="ring_service")
    def _ring_service() -> RingServiceAnswer:
        """What an enrolment says of the ring service: for a node whose gateways enrolled before it said all of it."""
        return RingServiceAnswer(
            coordinator_curve_key=enrolment.coordinator_curve_key.hex(), coordinator_list_key=enrolment.list_key.hex(),
            coordinator_log_key=enrolment.log_key.hex(), endpoint=enrolment.endpoint_of(None),
        )  # fmt: skip

    @router.get("/revocation-lists", operation_id="revocation_lists", response_class=Response)
    def _revocation_lists() -> Response:
        """The sub-CAs' certificates and every CA's revocation list, in PEM."""
        return Response(publisher.bundle(clock()), media_type="application/x-pem-file")

    return router


def _enrol_one(enrolment: Enrolment, body: EnrolRequest, now: datetime) -> Enrolled:
    return enrolment.enrol(_enrolment_request(body), now)


def _enrolment_request(body: EnrolRequest) -> EnrolmentRequest:
    return EnrolmentRequest(
        body.token, body.gateway, body.area, _from_base64(body.request_package), bytes.fromhex(body.curve_public_key),
        None if body.endorsement is None else _from_base64(body.endorsement), _chain(body.seal_chain),
    )  # fmt: skip


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise RemoteProtocolError("request_malformed", "expected base64") from error


def _chain(pem: str | None) -> tuple[bytes, ...]:
    try:
        found = x509.load_pem_x509_certificates(pem.encode()) if pem else []
        return tuple(pki.to_der(each) for each in found)
    except ValueError as error:
        raise RemoteProtocolError("certificate_malformed", "expected certificates in PEM") from error


def _triple(issued: IssuedTriple) -> dict[str, str]:
    return {
        "certificate_chain": issued.signature_chain, "encryption_certificate": issued.encryption,
        "tls_certificate": issued.tls,
    }  # fmt: skip
