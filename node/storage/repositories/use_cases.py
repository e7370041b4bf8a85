"""
What the use cases of processing profiles derive: tables `use_case_period`, `derived_period`, `waiting_delivery`.

A closed billing period, the start of the next one, and a delivery for each recipient are one transaction, so that
whoever is killed at any moment finds all of them or none.  What was derived is sealed; which profile, which period and
how many deliveries wait is not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgpack

from node.storage.engine import Statement, Store
from node.storage.errors import SealError
from protocol.cosem.delivery import Detail, PeriodResult, Row
from protocol.metering.obis import Obis

log = logging.getLogger(__name__)
_PERIOD: Final = "derived_period"
_DELIVERY: Final = "waiting_delivery"


class WaitingDelivery(NamedTuple):
    """
    A result that a market participant is to get; `made_us` (Unix, µs) orders them.

    `participant` and `delivery` are those of the profile's recipient when the period was closed; `sender` is the
    gateway's canonical name or a pseudonym.
    """

    id: str
    made_us: int
    profile: str
    start_s: int
    participant: str
    delivery: str
    sender: str


class UseCaseRepository:
    """See the head of the file.  Reading raises StoreError and SealError."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def next_starts(self, gateway: str) -> dict[str, int]:
        """When the next period of each profile begins that was not closed yet (Unix, s)."""
        return dict(self.store.read("SELECT profile, next_start_s FROM use_case_period WHERE gateway=?", gateway))

    def begin(self, gateway: str, profile: str, start_s: int) -> Statement:
        """A profile's first period; one that has begun is left as it is."""
        return Statement(
            "INSERT INTO use_case_period VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (gateway, profile, start_s)
        )

    def close(self, gateway: str, result: PeriodResult, waiting: Sequence[WaitingDelivery]) -> list[Statement]:
        """
        Close a period: its result, the next period, its deliveries.

        A period that was closed already is refused by the store, and all with it.
        """
        row = gateway, result.profile, result.start_s
        statements = [
            Statement(
                "INSERT INTO derived_period VALUES (?, ?, ?, ?, ?)",
                (*row, result.end_s, self.store.cipher.seal(_PERIOD, row, encode_result(result))),
            ),
            Statement(
                "INSERT INTO use_case_period VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET next_start_s=excluded.next_start_s",
                (gateway, result.profile, result.end_s),
            ),
        ]
        for each in waiting:
            content = msgpack.packb((each.profile, each.start_s, each.participant, each.delivery, each.sender))
            sealed = self.store.cipher.seal(_DELIVERY, (gateway, each.id), content)
            statements.append(
                Statement("INSERT INTO waiting_delivery VALUES (?, ?, ?, ?)", (gateway, each.id, each.made_us, sealed))
            )
        return statements

    def skip(self, gateway: str, profile: str, start_s: int) -> Statement:
        """Go on with the period that begins at `start_s`, without a result."""
        return Statement(
            "UPDATE use_case_period SET next_start_s=? WHERE gateway=? AND profile=?", (start_s, gateway, profile)
        )

    def result(self, gateway: str, profile: str, start_s: int) -> PeriodResult | None:
        """The result of a closed period."""
        row = gateway, profile, start_s
        for (sealed,) in self.store.read(
            "SELECT sealed FROM derived_period WHERE gateway=? AND profile=? AND start_s=?", *row
        ):
            return decode_result(self.store.cipher.open(_PERIOD, row, sealed))
        return None

    def newest(self, gateway: str, profile: str) -> PeriodResult | None:
        """The result of the period that was closed last."""
        rows = self.store.read(
            "SELECT start_s FROM derived_period WHERE gateway=? AND profile=? ORDER BY start_s DESC LIMIT 1",
            gateway, profile,
        )  # fmt: skip
        for (start_s,) in rows:
            return self.result(gateway, profile, start_s)
        return None

    def closed(self, gateway: str, profile: str) -> list[int]:
        """Starts of the closed periods that are kept, in order (Unix, s)."""
        rows = self.store.read(
            "SELECT start_s FROM derived_period WHERE gateway=? AND profile=? ORDER BY start_s", gateway, profile
        )
        return [start_s for (start_s,) in rows]

    def drop_before(self, gateway: str, profile: str, end_s: int) -> Statement:
        """Delete a profile's results of periods that ended before a moment and that no delivery waits for."""
        return Statement(
            "DELETE FROM derived_period WHERE gateway=?1 AND profile=?2 AND end_s<?3"
            " AND NOT EXISTS (SELECT 1 FROM waiting_delivery WHERE gateway=?1)",
            (gateway, profile, end_s),
        )

    def waiting(self, gateway: str) -> list[WaitingDelivery]:
        """Deliveries that wait, the oldest first; one that does not open is left out, and stays."""
        rows = self.store.read(
            "SELECT id, made_us, sealed FROM waiting_delivery WHERE gateway=? ORDER BY made_us, id", gateway
        )
        found = []
        for name, made_us, sealed in rows:
            try:
                content = self.store.cipher.open(_DELIVERY, (gateway, name), sealed)
            except SealError as error:
                log.error("gateway %s: a delivery that waits is lost: %s", gateway, error)
                continue
            found.append(WaitingDelivery(name, made_us, *msgpack.unpackb(content)))
        return found

    def count_waiting(self, gateway: str) -> int:
        """How many deliveries wait."""
        ((count,),) = self.store.read("SELECT count(*) FROM waiting_delivery WHERE gateway=?", gateway)
        return int(count)

    def delivered(self, gateway: str, name: str) -> Statement:
        """A delivery waits no more."""
        return Statement("DELETE FROM waiting_delivery WHERE gateway=? AND id=?", (gateway, name))


def encode_result(result: PeriodResult) -> bytes:
    """A result's octets before they are sealed."""
    rows = [(each.at_s, each.value, each.is_valid, each.status) for each in result.rows]
    registers = [(obis.to_bytes(), value) for obis, value in result.registers]
    details = [
        (each.what, each.subject, each.obis.to_bytes(), each.scaler, each.unit, each.at_ms, each.until_ms, each.value,
         each.is_valid, each.status)
        for each in result.details
    ]  # fmt: skip
    return bytes(
        msgpack.packb(
            (
                result.profile, result.taf, result.metering_point, result.obis.to_bytes(), result.scaler, result.unit,
                result.period_s, result.start_s, result.end_s, result.is_complete, result.is_billable,
                result.derivation, registers, rows, details,
            )
        )
    )  # fmt: skip


def decode_result(data: bytes) -> PeriodResult:
    """Inverse of `encode_result`; what is read was sealed by ourselves, by an earlier release without details."""
    fields = msgpack.unpackb(data)
    profile, taf, point, obis, scaler, unit, period_s, start_s, end_s, complete, billable, derivation = fields[:12]
    return PeriodResult(
        profile, taf, point, Obis.from_bytes(obis), scaler, unit, period_s, start_s, end_s, complete, billable,
        derivation, tuple((Obis.from_bytes(name), value) for name, value in fields[12]),
        tuple(Row(*each) for each in fields[13]),
        tuple(
            Detail(what, subject, Obis.from_bytes(name), *numbers)
            for details in fields[14:] for what, subject, name, *numbers in details
        ),
    )  # fmt: skip
