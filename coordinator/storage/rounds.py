"""
The round ledger that lasts: how each round of a ring ended, and the commitments of verified ones.

A round of a ring ends once.  `record_many` inserts with ON CONFLICT DO NOTHING and reads back what it inserted: the
database's primary key decides, not a check that another thread or process could overtake.  The totals of areas are
brought up to date in the same transaction (`coordinator.storage.totals`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, RowMapping, func, select, tuple_

from coordinator.storage.engine import Database
from coordinator.storage.epochs import EpochRecord, epoch_of
from coordinator.storage.packing import pack_positions, pack_words, unpack_positions, unpack_words
from coordinator.storage.range_checks import RangeCheck, add_range_checks
from coordinator.storage.tables import epochs, range_checks, ring_commitments, ring_rounds, rings
from coordinator.storage.totals import add_to_totals
from protocol.dcnet.machines.effects import Ended
from protocol.errors import LocalProtocolError
from protocol.wire import Outcome

RoundKey = tuple[int, int, int]  # epoch, round, ring: the order of pages, newest first
_JOINED = ring_rounds.join(epochs, ring_rounds.c.epoch == epochs.c.epoch).join(
    rings, (ring_rounds.c.epoch == rings.c.epoch) & (ring_rounds.c.ring == rings.c.ring)
)


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """How a round ended, with its area and its ring's members in position order."""

    ended: Ended
    area: str
    interval_start_s: int
    members: tuple[str, ...]

    @property
    def key(self) -> RoundKey:
        """Where this round stands in the order of pages."""
        return self.ended.epoch, self.ended.round, self.ended.ring

    @property
    def missing(self) -> tuple[int, ...]:
        """Positions that are not in the roster: all of them where the round is void."""
        return tuple(position for position in range(len(self.members)) if not self.ended.roster >> position & 1)


@dataclass(frozen=True, slots=True)
class CommittedRound:
    """A verified round whose commitments are kept, with the positions in its total; `roster` is a bitmap."""

    epoch: int
    ring: int
    interval_start_s: int
    roster: bytes


@dataclass(frozen=True, slots=True)
class RoundCommitments:
    """The commitments of a verified round, by roster position and committed slot."""

    epoch: int
    interval_start_s: int
    roster: int
    commitments: bytes


@dataclass(frozen=True, slots=True)
class OpenedRound:
    """A round that opened, as its signed RESULT says it: `roster` is a bitmap of as many bytes as the ring needs."""

    round: int
    roster: bytes
    signature: bytes


