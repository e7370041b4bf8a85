"""What gateways ask over HTTPS: to be enrolled, to have their certificates renewed, and who was revoked."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime

from cryptography import x509
from fastapi import APIRouter, Request, Response

from coordinator.gwa.enrolment import Enrolment, EnrolmentRequest, IssuedTriple
from coordinator.gwa.renewal import Renewal
from coordinator.gwa.revocation import RevocationPublisher
from coordinator.metrics import CoordinatorMetrics
from coordinator.web.errors import problem_responses
from coordinator.web.models import EnrolAnswer, EnrolRequest, RenewRequest, TripleAnswer
from protocol import pki
from protocol.errors import RemoteProtocolError


def make_certificate_router(
    enrolment: Enrolment,
    renewal: Renewal,
    publisher: RevocationPublisher,
    metrics: CoordinatorMetrics,
    clock: Callable[[], datetime],
) -> APIRouter:
    """The routes below `/api/v1` that have to do with certificates."""
    router = APIRouter(prefix="/api/v1", tags=["gateways"], responses=problem_responses(422))

    @router.post("/enrol", operation_id="enrol", status_code=201, responses=problem_responses(403, 409))
    def _enrol(body: EnrolRequest, request: Request) -> EnrolAnswer:
        """Admit a gateway that has a token.  Only over HTTPS: the token is a secret."""
        if request.url.scheme != "https":
            raise RemoteProtocolError("https_required", "an enrolment token travels over HTTPS only")
        try:
            answer = enrolment.enrol(_enrolment_request(body), clock())
        except RemoteProtocolError:
            metrics.enrolment(enrolled=False)
            raise
        metrics.enrolment(enrolled=True)
        return EnrolAnswer(
            **_triple(answer.certificates), coordinator_curve_key=answer.coordinator_curve_key.hex(),
            endpoint=answer.endpoint,
        )  # fmt: skip

    @router.post("/renew", operation_id="renew", status_code=201, responses=problem_responses(403, 404, 409))
    def _renew(body: RenewRequest) -> TripleAnswer:
        """Issue a gateway's next triple of certificates; its present signature key says who asks."""
        package, endorsement = _from_base64(body.request_package), _from_base64(body.endorsement)
        return TripleAnswer(**_triple(renewal.renew(body.gateway, package, endorsement, clock())))

    @router.get("/revocation-lists", operation_id="revocation_lists", response_class=Response)
    def _revocation_lists() -> Response:
        """The sub-CAs' certificates and every CA's revocation list, in PEM."""
        return Response(publisher.bundle(clock()), media_type="application/x-pem-file")

    return router


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
