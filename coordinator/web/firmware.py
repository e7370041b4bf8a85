"""
The REST interface of firmware: the administrator keeps releases, the operator orders them, gateways fetch and answer.

Who keeps a release decides which program runs on gateways, so that wants an administrator; to order one that is kept
wants an operator.  Routes of gateways want the gateway's signature, as those of profile sets do.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from coordinator.gwa.firmware import FirmwareRollout
from coordinator.gwa.query_proofs import QueryProofs
from coordinator.storage.accounts import AccountRole
from coordinator.storage.firmware import ImageRecord, OrderRecord, OrderState
from coordinator.web.access import Access
from coordinator.web.errors import problem_responses
from coordinator.web.firmware_models import (
    FirmwareList,
    FirmwareOrderPage,
    FirmwareOrderRequest,
    FirmwareOrders,
    FirmwareOrderView,
    FirmwareView,
)
from coordinator.web.models import moment_of
from coordinator.web.profile_models import ReceiptRequest
from coordinator.web.profiles import Proof
from protocol.profiles.firmware import IMAGE_SIZE_MAX, FirmwareManifest, VersionText

Version = Annotated[VersionText, Path()]
_FILE = {
    "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string"}}}}
}  # fmt: skip


def make_firmware_router(
    rollout: FirmwareRollout, access: Access, clock: Callable[[], datetime], proofs: QueryProofs
) -> APIRouter:
    """The routes below `/api/v1/firmware`."""
    router = APIRouter(prefix="/api/v1/firmware", tags=["firmware"], responses=problem_responses(422))
    viewer, operator = access.require(AccountRole.VIEWER), access.require(AccountRole.OPERATOR, audited=True)
    administrator = access.require(AccountRole.ADMINISTRATOR, audited=True)

    @router.post("", operation_id="keep_firmware", status_code=201, dependencies=administrator, openapi_extra=_FILE,
                 responses=problem_responses(401, 403, 409))  # fmt: skip
    async def _keep(request: Request) -> FirmwareView:
        """Keep a firmware file (`stromkreis gwa firmware build`); nothing is ordered by that."""
        document = await request.body()
        return _image(await run_in_threadpool(rollout.keep, document, clock()))

    @router.get("", operation_id="firmware", dependencies=viewer, responses=problem_responses(401, 403))
    def _all() -> FirmwareList:
        """The releases that are kept."""
        return FirmwareList(items=[_image(each) for each in rollout.firmware.images()])

    @router.delete("/{version}", operation_id="remove_firmware", status_code=204, dependencies=administrator,
                   responses=problem_responses(401, 403, 404, 409))  # fmt: skip
    def _remove(version: Version) -> None:
        """Delete a release that no gateway's newest order names."""
        rollout.remove(version)

    @router.post("/{version}/orders", operation_id="order_firmware", status_code=202, dependencies=operator,
                 responses=problem_responses(401, 403, 404))  # fmt: skip
    def _order(version: Version, body: FirmwareOrderRequest) -> FirmwareOrders:
        """Order gateways to run a release; an order that waits, is staged or was carried out stays as it is."""
        orders, missing = rollout.order(version, body.gateways, body.activate, clock())
        return FirmwareOrders(items=[_view(each) for each in orders], not_active=missing)

    @router.get("/orders", operation_id="firmware_orders", dependencies=viewer, responses=problem_responses(401, 403))
    def _page(
        gateway: Annotated[str | None, Query(max_length=14, description="Only these; * stands for any text.")] = None,
        state: OrderState | None = None,
        after: Annotated[str, Query(max_length=14, description="`next` of the page before.")] = "",
        limit: Annotated[int, Query(ge=1, le=1000, description="Size of a page.")] = 100,
    ) -> FirmwareOrderPage:
        """The newest order of each gateway, and what the gateway said of it."""
        found = rollout.firmware.page(limit=limit + 1, after=after, state=state, gateway=gateway)
        following = found[limit - 1].gateway_id if len(found) > limit else None
        return FirmwareOrderPage(items=[_view(each) for each in found[:limit]], next=following)

    @router.get("/{gateway}/{version}/image", operation_id="firmware_image", response_class=Response,
                responses=problem_responses(403, 404))  # fmt: skip
    def _part(
        gateway: str, version: Version, proof: Proof,
        offset: Annotated[int, Query(ge=0, le=IMAGE_SIZE_MAX, description="First byte that is wanted.")] = 0,
    ) -> Response:  # fmt: skip
        """A part of the image, at most 256 KiB, for a gateway that is to run it; empty behind its end."""
        proofs.check(gateway, proof, int(clock().timestamp() * 1000))
        return Response(rollout.part(gateway, version, offset), media_type="application/octet-stream")

    @router.post("/{gateway}/receipt", operation_id="firmware_receipt", responses=problem_responses(403, 404))
    def _receipt(gateway: str, body: ReceiptRequest) -> FirmwareOrderView:
        """Take a gateway's signed word on its order."""
        return _view(rollout.receive(gateway, body.signed()))

    return router


def _image(record: ImageRecord) -> FirmwareView:
    manifest = FirmwareManifest.from_bytes(record.manifest)
    return FirmwareView(
        version=manifest.version, sha256=manifest.sha256, size=manifest.size, hardware=manifest.hardware,
        minimum_version=manifest.minimum_version, valid_from=manifest.valid_from, valid_to=manifest.valid_to,
        created_at=moment_of(record.created_ms),
    )  # fmt: skip


def _view(record: OrderRecord) -> FirmwareOrderView:
    return FirmwareOrderView(
        gateway=record.gateway_id, version=record.version, state=record.state, reason=record.reason,
        issued_at=moment_of(record.issued_ms),
        answered_at=None if record.answered_ms is None else moment_of(record.answered_ms),
    )  # fmt: skip
