"""
Where market participants fetch the totals that are for them: a server of its own with mutual TLS.

Dashboard and `/api/v1/totals` show the operator of the coordinator every total; participants are not let in there.
Whoever connects here shows a participant's TLS certificate below the SM-PKI root, and gets that participant's totals.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Annotated, Final

import trio
from fastapi import FastAPI, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime

from coordinator.config import CoordinatorConfig
from coordinator.emp.participant_totals import ParticipantTotals, TotalsOfArea
from coordinator.gwa.ca import ROOT_FILE, TLS_CHAIN_FILE, TLS_KEY_FILE
from coordinator.metrics import CoordinatorMetrics
from coordinator.storage.totals import AreaTotal
from coordinator.web.api import LimitQuery, total_view
from coordinator.web.errors import Guard, install_errors
from coordinator.web.models import ApiModel, TotalPage
from coordinator.web.serve import serve
from protocol.errors import RemoteProtocolError

log = logging.getLogger(__name__)
TOTALS_PATH: Final = "/emp/v1/totals"
COLUMNS: Final = (
    "interval_start", "interval_s", "area", "name", "obis", "value", "unit", "gateways", "members", "final", "complete",
    "verified",
)  # fmt: skip
_PAGE: Final = 500
AreaQuery = Annotated[str, Query(min_length=1, max_length=64, description="The area.")]
FromQuery = Annotated[AwareDatetime, Query(alias="from", description="First interval start, inclusive.")]
ToQuery = Annotated[AwareDatetime, Query(description="Last interval start, exclusive.")]


class ParticipantArea(ApiModel):
    """An area of which totals are for the participant."""

    area: str
    registers: list[str]
    """OBIS codes of those totals, of all epochs together."""


class ParticipantAreas(ApiModel):
    """All of them, by name."""

    participant: str
    areas: list[ParticipantArea]


def make_participant_app(totals: ParticipantTotals, metrics: CoordinatorMetrics, *, time_lapse: bool) -> FastAPI:
    """The participants' web service; serve it with mutual TLS only.  `time_lapse` marks every total."""
    app = FastAPI(title="Stromkreis totals for market participants", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(Guard)
    install_errors(app, metrics)

    @app.get("/emp/v1/areas")
    def _areas(request: Request) -> ParticipantAreas:
        """The areas of which totals are for whoever asks, and the registers of these totals."""
        participant = totals.participant(_certificate(request))
        found = totals.registers(participant).items()
        return ParticipantAreas(
            participant=participant, areas=[ParticipantArea(area=name, registers=list(each)) for name, each in found]
        )

    @app.get(TOTALS_PATH)
    def _totals(request: Request, area: AreaQuery, from_: FromQuery, to: ToQuery, limit: LimitQuery = 100) -> TotalPage:
        """Totals of an area by metering interval, oldest first, with the values that are for whoever asks."""
        participant = totals.participant(_certificate(request))
        found = totals.totals(participant, area, _start_s(from_), _start_s(to), limit)
        items = [
            total_view(each, found.unranged.get(each.interval_start_s, 0), time_lapse=time_lapse, slots=_slots(each))
            for each in found.totals
        ]
        return TotalPage(items=items, next=None if found.next_s is None else datetime.fromtimestamp(found.next_s, UTC))

    @app.get(f"{TOTALS_PATH}.csv")
    def _export(request: Request, area: AreaQuery, from_: FromQuery, to: ToQuery) -> StreamingResponse:
        """The same as CSV, one line for each value, all pages."""
        participant, end_s = totals.participant(_certificate(request)), _start_s(to)

        def page(start_s: int) -> TotalsOfArea:
            return totals.totals(participant, area, start_s, end_s, _PAGE)

        first = page(_start_s(from_))  # refused before the answer begins

        def lines() -> Iterator[bytes]:
            found = first
            yield _csv([COLUMNS])
            while True:
                yield _csv(row for each in found.totals for row in _rows(each))
                if found.next_s is None:
                    return
                found = page(found.next_s)

        return StreamingResponse(lines(), media_type="text/csv")

    return app


async def serve_totals(
    nursery: trio.Nursery, config: CoordinatorConfig, totals: ParticipantTotals, metrics: CoordinatorMetrics
) -> None:
    """Serve participants at `config.web.totals`.  Raises StromkreisError where that address is taken."""
    app = make_participant_app(totals, metrics, time_lapse=config.epoch.period_s != config.epoch.interval_s)
    web, pki_path = config.web, config.pki_path
    (bound,) = await nursery.start(
        partial(
            serve, app, [str(web.totals)], certificate=web.certificate or pki_path / TLS_CHAIN_FILE,
            private_key=web.private_key or pki_path / TLS_KEY_FILE, client_root=pki_path / ROOT_FILE,
        )
    )  # fmt: skip
    log.info("totals for market participants at %s%s", bound, TOTALS_PATH)


def _certificate(request: Request) -> str:
    chain = request.scope.get("extensions", {}).get("tls", {}).get("client_cert_chain") or ()
    if not chain:
        raise RemoteProtocolError("https_required", "totals are fetched over mutual TLS only")
    return str(chain[0])


def _start_s(moment: datetime) -> int:
    return int(-(-moment.timestamp() // 1))


def _slots(total: AreaTotal) -> list[int]:
    """The count of gateways, and what the schema says is for the one participant that it names."""
    return [index for index, slot in enumerate(total.schema.slots) if slot.obis is None or slot.recipients]


def _rows(total: AreaTotal) -> Iterator[tuple[object, ...]]:
    start = f"{datetime.fromtimestamp(total.interval_start_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
    for index in _slots(total):
        slot = total.schema.slots[index]
        value = "" if total.words is None else f"{Decimal(total.words[index]).scaleb(slot.scaler):f}"
        yield (
            start, total.interval_s, total.area, slot.name, slot.obis or "", value, slot.unit, total.present,
            total.members, int(total.final), int(total.complete), int(total.verified),
        )  # fmt: skip


def _csv(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
