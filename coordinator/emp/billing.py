"""
Bills from the commitments of verified rounds: which intervals a gateway is asked for, and whether its answer holds.

The market participant publishes a tariff (protocol.dcnet.billing.tariff), signed with a key that serves nothing else.
A bill is a row, made before its gateway is asked: `asked`, then once and for good `verified` (the amount is the one for
these prices over the committed values), `refused` (it is not) or `declined` (a rule of the gateway stands against it,
see the reason; this one may be asked again).  An interval of a register is in one bill of a gateway, unless that was
declined.

Energy is billed at the price of the interval that it was committed in: what was carried, because rounds were void or
went without the gateway, has the price of the interval that took it along.  All calls block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from itertools import groupby
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, func, select, tuple_

from coordinator.emp.tariffs import Published, Tariffs, published_tariff
from coordinator.store import Store, unpack_positions
from coordinator.tables import bills, epochs, ring_commitments, ring_rounds
from protocol import wire
from protocol.dcnet.billing.bill import READING_MAX, Bill, request_digest, verify_bill
from protocol.dcnet.billing.tariff import Tariff, money, pack_intervals, unpack_intervals
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.setup.schema import Schema
from protocol.errors import RemoteProtocolError

ELEMENT_SIZE = 32
Chosen = npt.NDArray[Any]  # a flag for each of a tariff's intervals


class BillStatus(StrEnum):
    """How a bill stands."""

    ASKED = "asked"
    VERIFIED = "verified"
    REFUSED = "refused"
    DECLINED = "declined"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request for bills led to: bills asked, their intervals in all, gateways with nothing left to bill."""

    bills: int
    intervals: int
    nothing_left: int


@dataclass(frozen=True, slots=True)
class BillRecord:
    """One gateway's bill over `interval_count` intervals; `amount` is exact, in the tariff's currency."""

    gateway: str
    request: bytes
    area: str
    tariff: bytes
    obis: str
    first_s: int
    last_s: int
    interval_count: int
    status: BillStatus
    amount: Decimal | None
    reason: str
    asked_ms: int
    ended_ms: int | None


@dataclass(frozen=True, slots=True)
class _Layout:
    members: dict[int, tuple[str, ...]]  # by ring, in position order
    places: dict[str, tuple[int, int]]  # gateway: ring and position


