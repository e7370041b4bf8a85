"""
The REST interface, version 1.

Endpoints that ask the database are plain functions: FastAPI runs them in worker threads, off the trio loop that serves
the rings.  Pages go by key, not by offset, so that rounds that end meanwhile neither repeat nor skip a line.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from coordinator.status import Member, StatusSource
from coordinator.storage.gateways import GatewayRecord
from coordinator.storage.misbehaviour import ReportKey, StoredReport
from coordinator.storage.rounds import RoundKey, RoundRecord
from coordinator.storage.store import Store
from coordinator.storage.totals import AreaTotal
from coordinator.web.errors import problem_responses
from coordinator.web.marks import marks_of
from coordinator.web.models import (
    GatewayCounts,
    GatewayPage,
    GatewayView,
    MisbehaviourReportPage,
    MisbehaviourReportView,
    NoiseView,
    Quantity,
    RingCounts,
    RingPage,
    Round,
    RoundPage,
    Total,
    TotalPage,
)
from protocol import pki
from protocol.errors import RemoteProtocolError

AreaQuery = Annotated[str | None, Query(max_length=64, description="Only this area.")]
LimitQuery = Annotated[int, Query(ge=1, le=1000, description="Size of a page.")]
GatewayQuery = Annotated[str | None, Query(max_length=14, description="Only this gateway.")]
_CURSOR = re.compile(r"(\d{1,18})-(\d{1,9})-(\d{1,9})")
_REPORT_CURSOR = re.compile(r"(\d{1,18})-([A-Z0-9]{14})-([A-Z0-9]{14})-([a-z_]{1,16})")


def make_totals_router(store: Store, *, time_lapse: bool) -> APIRouter:
    """What the market participant asks the round ledger, below `/api/v1`."""
    router = APIRouter(prefix="/api/v1", responses=problem_responses(422))

    @router.get("/totals", operation_id="totals", tags=["totals"])
    def _totals(
        from_: Annotated[AwareDatetime, Query(alias="from", description="First interval start, inclusive.")],
        to: Annotated[AwareDatetime, Query(description="Last interval start, exclusive.")],
        area: AreaQuery = None,
        limit: LimitQuery = 100,
    ) -> TotalPage:
        """Exact totals by metering interval, oldest first; all areas together where none is named."""
        first_s, end_s = -(-from_.timestamp() // 1), -(-to.timestamp() // 1)
        found = store.totals.totals(int(first_s), int(end_s), area=area, limit=limit + 1)
        starts = list(dict.fromkeys(total.interval_start_s for total in found))
        following = starts[limit] if len(starts) > limit else None
        page = [total for total in found if following is None or total.interval_start_s < following]
        unranged = store.range_checks.unranged_rings(int(first_s), int(end_s), area=area)
        items = [total_view(each, unranged.get(each.interval_start_s, 0), time_lapse=time_lapse) for each in page]
        return TotalPage(items=items, next=None if following is None else _time(following))

    @router.get("/rounds", operation_id="rounds", tags=["rings"])
    def _rounds(
        epoch: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
        ring: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
        area: AreaQuery = None,
        outcome: Literal["opened", "void"] | None = None,
        cursor: Annotated[str | None, Query(description="`next` of the page before.")] = None,
        limit: LimitQuery = 100,
    ) -> RoundPage:
        """How rounds ended, newest first, with who is missing."""
        before = None if cursor is None else _key(cursor)
        found = store.rounds.page(limit=limit + 1, before=before, epoch=epoch, ring=ring, area=area, outcome=outcome)
        page = found[:limit]
        following = "-".join(map(str, page[-1].key)) if len(found) > limit else None
        owing = store.range_checks.owing_positions((e.ended.epoch, e.ended.ring, e.ended.round) for e in page)
        return RoundPage(items=[_round(record, owing) for record in page], next=following)

    return router


def make_rings_router(source: StatusSource) -> APIRouter:
    """The running rings, below `/api/v1`."""
    router = APIRouter(prefix="/api/v1", responses=problem_responses(422))

    @router.get("/rings", operation_id="rings", tags=["rings"])
    async def _rings(
        area: AreaQuery = None, offset: Annotated[int, Query(ge=0, lt=2**31)] = 0, limit: LimitQuery = 100
    ) -> RingPage:
        """The rings of the current epochs as they stand."""
        found = [ring for ring in source.status().rings if area in (None, ring.area)]
        page = found[offset : offset + limit]
        return RingPage(items=page, next=offset + limit if len(found) > offset + limit else None)

    return router


def make_directory_router(store: Store) -> APIRouter:
    """The gateway administrator's directory and reports, below `/api/v1`."""
    router = APIRouter(prefix="/api/v1", responses=problem_responses(422))

    @router.get("/misbehaviour-reports", operation_id="misbehaviour_reports", tags=["rings"])
    def _reports(
        area: AreaQuery = None,
        reporter: GatewayQuery = None,
        reported: GatewayQuery = None,
        cursor: Annotated[str | None, Query(description="`next` of the page before.")] = None,
        limit: LimitQuery = 100,
    ) -> MisbehaviourReportPage:
        """What gateways report of each other, the last said first: heads of members, members of who dealt to them."""
        before = None if cursor is None else _report_key(cursor)
        found = store.misbehaviour.page(limit=limit + 1, area=area, reporter=reporter, reported=reported, before=before)
        page = found[:limit]
        following = "-".join(map(str, page[-1].key)) if len(found) > limit else None
        return MisbehaviourReportPage(items=[_report(each) for each in page], next=following)

    @router.get("/gateways", operation_id="gateways", tags=["gateways"])
    def _gateways(
        area: AreaQuery = None,
        after: Annotated[str, Query(max_length=14, description="`next` of the page before.")] = "",
        limit: LimitQuery = 100,
    ) -> GatewayPage:
        """The directory of enrolled gateways, by id."""
        found = store.gateways.page(area=area, after=after, limit=limit + 1)
        page = found[:limit]
        return GatewayPage(
            items=[_gateway(gateway) for gateway in page], next=page[-1].gateway_id if len(found) > limit else None
        )

    return router


