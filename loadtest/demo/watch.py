"""
What the demo sees of the coordinator: its public REST interface and nothing else.

The demo watches as an operator would, with the same numbers that a dashboard or a script gets; only the verdict at
the end is made from the durable round ledger, because what counts is what is on the disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import httpx

from loadtest.demo.plan import INTERVAL_S

_PAGE = 200


@dataclass(frozen=True, slots=True)
class RoundSeen:
    """How one round of one ring ended; `missing` are gateway ids, `latency_ms` from its opening to its end."""

    epoch: int
    ring: int
    round: int
    area: str
    opened: bool
    members: int
    missing: tuple[str, ...]
    latency_ms: float
    reason: str


@dataclass(frozen=True, slots=True)
class TotalSeen:
    """The total of all areas over one interval, in the units of the schema; power is the mean of the interval."""

    interval_start: str
    complete: bool
    present: int
    power_w: Decimal
    import_wh: Decimal
    export_wh: Decimal


@dataclass(slots=True)
class Watch:
    """Everything seen so far; `poll` adds what is new."""

    client: httpx.AsyncClient
    rounds: dict[tuple[int, int, int], RoundSeen] = field(default_factory=dict)
    totals: list[TotalSeen] = field(default_factory=list)

    async def poll(self) -> bool:
        """Ask once; False where the coordinator did not answer (it may be busy), and nothing was added."""
        try:
            await self._poll_rounds()
            await self._poll_totals()
        except httpx.HTTPError:
            return False
        return True

    async def _poll_rounds(self) -> None:
        cursor: str | None = None
        while True:
            query = {"limit": str(_PAGE)} | ({} if cursor is None else {"cursor": cursor})
            page = await self._get("/api/v1/rounds", query)
            seen = [_round(item) for item in page["items"]]
            fresh = [each for each in seen if (each.epoch, each.round, each.ring) not in self.rounds]
            self.rounds.update({(each.epoch, each.round, each.ring): each for each in fresh})
            cursor = page["next"]
            # Newest first, but rings end out of order: one page beyond the first known one is looked at as well.
            if cursor is None or not fresh:
                return

    async def _poll_totals(self) -> None:
        query = {"from": "2000-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z", "limit": "1000"}
        page = await self._get("/api/v1/totals", query)
        self.totals = [_total(item) for item in page["items"]]

    async def _get(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        response = await self.client.get(path, params=query)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    @property
    def ended(self) -> int:
        """How many quarter hours have ended since the first, in all areas."""
        starts = [datetime.fromisoformat(total.interval_start) for total in self.totals]
        ended = [start for start, total in zip(starts, self.totals, strict=True) if total.complete]
        return round((max(ended) - min(starts)).total_seconds() / INTERVAL_S) + 1 if ended else 0


def _round(item: dict[str, Any]) -> RoundSeen:
    return RoundSeen(
        item["epoch"], item["ring"], item["round"], item["area"], item["outcome"] == "opened", item["members"],
        tuple(member["gateway"] for member in item["missing"]), item["latency_ms"], item["reason"],
    )  # fmt: skip


def _total(item: dict[str, Any]) -> TotalSeen:
    quantity = {
        each["obis"]: Decimal(each["value"]).scaleb(each["scaler"])
        for each in item["values"]
        if each["obis"] is not None and each["value"] is not None
    }
    taken_wh, fed_in_wh = (quantity.get(obis, Decimal(0)) for obis in ("1-0:1.8.0*255", "1-0:2.8.0*255"))
    mean_w = (taken_wh - fed_in_wh) * 3600 / INTERVAL_S
    return TotalSeen(
        item["interval_start"], item["final"], item["gateways"]["present"], mean_w, taken_wh, fed_in_wh
    )  # fmt: skip