class Billing:
    """The bills of one coordinator's database."""

    def __init__(self, store: Store, pedersen: Pedersen) -> None:
        self.tariffs = Tariffs(store)
        self._store = store
        self._pedersen = pedersen
        self._asking = Lock()
        # An epoch's layout never changes; a month of days, some 6 MB for each 1,000 gateways of an area.
        self._layout = lru_cache(maxsize=40)(self._read_layout)

    # --- asking ------------------------------------------------------------------------------------------------------

    def ask(self, area: str, from_s: int, to_s: int, tariff_digest_: bytes, now_ms: int) -> Asked:
        """
        Make a bill for every gateway of an area that has verified intervals in [from_s, to_s) which are not billed yet.

        Raises RemoteProtocolError: `tariff_unknown`, `period_not_over`, `tariff_grid` (the intervals are not the
        tariff's, or it has no price for one of them), `tariff_register` (not a committed register of that unit).
        """
        # One at a time, so that nobody takes an interval meanwhile; only its end keeps the round ledger waiting.
        with self._asking:
            with self._store.read() as connection:
                published = published_tariff(connection, tariff_digest_)
                tariff = published.tariff
                _require_over(connection, area, to_s)
                found, scaler = self._contributed(connection, area, from_s, to_s, tariff)
                self._leave_out_billed(connection, found, tariff)
            rows = [
                _row(gateway, chosen, area, published, tariff.price_scaler + scaler, now_ms)
                for gateway, chosen in sorted(found.items())
                if chosen.any()
            ]
            if rows:
                statement = self._store.insert(bills)
                again = {name: statement.excluded[name] for name in ("status", "reason", "asked_ms", "ended_ms")}
                statement = statement.on_conflict_do_update(index_elements=["gateway_id", "request"], set_=again)
                with self._store.write() as connection:
                    connection.execute(statement, rows)
        return Asked(len(rows), sum(row["interval_count"] for row in rows), len(found) - len(rows))

    def _contributed(
        self, connection: Connection, area: str, from_s: int, to_s: int, tariff: Tariff
    ) -> tuple[dict[str, Chosen], int]:
        """By gateway the tariff's intervals in which it committed to the register in a verified total; its scaler."""
        kept, start = ring_commitments.c, ring_commitments.c.interval_start_s
        statement = (
            select(kept.epoch, kept.ring, start, ring_rounds.c.roster)
            .join(ring_rounds, _same_round())
            .join(epochs, epochs.c.epoch == kept.epoch)
            .where(epochs.c.area == area, start >= from_s, start < to_s)
            .order_by(kept.epoch, kept.ring)
        )
        found: dict[str, Chosen] = {}
        scalers: set[int] = set()
        rows = connection.execute(statement)
        for (epoch, ring), group in groupby(rows, key=lambda row: (row.epoch, row.ring)):
            rounds = list(group)
            scalers.add(_column(connection, epoch, tariff)[1])
            indices = [tariff.index_of(each.interval_start_s) for each in rounds]
            if None in indices:
                raise RemoteProtocolError("tariff_grid", "the tariff has no price for an interval of the period")
            members = self._layout(epoch).members[ring]
            present = _presence([each.roster for each in rounds], len(members))
            for position, gateway in enumerate(members):
                mine = np.array(indices)[present[:, position]]
                if mine.size:
                    found.setdefault(gateway, np.zeros(len(tariff.prices), bool))[mine] = True
        if len(scalers) > 1:
            raise RemoteProtocolError("tariff_register", "the register's scaler changes within the period")
        return found, max(scalers, default=0)

    def _leave_out_billed(self, connection: Connection, found: dict[str, Chosen], tariff: Tariff) -> None:
        """An interval of a register is in one bill, whatever the tariff of that was."""
        last_s = tariff.interval_s_of(len(tariff.prices) - 1)
        statement = select(bills.c.gateway_id, bills.c.intervals, bills.c.tariff).where(
            bills.c.obis == tariff.obis, bills.c.status != BillStatus.DECLINED,
            bills.c.first_s <= last_s, bills.c.last_s >= tariff.start_s,
        )  # fmt: skip
        here: dict[bytes, Chosen] = {}  # by tariff: which of our intervals each of its own is, -1 for none
        for gateway, intervals, digest in connection.execute(statement).all():
            if gateway not in found:
                continue
            if digest not in here:
                other = published_tariff(connection, digest).tariff
                ours = (tariff.index_of(other.interval_s_of(index)) for index in range(len(other.prices)))
                here[digest] = np.array([-1 if index is None else index for index in ours])
            taken = here[digest][_bits(intervals, len(here[digest]))]
            found[gateway][taken[taken >= 0]] = False

    # --- gateways answer ---------------------------------------------------------------------------------------------

    def outstanding(self) -> list[tuple[str, bytes]]:
        """The (gateway, request) of all bills that wait for their gateway, oldest first."""
        statement = select(bills.c.gateway_id, bills.c.request).where(bills.c.status == BillStatus.ASKED)
        with self._store.read() as connection:
            rows = connection.execute(statement.order_by(bills.c.asked_ms, bills.c.first_s, bills.c.gateway_id))
            return [(row.gateway_id, row.request) for row in rows]

    def message(self, gateway: str, request: bytes, intermediates: Sequence[bytes]) -> wire.BillRequest | None:
        """What the gateway is sent; None where the bill waits no more."""
        with self._store.read() as connection:
            row = _asked(connection, gateway, request)
            if row is None:
                return None
            published = published_tariff(connection, row.tariff)
        return wire.BillRequest(
            published.document, published.signature, published.certificate, tuple(intermediates), row.intervals
        )

    def judge(self, gateway: str, answer: wire.Bill, now_ms: int) -> BillStatus | None:
        """Verify a gateway's bill and record it, once; None where none was waited for."""
        with self._store.read() as connection:
            row = _asked(connection, gateway, answer.request)
            if row is None:
                return None
            tariff = published_tariff(connection, row.tariff).tariff
            indices = unpack_intervals(row.intervals, len(tariff.prices))
            commitments = self._commitments(connection, gateway, row, tariff)
        bill = Bill(int.from_bytes(answer.amount, "little", signed=True), int.from_bytes(answer.blinding, "little"))
        reason = ""
        if any(index not in commitments for index in indices):
            reason = "the commitments of an interval are not kept any more"
        elif not verify_bill(
            self._pedersen, [tariff.prices[index] for index in indices], [commitments[index] for index in indices],
            bill, reading_max=READING_MAX,
        ):  # fmt: skip
            reason = "the amount is not the one for what the gateway committed to"
        status = BillStatus.REFUSED if reason else BillStatus.VERIFIED
        changes = {
            "status": status, "reason": reason, "ended_ms": now_ms, "amount": str(bill.amount),
            "blinding": answer.blinding,
        }  # fmt: skip
        return status if self._end(gateway, answer.request, changes) else None

    def decline(self, gateway: str, answer: wire.BillDeclined, now_ms: int) -> bool:
        """Record that the gateway does not answer; whether that was waited for."""
        changes = {"status": BillStatus.DECLINED, "reason": answer.reason[:80], "ended_ms": now_ms}
        return self._end(gateway, answer.request, changes)

    def _end(self, gateway: str, request: bytes, changes: dict[str, Any]) -> bool:
        where = (bills.c.gateway_id == gateway, bills.c.request == request, bills.c.status == BillStatus.ASKED)
        with self._store.write() as connection:
            return connection.execute(bills.update().where(*where).values(changes)).rowcount == 1

    def _commitments(self, connection: Connection, gateway: str, row: Any, tariff: Tariff) -> dict[int, bytes]:
        """By the tariff's index what the gateway committed to in verified totals."""
        span = (ring_commitments.c.interval_start_s >= row.first_s, ring_commitments.c.interval_start_s <= row.last_s)
        used = list(
            connection.execute(
                select(epochs.c.epoch)
                .where(
                    epochs.c.area == row.area, epochs.c.interval_start_s <= row.last_s,
                    epochs.c.interval_start_s + epochs.c.rounds * epochs.c.interval_s > row.first_s,
                )
            ).scalars()
        )  # fmt: skip
        places = {epoch: place for epoch in used if (place := self._layout(epoch).places.get(gateway)) is not None}
        if not places:
            return {}
        mine = tuple_(ring_commitments.c.epoch, ring_commitments.c.ring).in_(
            [(epoch, ring) for epoch, (ring, _) in places.items()]
        )
        statement = (
            select(
                ring_commitments.c.epoch, ring_commitments.c.interval_start_s, ring_commitments.c.commitments,
                ring_rounds.c.roster,
            )
            .join(ring_rounds, _same_round())
            .where(mine, *span)
        )  # fmt: skip
        found: dict[int, bytes] = {}
        columns = {epoch: _column(connection, epoch, tariff)[0] for epoch in places}
        for epoch, interval_start_s, data, roster_bytes in connection.execute(statement):
            roster, position = unpack_positions(roster_bytes), places[epoch][1]
            index = tariff.index_of(interval_start_s)
            if index is None or not roster >> position & 1:
                continue
            count = len(data) // ELEMENT_SIZE // roster.bit_count()
            rank = (roster & ((1 << position) - 1)).bit_count()
            at = ELEMENT_SIZE * (rank * count + columns[epoch])
            found[index] = data[at : at + ELEMENT_SIZE]
        return found

    def _read_layout(self, epoch: int) -> _Layout:
        layout = self._store.epoch_rings(epoch)
        places = {name: (ring.ring, position) for ring in layout for position, name in enumerate(ring.members)}
        return _Layout({ring.ring: ring.members for ring in layout}, places)

    # --- looking and forgetting --------------------------------------------------------------------------------------

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
        with self._store.read() as connection:
            rows = connection.execute(statement.order_by(bills.c.gateway_id, bills.c.request).limit(limit))
            return [_record(row) for row in rows]

    def counts(self, *, area: str | None = None) -> dict[str, int]:
        """How many bills stand how, every status named."""
        statement = select(bills.c.status, func.count()).group_by(bills.c.status)
        if area is not None:
            statement = statement.where(bills.c.area == area)
        with self._store.read() as connection:
            known = {row[0]: row[1] for row in connection.execute(statement)}
        return {status.value: known.get(status.value, 0) for status in BillStatus}

    def forget(self, keep_s: int) -> int:
        """Delete commitments over `keep_s` of metering time before the newest; how many ring rounds' these were."""
        start = ring_commitments.c.interval_start_s
        with self._store.write() as connection:
            newest = connection.scalar(select(func.max(start)))
            if newest is None:
                return 0
            return connection.execute(ring_commitments.delete().where(start < newest - keep_s)).rowcount


