"""
The dashboard: one server-rendered page, one JSON document that it draws, one event stream that says when to redraw.

The stream carries no data, only the number of the state's revision; the page then fetches the document.  So there is
one way to draw, a viewer that was away needs no history, and a slow viewer skips revisions instead of queueing them.
The newest interval is drawn once all its rings have ended: a curve whose last point always dips would be misread.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Annotated, Any, Literal

import trio
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from coordinator.status import Status, StatusSource
from coordinator.storage.misbehaviour import MisbehaviourRepository
from coordinator.storage.store import Store
from coordinator.storage.totals import AreaTotal
from coordinator.web.marks import marks_of
from protocol.dcnet.setup.epoch import HONEST_FLOOR
from protocol.dcnet.setup.schema import Kind, Slot
from protocol.metering.obis import Obis

KEEP_ALIVE_S = 15.0
VIEWERS_MAX = 100  # event streams at once: each new revision goes to all of them
PAUSE_S = 0.5  # at most two revisions a second reach a viewer: a day of 160 rings costs 150 ms of CPU to show
REPORTS_SHOWN = 10
WINDOWS = (24, 96, 288, 672)  # intervals: with quarter hours 6 h, 1 day, 3 days, a week
_FEED_IN = 2  # OBIS value group C of active energy into the grid (IEC 62056-61)
_ASSETS = {
    "dashboard.js": ("coordinator.web", "static/dashboard.js", "text/javascript"),
    "dashboard.css": ("coordinator.web", "static/dashboard.css", "text/css"),
    "plotly.min.js": ("plotly", "package_data/plotly.min.js", "text/javascript"),
}


def make_dashboard(store: Store, source: StatusSource, *, has_bills: bool, time_lapse: bool) -> APIRouter:
    """The routes of the dashboard; they are no part of the REST interface and not in its OpenAPI document."""
    router = APIRouter(include_in_schema=False)
    pages = Environment(
        loader=PackageLoader("coordinator.web"), autoescape=True, undefined=StrictUndefined, auto_reload=False
    )

    @router.get("/")
    def _page() -> HTMLResponse:
        assets = {name.replace(".", "_"): f"assets/{_tag(name)}/{name}" for name in _ASSETS}
        page = pages.get_template("dashboard.html")
        return HTMLResponse(page.render(assets=assets, style_ids=_style_ids(), windows=WINDOWS))

    @router.get("/assets/{tag}/{name}")
    def _asset(tag: str, name: str, request: Request) -> Response:
        if name not in _ASSETS or tag != _tag(name):
            raise HTTPException(404, "no such file")
        headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
        media_type = _ASSETS[name][2]
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(_compressed(name), media_type=media_type, headers={**headers, "Content-Encoding": "gzip"})
        return Response(_content(name), media_type=media_type, headers=headers)

    @router.get("/dashboard/data")
    async def _data(
        area: Annotated[str | None, Query(max_length=64)] = None, window: Literal["24", "96", "288", "672"] = "96"
    ) -> dict[str, Any]:
        status = source.status()  # on the trio thread, whose it is; the database is asked in a worker thread
        return await run_in_threadpool(_shown, status, area or None, int(window))

    def _shown(status: Status, area: str | None, window: int) -> dict[str, Any]:
        bills = store.bills.counts(area=area) if has_bills else None
        reports = _reports(store.misbehaviour, area)
        drawn = document(store, status, area=area, window=window, time_lapse=time_lapse)
        return drawn | {"misbehaviour_reports": reports, "bills": bills}

    viewers = trio.CapacityLimiter(VIEWERS_MAX)

    @router.get("/dashboard/events")
    async def _events() -> Response:
        if not viewers.available_tokens:
            raise HTTPException(503, f"{VIEWERS_MAX} viewers are here already")
        return _Revisions(source, viewers)

    return router


class _Revisions(Response):
    """
    Server-sent events: the number of the state's revision, now and whenever it has changed.

    Not a StreamingResponse: that one leaves its generator to the garbage collector when the viewer goes away.
    """

    media_type = "text/event-stream"

    def __init__(self, source: StatusSource, viewers: trio.CapacityLimiter) -> None:
        super().__init__(headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._source = source
        self._viewers = viewers

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one viewer until it goes away."""
        async with self._viewers, trio.open_nursery() as nursery:
            nursery.start_soon(self._send_all, send)
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        while True:
            revision = self._source.status().revision
            event = f"event: revision\ndata: {revision}\n\n".encode()
            await send({"type": "http.response.body", "body": event, "more_body": True})
            with trio.move_on_after(KEEP_ALIVE_S):
                await self._source.changed(revision)
            await trio.sleep(PAUSE_S)