def _key(cursor: str) -> RoundKey:
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise RemoteProtocolError("cursor", "not a cursor of this interface")
    epoch, round_, ring = map(int, match.groups())
    return epoch, round_, ring


def _report_key(cursor: str) -> ReportKey:
    match = _REPORT_CURSOR.fullmatch(cursor)
    if match is None:
        raise RemoteProtocolError("cursor", "not a cursor of this interface")
    return int(match[1]), match[2], match[3], match[4]


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _places(members: tuple[str, ...], positions: tuple[int, ...]) -> list[Member]:
    return [Member(position=position, gateway=members[position]) for position in positions]


def total_view(total: AreaTotal, unranged: int, *, time_lapse: bool, slots: Sequence[int] | None = None) -> Total:
    """A total as REST says it, with the values of these slots (None: of all); `unranged` rings owe range proofs."""
    return Total(
        interval_start=_time(total.interval_start_s), interval_s=total.interval_s, area=total.area,
        final=total.final, complete=total.complete, verified=total.verified,
        rings=RingCounts(
            total=total.rings, opened=total.opened, void=total.void, unranged=unranged, smallest=total.smallest_ring
        ),
        gateways=GatewayCounts(enrolled=total.enrolled, members=total.members, present=total.present),
        marks=marks_of(total, time_lapse=time_lapse),
        values=[
            Quantity(
                name=slot.name, obis=slot.obis, unit=slot.unit, scaler=slot.scaler, kind=slot.kind.value,
                value=None if total.words is None else str(total.words[index]), noise=_noise(total, index),
            )
            for index, slot in enumerate(total.schema.slots) if slots is None or index in slots
        ],
    )  # fmt: skip


def _noise(total: AreaTotal, slot: int) -> NoiseView | None:
    noise = total.schema.slots[slot].noise
    if noise is None:
        return None
    return NoiseView(
        epsilon=noise.epsilon_ppm / 1_000_000, sensitivity=noise.sensitivity, deviation=total.deviation(slot)
    )


def _round(record: RoundRecord, owing: Mapping[tuple[int, int, int], Sequence[int]]) -> Round:
    ended = record.ended
    unranged = tuple(owing.get((ended.epoch, ended.ring, ended.round), ()))
    outcome: Any = ended.outcome.name.lower()
    (head,) = _places(record.members, (ended.term % len(record.members),))
    return Round(
        epoch=ended.epoch, ring=ended.ring, round=ended.round, area=record.area, outcome=outcome,
        attempt=ended.attempt, head=head, members=len(record.members), present=ended.roster.bit_count(),
        missing=_places(record.members, record.missing), verified=ended.verified,
        unranged=_places(record.members, unranged), reason=ended.reason,
        interval_start=_time(record.interval_start_s), ended_at=_time(ended.ended_s),
        latency_ms=round((ended.ended_s - ended.opened_s) * 1000, 3),
    )  # fmt: skip


def _report(said: StoredReport) -> MisbehaviourReportView:
    kind: Any = said.misbehaviour
    return MisbehaviourReportView(
        reporter=said.reporter, reported=said.reported, misbehaviour=kind, area=said.area, epochs=said.epochs,
        epoch=said.epoch, ring=said.ring, round=said.round, first_at=_time(said.first_ms / 1000),
        last_at=_time(said.last_ms / 1000),
    )  # fmt: skip


def _gateway(gateway: GatewayRecord) -> GatewayView:
    expires_at = pki.load_certificate(gateway.certificate).not_valid_after_utc
    fingerprint = hashlib.sha256(gateway.certificate).hexdigest()
    status: Literal["active", "revoked", "left"] = "left" if gateway.left_ms is not None else gateway.status.value
    return GatewayView(
        id=gateway.gateway_id, area=gateway.area, status=status,
        enrolled_at=_time(gateway.enrolled_ms / 1000), certificate_sha256=fingerprint,
        certificate_expires_at=expires_at,
    )  # fmt: skip