def _same_round() -> Any:
    kept, ended = ring_commitments.c, ring_rounds.c
    return (kept.epoch == ended.epoch) & (kept.ring == ended.ring) & (kept.round == ended.round)


def _asked(connection: Connection, gateway: str, request: bytes) -> Any:
    where = (bills.c.gateway_id == gateway, bills.c.request == request, bills.c.status == BillStatus.ASKED)
    return connection.execute(select(bills).where(*where)).first()


def _require_over(connection: Connection, area: str, to_s: int) -> None:
    """An interval that has not ended would be left out for good, or billed alone later."""
    newest = connection.execute(
        select(ring_rounds.c.interval_start_s, epochs.c.interval_s)
        .join(epochs, ring_rounds.c.epoch == epochs.c.epoch)
        .where(epochs.c.area == area)
        .order_by(ring_rounds.c.interval_start_s.desc())
        .limit(1)
    ).first()
    if newest is None:
        raise RemoteProtocolError(
            "period_not_over", f"no round of area {area} has ended; is it one of coordinator.areas?"
        )
    if newest.interval_start_s + newest.interval_s < to_s:
        raise RemoteProtocolError("period_not_over", "the last interval of the period has not ended in this area")


def _column(connection: Connection, epoch: int, tariff: Tariff) -> tuple[int, int]:
    """Which of an epoch's committed slots the tariff's register is, and its scaler."""
    row = connection.execute(select(epochs.c.schema, epochs.c.interval_s).where(epochs.c.epoch == epoch)).one()
    schema = Schema.from_bytes(row.schema)
    if row.interval_s != tariff.interval_s:
        raise RemoteProtocolError("tariff_grid", f"the area's intervals have {row.interval_s} seconds")
    for column, index in enumerate(schema.committed):
        slot = schema.slots[index]
        if slot.obis == tariff.obis and slot.unit == tariff.unit:
            return column, slot.scaler
    raise RemoteProtocolError("tariff_register", "the tariff's register is not committed to in its unit in this area")