def document(
    store: Store, status: Status, *, area: str | None, window: int, time_lapse: bool = False
) -> dict[str, Any]:  # fmt: skip
    """
    What the page draws: quantities as decimal text in their unit, times as Unix seconds, latencies in milliseconds.

    `window` counts metering intervals up to the newest one.
    """
    rings = [ring for ring in status.rings if area in (None, ring.area)]
    last_s = store.totals.last_interval_start_s(area=area)
    history: list[AreaTotal] = []
    if last_s is not None:
        (newest, *_) = store.totals.totals(last_s, last_s + 1, area=area)
        history = store.totals.totals(last_s - (window - 1) * newest.interval_s, last_s + 1, area=area)
        history = [total for total in history if total.schema == newest.schema]
        if len(history) > 1 and not newest.final:
            history.pop()
    return {
        "revision": status.revision,
        "area": area,
        "areas": store.epochs.areas(),
        "interval_s": history[-1].interval_s if history else None,
        "enrolled": status.enrolled,
        "connected": status.connected,
        "rounds": {
            "opened": sum(total.opened for total in history),
            "void": sum(total.void for total in history),
            "retried": sum(total.retries for total in history),
            "unranged": _unranged(store, history, area),
        },
        "latency_ms": _quantiles([s for total in history for s in total.latencies_s]),
        "series": _series(history) | {"marks": [marks_of(total, time_lapse=time_lapse) for total in history]},
        "honest_min": min((ring.honest_min for ring in rings), default=None),
        "honest_floor": HONEST_FLOOR,
        "rings": [ring.model_dump(mode="json", exclude={"members"}) for ring in rings],
    }


def _unranged(store: Store, history: Sequence[AreaTotal], area: str | None) -> int:
    if not history:
        return 0
    first_s, last_s = history[0].interval_start_s, history[-1].interval_start_s
    return sum(store.range_checks.unranged_rings(first_s, last_s + 1, area=area).values())


def _series(history: Sequence[AreaTotal]) -> dict[str, Any]:
    slots = list(enumerate(history[-1].schema.slots)) if history else []
    return {
        "start_s": [total.interval_start_s for total in history],
        "present": [total.present for total in history],
        "members": [total.members for total in history],
        "enrolled": [total.enrolled for total in history],
        "opened": [total.opened for total in history],
        "rings": [total.rings for total in history],
        "latency_ms": [_quantiles(total.latencies_s) for total in history],
        "power": [_line(history, index, slot) for index, slot in slots if slot.kind is Kind.POWER]
        or _mean_power(history),
        "energy": [_line(history, index, slot) for index, slot in slots if slot.kind is Kind.ENERGY],
    }


def _line(history: Sequence[AreaTotal], index: int, slot: Slot) -> dict[str, Any]:
    # Where no ring opened there is no number: a gap, not a zero.
    values = [None if each.words is None else str(Decimal(each.words[index]).scaleb(slot.scaler)) for each in history]
    feed_in = slot.kind is Kind.ENERGY and slot.obis is not None and Obis.parse(slot.obis).c == _FEED_IN
    deviation = [_scaled(total.deviation(index), slot.scaler) for total in history]
    return {
        "name": slot.name, "obis": slot.obis, "unit": slot.unit, "feed_in": feed_in, "values": values,
        "deviation": deviation,
    }  # fmt: skip


def _mean_power(history: Sequence[AreaTotal]) -> list[dict[str, Any]]:
    """Where totals hold no power: what was drawn less what was fed in, by the length of the interval; in W."""
    slots = history[-1].schema.slots if history else ()
    active = [
        (index, slot, -1 if Obis.parse(slot.obis or "").c == _FEED_IN else 1)
        for index, slot in enumerate(slots)
        if slot.kind is Kind.ENERGY and slot.unit == "Wh"
    ]
    if not active:
        return []
    values = [
        None
        if each.words is None
        else str(
            round(
                sum(Decimal(sign * each.words[index]).scaleb(slot.scaler) for index, slot, sign in active)
                * 3600 / each.interval_s, 1,
            )
        )
        for each in history
    ]  # fmt: skip
    line = {"name": "mean_power", "obis": None, "unit": "W", "feed_in": False, "values": values}
    return [line | {"deviation": [None] * len(history)}]


def _scaled(deviation: float | None, scaler: int) -> float | None:
    return None if deviation is None else deviation * 10.0**scaler


def _reports(reports: MisbehaviourRepository, area: str | None) -> dict[str, Any]:
    """How many there are, and the newest of them."""
    newest = [
        {
            "reporter": each.reporter, "reported": each.reported, "misbehaviour": each.misbehaviour, "area": each.area,
            "epochs": each.epochs, "epoch": each.epoch, "ring": each.ring, "round": each.round,
            "last_s": each.last_ms / 1000,
        }
        for each in reports.page(limit=REPORTS_SHOWN, area=area)
    ]  # fmt: skip
    return {"count": reports.count(area=area), "newest": newest}


def _quantiles(latencies_s: Sequence[float]) -> dict[str, float] | None:
    """The 50th and 95th percentile by nearest rank, in milliseconds."""
    if not latencies_s:
        return None
    ordered = sorted(latencies_s)
    return {f"p{p}": round(ordered[-(-p * len(ordered) // 100) - 1] * 1000, 1) for p in (50, 95)}


@cache
def _content(name: str) -> bytes:
    package, path, _ = _ASSETS[name]
    return files(package).joinpath(path).read_bytes()


@cache
def _compressed(name: str) -> bytes:
    return gzip.compress(_content(name), compresslevel=6, mtime=0)


@cache
def _style_ids() -> tuple[str, ...]:
    """Ids of the style elements that the chart library would insert: the digests by which its bundler names them."""
    found = re.findall(rb'document\.getElementById\("([0-9a-f]{64})"\)', _content("plotly.min.js"))
    return tuple(sorted({name.decode() for name in found}))


@cache
def _tag(name: str) -> str:
    """A part of the address that changes with the content, so that browsers may keep the file for good."""
    return sha256(_content(name)).hexdigest()[:12]
