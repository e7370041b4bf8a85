"""The enrolment log for auditors: all entries and the newest signed head.  Gateways get proofs over their own links."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from coordinator.storage.enrolment_log import LoggedEntry
from coordinator.storage.store import Store
from coordinator.web.errors import problem_responses
from coordinator.web.models import ApiModel
from protocol.enrolment_log.entries import TreeHead


class LogHead(ApiModel):
    """The newest tree head of the enrolment log (RFC 9162)."""

    size: Annotated[int, Field(ge=0)]
    """Entries under it."""
    root: str
    """Root of the tree, 32 bytes in hexadecimal."""
    time_ms: int
    """When it was signed, Unix time in milliseconds."""
    signature: str
    """Ed25519 signature by the log's key, 64 bytes in hexadecimal."""


class LogEntryView(ApiModel):
    """One entry of the log."""

    number: Annotated[int, Field(ge=0)]
    """Its place in the log, from 0."""
    kind: str
    """`certificate`, `revoked` or `history`."""
    subject: str
    """The gateway, or EPOCH/RING of a history."""
    digest: str
    """SHA-256 of the certificate, or the leaf of the history: 32 bytes in hexadecimal."""
    time_ms: int
    """When it was entered, Unix time in milliseconds."""
    reference: str
    """What it was entered for, once: the certificate's serial number, the gateway, EPOCH/RING."""


class LogPage(ApiModel):
    """Entries in order."""

    items: list[LogEntryView]
    next: int | None
    """`from` of the next page."""


def make_log_router(store: Store) -> APIRouter:
    """The routes below `/api/v1/enrolment-log`."""
    router = APIRouter(prefix="/api/v1/enrolment-log", tags=["enrolment log"], responses=problem_responses(422))

    @router.get("/head", operation_id="log_head")
    def _head() -> LogHead:
        """The newest signed tree head; of size 0 before the first entry."""
        head = store.enrolment_log.head() or TreeHead(0, b"", 0, b"")
        return LogHead(size=head.size, root=head.root.hex(), time_ms=head.time_ms, signature=head.signature.hex())

    @router.get("/entries", operation_id="log_entries")
    def _entries(
        from_: Annotated[int, Query(alias="from", ge=0, lt=2**40, description="Number of the first entry.")] = 0,
        limit: Annotated[int, Query(ge=1, le=1000, description="Size of a page.")] = 1000,
    ) -> LogPage:
        """Entries of the log from a number on."""
        found = store.enrolment_log.entries(from_, limit + 1)
        items = [_view(each) for each in found[:limit]]
        return LogPage(items=items, next=found[limit].number if len(found) > limit else None)

    return router


def _view(each: LoggedEntry) -> LogEntryView:
    entry = each.entry
    return LogEntryView(
        number=each.number, kind=entry.kind.name.lower(), subject=entry.subject, digest=entry.digest.hex(),
        time_ms=entry.time_ms, reference=each.reference,
    )  # fmt: skip