def _bits(bitmap: bytes, count: int) -> Chosen:
    return np.unpackbits(np.frombuffer(bitmap, np.uint8), count=count, bitorder="little").astype(bool)


def _presence(rosters: Sequence[bytes], size: int) -> Chosen:
    """A row for each round, a column for each position."""
    return np.array([_bits(roster.ljust(-(-size // 8), b"\0"), size) for roster in rosters])


def _row(gateway: str, chosen: Chosen, area: str, published: Published, scaler: int, now_ms: int) -> dict[str, Any]:
    tariff = published.tariff
    indices: list[int] = np.flatnonzero(chosen).tolist()
    intervals = pack_intervals(indices, len(tariff.prices))
    return {
        "gateway_id": gateway, "request": request_digest(published.document, intervals), "area": area,
        "tariff": published.digest, "obis": tariff.obis, "first_s": tariff.interval_s_of(indices[0]),
        "last_s": tariff.interval_s_of(indices[-1]), "intervals": intervals, "interval_count": len(indices),
        "scaler": scaler, "status": BillStatus.ASKED, "reason": "", "asked_ms": now_ms, "ended_ms": None,
    }  # fmt: skip


def _record(row: Any) -> BillRecord:
    amount = None if row.amount is None else money(int(row.amount), row.scaler)
    return BillRecord(
        row.gateway_id, row.request, row.area, row.tariff, row.obis, row.first_s, row.last_s, row.interval_count,
        BillStatus(row.status), amount, row.reason, row.asked_ms, row.ended_ms,
    )  # fmt: skip
