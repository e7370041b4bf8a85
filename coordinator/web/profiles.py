"""
The REST interface of profile sets: the operator rolls them out, gateways fetch theirs and send receipts.

The operator's routes want an account's token.  Those of gateways want the gateway's signature: on the question
(`coordinator.gwa.query_proofs`), and on the receipt.  Nobody else learns for whom there is a set.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from coordinator.gwa.firmware import FirmwareRollout
from coordinator.gwa.profiles import ProfileRollout
from coordinator.gwa.query_proofs import QueryProofs
from coordinator.gwa.tunnel_orders import TunnelOrders
from coordinator.storage.accounts import AccountRole
from coordinator.storage.profile_sets import ProfileSetRecord, ProfileSetState
from coordinator.web.access import Access
from coordinator.web.errors import problem_responses
from coordinator.web.models import moment_of
from coordinator.web.profile_models import (
    HeldVersion,
    HeldVersions,
    NewerVersions,
    ProfileMessage,
    ProfileSetPage,
    ProfileSetView,
    ReceiptRequest,
    RefusedQuery,
    WaitingOrder,
    WakeUpRequest,
)
from protocol.errors import RemoteProtocolError
from protocol.profiles.profile_set import ProfileSet
from protocol.profiles.query import PROOF_SIZE_MAX

Proof = Annotated[str, Header(alias="X-Gateway-Proof", max_length=PROOF_SIZE_MAX)]
_DOCUMENT = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}


def make_profile_router(
    rollout: ProfileRollout, access: Access, clock: Callable[[], datetime], proofs: QueryProofs,
    orders: TunnelOrders | None = None, firmware: FirmwareRollout | None = None,
) -> APIRouter:  # fmt: skip
    """The routes below `/api/v1` for profile sets; gateways that ask get orders for tunnels and `firmware`, too."""
    router = APIRouter(prefix="/api/v1/profile-sets", tags=["profiles"], responses=problem_responses(422))
    viewer, operator = access.require(AccountRole.VIEWER), access.require(AccountRole.OPERATOR, audited=True)

    @router.post(
        "", operation_id="roll_out_profiles", status_code=202, dependencies=operator, openapi_extra=_DOCUMENT,
        responses=problem_responses(401, 403, 404, 409),
    )  # fmt: skip
    async def _roll_out(request: Request) -> ProfileSetView:
        """Sign a profile set (`stromkreis profile schema`) for its gateway; the same one again is offered again."""
        profiles = ProfileSet.from_bytes(await request.body())
        return _view(await run_in_threadpool(rollout.roll_out, profiles, clock()))

    @router.get("", operation_id="profile_sets", dependencies=viewer, responses=problem_responses(401, 403))
    def _page(
        gateway: Annotated[str | None, Query(max_length=14, description="Only these; * stands for any text.")] = None,
        state: ProfileSetState | None = None,
        after: Annotated[str, Query(max_length=14, description="`next` of the page before.")] = "",
        limit: Annotated[int, Query(ge=1, le=1000, description="Size of a page.")] = 100,
    ) -> ProfileSetPage:
        """The newest profile set of each gateway, and what the gateway said of it."""
        found = rollout.profile_sets.page(limit=limit + 1, after=after, state=state, gateway=gateway)
        page = found[:limit]
        following = page[-1].gateway_id if len(found) > limit else None
        return ProfileSetPage(items=[_view(each) for each in page], next=following)

    @router.get(
        "/{gateway}", operation_id="export_profiles", dependencies=operator, response_class=Response,
        responses=problem_responses(401, 403, 404),
    )  # fmt: skip
    def _export(gateway: str) -> Response:
        """The newest profile set of a gateway, as canonical JSON."""
        return Response(rollout.export(gateway), media_type="application/json")

    @router.post("/newer", operation_id="newer_profiles")
    def _newer(request: Request, body: HeldVersions) -> NewerVersions:
        """Which of a node's gateways there is a profile set for; each gateway's question is signed by its key."""
        wrong = proofs.check_all({each.gateway: each.proof for each in body.items}, _ms(clock()))
        found = rollout.newer({each.gateway: each.version for each in body.items if each.gateway not in wrong}, clock())
        items = [HeldVersion(gateway=gateway, version=version) for gateway, version in found]
        refused = [
            RefusedQuery(gateway=gateway, reason=error.reason, detail=error.detail) for gateway, error in wrong.items()
        ]
        waiting, proven = [], [each.gateway for each in body.items if each.gateway not in wrong]
        if orders is not None:
            if body.wake_up_port is not None and request.client is not None:
                orders.heard_from(proven, (request.client.host, body.wake_up_port))
            waiting = _waiting(orders.waiting(proven))
        releases = [] if firmware is None or not body.takes_firmware else _waiting(firmware.waiting(proven))
        return NewerVersions(
            items=items, refused=refused, orders=waiting, firmware=releases,
            certificate_chain=rollout.certificate_chain,
        )  # fmt: skip

    @router.post(
        "/wake-up",
        operation_id="wake_up",
        status_code=202,
        dependencies=operator,
        responses=problem_responses(401, 403),
    )
    def _wake_up(body: WakeUpRequest) -> None:
        """Send a gateway a wake-up message: it asks for its profiles at once.  Nothing tells whether it arrived."""
        message = rollout.wake_up(body.gateway, clock())
        try:
            found = socket.getaddrinfo(body.host, body.port, type=socket.SOCK_DGRAM)
            with socket.socket(found[0][0], socket.SOCK_DGRAM) as sender:
                sender.sendto(message, found[0][4])
        except OSError as error:
            raise RemoteProtocolError("wake_up_address", f"{body.host}: {error.strerror}") from error

    @router.get("/{gateway}/{version}/message", operation_id="profile_message", responses=problem_responses(403, 404))
    def _message(gateway: str, version: Annotated[int, Path(ge=1, le=2**53)], proof: Proof) -> ProfileMessage:
        """A profile set as the message that its gateway can read, for that gateway."""
        proofs.check(gateway, proof, _ms(clock()))
        message = base64.b64encode(rollout.message(gateway, version)).decode()
        return ProfileMessage(message=message, certificate_chain=rollout.certificate_chain)

    @router.post("/{gateway}/receipt", operation_id="profile_receipt", responses=problem_responses(403, 404))
    def _receipt(gateway: str, body: ReceiptRequest) -> ProfileSetView:
        """Take a gateway's signed word on a profile set."""
        return _view(rollout.receive(gateway, body.signed()))

    return router


def _waiting(messages: Iterable[tuple[str, bytes]]) -> list[WaitingOrder]:
    return [WaitingOrder(gateway=gateway, message=base64.b64encode(message).decode()) for gateway, message in messages]


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _view(record: ProfileSetRecord) -> ProfileSetView:
    return ProfileSetView(
        gateway=record.gateway_id, version=record.version, digest=record.digest, state=record.state,
        reason=record.reason, issued_at=moment_of(record.issued_ms),
        answered_at=None if record.answered_ms is None else moment_of(record.answered_ms),
    )  # fmt: skip
