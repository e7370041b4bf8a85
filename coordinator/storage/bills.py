"""Bills by gateway and request: `asked`, then `verified`, `refused` or `declined`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, func, select, tuple_

from coordinator.storage.engine import Database
from coordinator.storage.tables import bills
from protocol.dcnet.billing.tariff import money


class BillStatus(StrEnum):
    """How a bill stands."""

    ASKED = "asked"
    VERIFIED = "verified"
    REFUSED = "refused"
    DECLINED = "declined"


@dataclass(frozen=True, slots=True)
class NewBill:
    """A bill to ask a gateway for; `intervals` is a bitmap over the tariff's prices, `scaler` that of the amount."""

    gateway_id: str
    request: bytes
    area: str
    tariff: bytes
    obis: str
    first_s: int
    last_s: int
    intervals: bytes
    interval_count: int
    scaler: int


@dataclass(frozen=True, slots=True)
class JudgedBill:
    """
    What a verified answer says: the amount at the bill's scaler, a multiple of 2^`quantum_bits` where these are not 0,
    Σx at the register's scaler, and how many intervals' prices are means of blocks around a spike.
    """

    amount: int
    energy: int
    register_scaler: int
    quantum_bits: int
    averaged: int


@dataclass(frozen=True, slots=True)
class BillRecord:
    """
    One gateway's bill over `interval_count` intervals, made `scaler` of its amount.

    `amount` is in the tariff's currency: exact, or rounded down to a multiple of `rounded_to`; `energy` is the sum of
    the intervals in the register's unit; `averaged` intervals have the mean price of a block.
    """

    gateway: str
    request: bytes
    area: str
    tariff: bytes
    obis: str
    first_s: int
    last_s: int
    intervals: bytes
    interval_count: int
    scaler: int
    status: BillStatus
    amount: Decimal | None
    rounded_to: Decimal | None
    energy: Decimal | None
    averaged: int
    reason: str
    asked_ms: int
    ended_ms: int | None


class BillRepository:
    """Table `bills`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ask(self, batch: Sequence[NewBill], now_ms: int) -> None:
        """Keep bills that gateways are to be asked for; one that was declined is asked for anew."""
        if not batch:
            return
        statement = self._database.insert(bills)
        again = {name: statement.excluded[name] for name in ("status", "reason", "asked_ms", "ended_ms")}
        statement = statement.on_conflict_do_update(index_elements=["gateway_id", "request"], set_=again)
        asked = {"status": BillStatus.ASKED, "reason": "", "asked_ms": now_ms, "ended_ms": None}
        rows = [{name: getattr(each, name) for name in NewBill.__slots__} | asked for each in batch]
        with self._database.write() as connection:
            connection.execute(statement, rows)

    def billed(self, obis: str, first_s: int, last_s: int) -> list[tuple[str, bytes, bytes]]:
        """Gateway, intervals and tariff of the bills of a register within [first_s, last_s] that were not declined."""
        statement = select(bills.c.gateway_id, bills.c.intervals, bills.c.tariff).where(
            bills.c.obis == obis, bills.c.status != BillStatus.DECLINED,
            bills.c.first_s <= last_s, bills.c.last_s >= first_s,
        )  # fmt: skip
        with self._database.read() as connection:
            return [(row.gateway_id, row.intervals, row.tariff) for row in connection.execute(statement)]

    def outstanding(self) -> list[tuple[str, bytes]]:
        """The (gateway, request) of all bills that wait for their gateway, oldest first."""
        statement = select(bills.c.gateway_id, bills.c.request).where(bills.c.status == BillStatus.ASKED)
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(bills.c.asked_ms, bills.c.first_s, bills.c.gateway_id))
            return [(row.gateway_id, row.request) for row in rows]

    def asked(self, gateway: str, request: bytes) -> BillRecord | None:
        """A bill that waits for its gateway."""
        where = (bills.c.gateway_id == gateway, bills.c.request == request, bills.c.status == BillStatus.ASKED)
        with self._database.read() as connection:
            row = connection.execute(select(bills).where(*where)).first()
        return None if row is None else _record(row)

    def end(
        self, gateway: str, request: bytes, status: BillStatus, reason: str, now_ms: int, *,
        answer: bytes | None = None, judged: JudgedBill | None = None,
    ) -> bool:  # fmt: skip
        """End a bill that waits for its gateway, with the message that it sent; False where it does not wait."""
        where = (bills.c.gateway_id == gateway, bills.c.request == request, bills.c.status == BillStatus.ASKED)
        changes: dict[str, Any] = {"status": status, "reason": reason[:80], "ended_ms": now_ms}
        if answer is not None:
            changes["answer"] = answer
        if judged is not None:
            changes |= {
                "amount": str(judged.amount), "energy": str(judged.energy), "register_scaler": judged.register_scaler,
                "quantum_bits": judged.quantum_bits, "averaged": judged.averaged,
            }  # fmt: skip
        with self._database.write() as connection:
            return connection.execute(bills.update().where(*where).values(changes)).rowcount == 1

    def page(
        self, *, limit: int, area: str | None = None, tariff: bytes | None = None, status: BillStatus | None = None,
        gateway: str | None = None, after: tuple[str, bytes] | None = None,
    ) -> list[BillRecord]:  # fmt: skip
        """Bills by gateway and request, those after `after`."""
        statement = select(bills)
        wanted = (
            (bills.c.area, area), (bills.c.tariff, tariff), (bills.c.status, status), (bills.c.gateway_id, gateway)
        )  # fmt: skip
        for column, value in wanted:
            if value is not None:
                statement = statement.where(column == value)
        if after is not None:
            statement = statement.where(tuple_(bills.c.gateway_id, bills.c.request) > after)
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(bills.c.gateway_id, bills.c.request).limit(limit))
            return [_record(row) for row in rows]

    def counts(self, *, area: str | None = None) -> dict[str, int]:
        """How many bills stand how, every status named."""
        statement = select(bills.c.status, func.count()).group_by(bills.c.status)
        if area is not None:
            statement = statement.where(bills.c.area == area)
        with self._database.read() as connection:
            known = {row[0]: row[1] for row in connection.execute(statement)}
        return {status.value: known.get(status.value, 0) for status in BillStatus}


def _record(row: Row[Any]) -> BillRecord:
    amount = None if row.amount is None else money(int(row.amount), row.scaler)
    energy = None if row.energy is None else money(int(row.energy), row.register_scaler)
    rounded_to = money(1 << row.quantum_bits, row.scaler) if row.quantum_bits else None
    return BillRecord(
        row.gateway_id, row.request, row.area, row.tariff, row.obis, row.first_s, row.last_s, row.intervals,
        row.interval_count, row.scaler, BillStatus(row.status), amount, rounded_to, energy, row.averaged or 0,
        row.reason, row.asked_ms, row.ended_ms,
    )  # fmt: skip
