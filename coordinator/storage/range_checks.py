"""
Range proofs that are waited for: a row from the draw until the member has proved, written with the round's end.

A row that was not proved in time is `owed`: its ring's total is unranged and its gateway sits in no sum until it has
proved, or until the operator excuses it.  A row has all that a proof is checked by.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select, tuple_

from coordinator.storage.engine import Database
from coordinator.storage.tables import epochs, range_checks

CheckKey = tuple[int, int, int, int]  # epoch, ring, round, position
_SLOT = struct.Struct("<HB32s")


@dataclass(frozen=True, slots=True)
class CommittedSlot:
    """A slot's place in the schema, the bits of its range, and what the member committed to."""

    slot: int
    bits: int
    commitment: bytes


@dataclass(frozen=True, slots=True)
class RangeCheck:
    """What a member is to prove of one round."""

    epoch: int
    ring: int
    round: int
    position: int
    gateway: str
    interval_start_s: int
    interval_s: int
    fuse_a: int
    epoch_digest: bytes
    slots: tuple[CommittedSlot, ...]
    owed: bool = False

    @property
    def key(self) -> CheckKey:
        """What names it."""
        return self.epoch, self.ring, self.round, self.position


class RangeCheckRepository:
    """Table `range_checks`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[RangeCheck]:
        """Every check that is waited for, oldest first."""
        mine = range_checks.c
        with self._database.read() as connection:
            rows = connection.execute(select(range_checks).order_by(mine.epoch, mine.round, mine.ring, mine.position))
            return [_check(row) for row in rows]

    def proved(self, keys: Sequence[CheckKey]) -> None:
        """These members have proved: nothing is waited for any more."""
        self._delete(tuple_(*_KEY).in_(keys))

    def owe(self, keys: Sequence[CheckKey]) -> None:
        """These members have not proved in time, or something that is no proof."""
        with self._database.write() as connection:
            connection.execute(range_checks.update().where(tuple_(*_KEY).in_(keys)).values(owed=True))

    def excuse(self, gateway: str) -> int:
        """Wait no more for what a gateway owes, as it has lost its store for good; how many rounds that were."""
        return self._delete(range_checks.c.gateway_id == gateway)

    def owing_positions(self, rounds: Iterable[tuple[int, int, int]]) -> dict[tuple[int, int, int], list[int]]:
        """By (epoch, ring, round) the positions that owe a proof, of the rounds that are asked about."""
        mine, found = range_checks.c, dict[tuple[int, int, int], list[int]]()
        statement = select(*_KEY).where(mine.owed, tuple_(mine.epoch, mine.ring, mine.round).in_(list(rounds)))
        with self._database.read() as connection:
            for epoch, ring, round_, position in connection.execute(statement.order_by(*_KEY)):
                found.setdefault((epoch, ring, round_), []).append(position)
        return found

    def unranged_rings(self, from_s: int, to_s: int, *, area: str | None = None) -> dict[int, int]:
        """By the start of an interval in [from_s, to_s) how many rings have a total that is unranged."""
        mine = range_checks.c
        statement = (
            select(mine.interval_start_s, mine.epoch, mine.ring)
            .where(mine.owed, mine.interval_start_s >= from_s, mine.interval_start_s < to_s)
            .distinct()
        )
        if area is not None:
            statement = statement.join(epochs, epochs.c.epoch == mine.epoch).where(epochs.c.area == area)
        found: dict[int, int] = {}
        with self._database.read() as connection:
            for start_s, *_ in connection.execute(statement):
                found[start_s] = found.get(start_s, 0) + 1
        return found

    def owing(self, from_s: int, to_s: int) -> set[str]:
        """The gateways that owe a proof for an interval that starts in [from_s, to_s)."""
        mine = range_checks.c
        statement = select(mine.gateway_id).where(
            mine.owed, mine.interval_start_s >= from_s, mine.interval_start_s < to_s
        )
        with self._database.read() as connection:
            return set(connection.scalars(statement))

    def _delete(self, where: Any) -> int:
        with self._database.write() as connection:
            return connection.execute(range_checks.delete().where(where)).rowcount


_KEY = (range_checks.c.epoch, range_checks.c.ring, range_checks.c.round, range_checks.c.position)


def add_range_checks(connection: Connection, checks: Sequence[RangeCheck]) -> None:
    """Insert checks, within the transaction that ends their rounds."""
    rows = [
        {
            "epoch": each.epoch, "ring": each.ring, "round": each.round, "position": each.position,
            "gateway_id": each.gateway, "interval_start_s": each.interval_start_s, "interval_s": each.interval_s,
            "fuse_a": each.fuse_a, "epoch_digest": each.epoch_digest, "owed": each.owed,
            "slots": b"".join(_SLOT.pack(slot.slot, slot.bits, slot.commitment) for slot in each.slots),
        }
        for each in checks
    ]  # fmt: skip
    if rows:
        connection.execute(range_checks.insert(), rows)


def _check(row: Row[Any]) -> RangeCheck:
    return RangeCheck(
        row.epoch, row.ring, row.round, row.position, row.gateway_id, row.interval_start_s, row.interval_s, row.fuse_a,
        row.epoch_digest, tuple(CommittedSlot(*each) for each in _SLOT.iter_unpack(row.slots)), row.owed,
    )  # fmt: skip