class RoundRepository:
    """Tables `ring_rounds` and `ring_commitments`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, ended: Ended) -> bool:
        """End one round; False where it had ended before (this outcome is then not the one that counts)."""
        return self.record_many([ended])[0]

    def record_many(
        self, batch: Sequence[Ended], commitments: Mapping[tuple[int, int, int], bytes] | None = None,
        enrolled: Mapping[str, int] | None = None, signatures: Mapping[tuple[int, int, int], bytes] | None = None,
        range_checks: Sequence[RangeCheck] = (),
    ) -> list[bool]:  # fmt: skip
        """
        End many rounds in one durable transaction; for each whether this call ended it.

        `commitments` are those of verified rounds, by (epoch, ring, round), joined by roster position and committed
        slot, `range_checks` is who must prove ranges; both are kept where this call ended the round.  `enrolled` counts
        the active gateways of each area.  `signatures` are those of the rounds' RESULTs, by the same key.  Of two
        outcomes of one round in the same batch the first counts.  Raises LocalProtocolError for an epoch that was never
        added.
        """
        statement = (
            self._database.insert(ring_rounds)
            .on_conflict_do_nothing()
            .returning(ring_rounds.c.epoch, ring_rounds.c.ring, ring_rounds.c.round)
        )
        first: dict[tuple[int, int, int], Ended] = {}
        for ended in batch:
            first.setdefault(_key(ended), ended)
        # One order for all writers: two batches that met in opposite orders would deadlock in PostgreSQL.
        ordered = [first[key] for key in sorted(first)]
        recorded: set[tuple[int, int, int]] = set()
        with self._database.write() as connection:
            numbers = {ended.epoch for ended in batch}
            used = connection.execute(select(epochs).where(epochs.c.epoch.in_(numbers))).mappings()
            known = {row["epoch"]: epoch_of(row) for row in used}
            if unknown := numbers - known.keys():
                raise LocalProtocolError(f"there is no epoch {min(unknown)}")
            if ordered:
                signed = signatures or {}
                rows = [_row(ended, known[ended.epoch]) | {"signature": signed.get(_key(ended))} for ended in ordered]
                recorded.update((row.epoch, row.ring, row.round) for row in connection.execute(statement, rows))
                add_to_totals(
                    connection, self._database, known, [first[key] for key in sorted(recorded)], enrolled or {}
                )
            kept = [
                {
                    "epoch": key[0], "ring": key[1], "round": key[2], "commitments": data,
                    "interval_start_s": known[key[0]].interval_of(key[2]),
                }
                for key, data in (commitments or {}).items()
                if key in recorded
            ]  # fmt: skip
            if kept:
                connection.execute(ring_commitments.insert(), kept)
            add_range_checks(connection, [each for each in range_checks if each.key[:3] in recorded])
        answers = []
        for ended in batch:
            answers.append(_key(ended) in recorded)
            recorded.discard(_key(ended))
        return answers

    def get(self, epoch: int, ring: int, round_: int) -> Ended | None:
        """How a round ended, None where it is still open."""
        where = (ring_rounds.c.epoch == epoch, ring_rounds.c.ring == ring, ring_rounds.c.round == round_)
        with self._database.read() as connection:
            row = connection.execute(select(ring_rounds).where(*where)).mappings().first()
        return None if row is None else ended_of(row)

    def ended_count(self, epoch: int, ring: int, last_round: int) -> int:
        """How many of a ring's rounds from 0 to `last_round` have ended."""
        where = (ring_rounds.c.epoch == epoch, ring_rounds.c.ring == ring, ring_rounds.c.round <= last_round)
        with self._database.read() as connection:
            return connection.scalar(select(func.count()).select_from(ring_rounds).where(*where)) or 0

    def last_opened_with(self, epoch: int, ring: int, position: int) -> OpenedRound | None:
        """The newest round of a ring that opened with the member at `position` in its roster."""
        found = ring_rounds.c
        statement = (
            select(found.round, found.roster, found.signature, rings.c.size)
            .select_from(_JOINED)
            .where(found.epoch == epoch, found.ring == ring, found.outcome == "opened")
            .order_by(found.round.desc())
        )
        with self._database.read() as connection:
            for round_, roster, signature, size in connection.execute(statement):
                members = unpack_positions(roster)
                if members >> position & 1:
                    return OpenedRound(round_, members.to_bytes((size + 7) // 8, "little"), signature or b"")
        return None

    def of_epoch(self, epoch: int) -> list[Ended]:
        """All ended rounds of an epoch, by ring and round: what a restarted coordinator goes on from."""
        statement = select(ring_rounds).where(ring_rounds.c.epoch == epoch)
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(ring_rounds.c.ring, ring_rounds.c.round)).mappings()
            return [ended_of(row) for row in rows]

    def page(
        self, *, limit: int, before: RoundKey | None = None, epoch: int | None = None, ring: int | None = None,
        area: str | None = None, outcome: str | None = None,
    ) -> list[RoundRecord]:  # fmt: skip
        """Ended rounds, newest first, those older than `before`."""
        key = tuple_(ring_rounds.c.epoch, ring_rounds.c.round, ring_rounds.c.ring)
        statement = select(ring_rounds, epochs.c.area, rings.c.members).select_from(_JOINED)
        wanted = (
            (ring_rounds.c.epoch, epoch), (ring_rounds.c.ring, ring), (epochs.c.area, area),
            (ring_rounds.c.outcome, outcome),
        )  # fmt: skip
        for column, value in wanted:
            if value is not None:
                statement = statement.where(column == value)
        if before is not None:
            statement = statement.where(key < before)
        newest = (ring_rounds.c.epoch.desc(), ring_rounds.c.round.desc(), ring_rounds.c.ring.desc())
        with self._database.read() as connection:
            return [_record(row) for row in connection.execute(statement.order_by(*newest).limit(limit))]

    # --- commitments -------------------------------------------------------------------------------------------------

    def committed(self, area: str, from_s: int, to_s: int) -> list[CommittedRound]:
        """The rounds of an area with commitments whose interval starts in [from_s, to_s), by epoch and ring."""
        kept, start = ring_commitments.c, ring_commitments.c.interval_start_s
        statement = (
            select(kept.epoch, kept.ring, start, ring_rounds.c.roster)
            .join(ring_rounds, _same_round())
            .join(epochs, epochs.c.epoch == kept.epoch)
            .where(epochs.c.area == area, start >= from_s, start < to_s)
            .order_by(kept.epoch, kept.ring)
        )
        with self._database.read() as connection:
            return [CommittedRound(*row) for row in connection.execute(statement)]

    def commitments(self, of_rings: Sequence[tuple[int, int]], first_s: int, last_s: int) -> list[RoundCommitments]:
        """The commitments of some (epoch, ring) whose interval starts in [first_s, last_s]."""
        kept, start = ring_commitments.c, ring_commitments.c.interval_start_s
        statement = (
            select(kept.epoch, start, ring_rounds.c.roster, kept.commitments)
            .join(ring_rounds, _same_round())
            .where(tuple_(kept.epoch, kept.ring).in_(of_rings), start >= first_s, start <= last_s)
        )
        with self._database.read() as connection:
            rows = connection.execute(statement)
            return [RoundCommitments(epoch, at_s, unpack_positions(roster), data) for epoch, at_s, roster, data in rows]

    def forget_commitments(self, keep_s: int) -> int:
        """
        Delete commitments over `keep_s` of metering time before the newest, and who owes a range proof for them.

        How many ring rounds' these were.
        """
        start = ring_commitments.c.interval_start_s
        newest = select(start).order_by(start.desc()).limit(1)
        with self._database.write() as connection:
            newest_s = connection.scalar(newest)
            if newest_s is None:
                return 0
            connection.execute(range_checks.delete().where(range_checks.c.interval_start_s < newest_s - keep_s))
            return connection.execute(ring_commitments.delete().where(start < newest_s - keep_s)).rowcount


def _same_round() -> Any:
    kept, ended = ring_commitments.c, ring_rounds.c
    return (kept.epoch == ended.epoch) & (kept.ring == ended.ring) & (kept.round == ended.round)


def _key(ended: Ended) -> tuple[int, int, int]:
    return ended.epoch, ended.ring, ended.round


def _row(ended: Ended, epoch: EpochRecord) -> dict[str, Any]:
    opened = ended.outcome is Outcome.OPENED
    return {
        "epoch": ended.epoch, "ring": ended.ring, "round": ended.round, "outcome": ended.outcome.name.lower(),
        "attempt": ended.attempt, "term": ended.term, "expected": pack_positions(ended.expected),
        "roster": pack_positions(ended.roster), "present": ended.roster.bit_count(),
        "total": pack_words(ended.total) if opened else None, "verified": ended.verified, "reason": ended.reason[:80],
        "interval_start_s": epoch.interval_of(ended.round), "opened_s": ended.opened_s, "ended_s": ended.ended_s,
    }  # fmt: skip


def ended_of(row: RowMapping) -> Ended:
    """A row of `ring_rounds` as the outcome it stands for."""
    return Ended(
        row["epoch"], row["ring"], row["round"], Outcome[row["outcome"].upper()], row["attempt"], row["term"],
        unpack_positions(row["expected"]), unpack_positions(row["roster"]), unpack_words(row["total"] or b""),
        row["verified"], row["reason"], row["opened_s"], row["ended_s"],
    )  # fmt: skip


def _record(row: Row[Any]) -> RoundRecord:
    return RoundRecord(ended_of(row._mapping), row.area, row.interval_start_s, tuple(row.members))
