"""
The metering log's tables: entries as they come, blocks of closed days, cursors of subscribers, registration grids.

What a meter measured is sealed, with the gateway and the place in the log as associated data: an entry that is moved
to another gateway or to another position does not open.  Which meter spoke when is not sealed; it is how an entry is
found.

Entries are ordered by quarter hour of reception, then by gateway: 10,000 gateways that log in one quarter hour fill
pages one after the other.  Ordered by gateway first each of them would write a page of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

from node.storage.cipher import Cipher
from node.storage.engine import Statement, Store
from node.storage.errors import SealError
from protocol.metering.interval import QUARTER_HOUR_S, RegistrationGrid, index_at, start_of
from protocol.metering.obis import Obis

_BUCKET_US: Final = QUARTER_HOUR_S * 1_000_000
_ENTRY: Final = "metering_entry"
_BLOCK: Final = "metering_block"
_ENTRIES: Final = """
    WITH RECURSIVE bucket(n) AS (
      SELECT max(?1, coalesce((SELECT min(bucket) FROM metering_entry), ?2))  -- two million quarter hours since 1970
      UNION ALL SELECT n + 1 FROM bucket WHERE n < ?2)
    SELECT position, meter, sealed FROM bucket CROSS JOIN metering_entry AS entry
    ON entry.bucket = bucket.n AND entry.gateway = ?3
    WHERE position > ?4 AND position <= ?5 AND (?6 IS NULL OR meter = ?6) AND registered >= ?7
    ORDER BY position LIMIT ?8"""

_LAST: Final = """
    WITH RECURSIVE bucket(n) AS (
      SELECT min(bucket) FROM metering_entry WHERE bucket >= ?1
      UNION ALL SELECT (SELECT min(bucket) FROM metering_entry WHERE bucket > n) FROM bucket WHERE n IS NOT NULL)
    SELECT coalesce(max(position), 0) FROM bucket CROSS JOIN metering_entry AS entry
    ON entry.bucket = bucket.n AND entry.gateway = ?2"""
_GATEWAYS: Final = """
    WITH RECURSIVE known(name) AS (
      SELECT min(gateway) FROM metering_block
      UNION ALL SELECT (SELECT min(gateway) FROM metering_block WHERE gateway > name) FROM known WHERE name IS NOT NULL)
    SELECT name FROM known WHERE name IS NOT NULL"""
_DROP_THESE: Final = """
    DELETE FROM metering_entry WHERE bucket < ? AND registered = 0 AND (gateway, meter)
    IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"""
_DROP_OTHERS: Final = """
    DELETE FROM metering_entry WHERE bucket < ? AND registered = 0 AND (gateway, meter)
    NOT IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"""
_NO_GATEWAY: Final = ""  # whose cursor is the log's own
_RETENTION: Final = "retention"

_NEWEST_BUCKETS: Final = 16  # quarter hours: a meter that was silent for longer shows no present value

Read = Callable[..., list[tuple[Any, ...]]]
"""See node.storage.engine.Store.read."""

Meters = Collection[tuple[str, str]]
"""Gateways with their meters."""


def _bucket(position: int) -> int:
    return index_at(position, 0, _BUCKET_US)


class MeteringLogReader:
    """Reading the metering log of all gateways of a store.  Every method raises StoreError and SealError."""

    def __init__(self, read: Read, cipher: Cipher) -> None:
        self._read = read
        self._cipher = cipher

    def entries(
        self,
        gateway: str,
        after: int,
        until: int,
        *,
        limit: int = -1,
        meter: str | None = None,
        registered: bool = False,
    ) -> list[tuple[int, bytes | None]]:
        """
        Positions and contents of a gateway's entries with `after` < position <= `until`, in order.

        None is one that does not open: it was altered, or is another's.
        `meter`: that one's only.  `registered`: only those that hold the value of a registration time.
        """
        rows = self._read(
            _ENTRIES, _bucket(after), _bucket(until), gateway, after, until, meter, int(registered), limit
        )  # fmt: skip
        return [(position, self._opened(gateway, position, name, sealed)) for position, name, sealed in rows]

    def _opened(self, gateway: str, position: int, meter: str, sealed: bytes) -> bytes | None:
        try:
            return self._cipher.open(_ENTRY, (gateway, position, meter), sealed)
        except SealError:
            return None

    def last_position(self, gateway: str, now_us: int) -> int:
        """
        A position that no entry of the gateway is behind: 0, but where it has entries of now or of later than now.

        Of later than now are those that were made while the clock was ahead.
        """
        ((last,),) = self._read(_LAST, _bucket(now_us), gateway)
        return int(last)

    def blocks(
        self, gateway: str, meter: str, obis: Obis, first_day: int, last_day: int
    ) -> Iterator[tuple[int, bytes]]:
        """Days and contents of a register's blocks, in order."""
        name = str(obis)
        for day, sealed in self._read(
            "SELECT day, sealed FROM metering_block WHERE gateway=? AND meter=? AND obis=? AND day BETWEEN ? AND ?"
            " ORDER BY day",
            gateway, meter, name, first_day, last_day,
        ):  # fmt: skip
            yield day, self._cipher.open(_BLOCK, (gateway, meter, name, day), sealed)

    def registers(self, gateway: str) -> list[tuple[str, Obis]]:
        """Meters and registers that a gateway has blocks of."""
        rows = self._read("SELECT DISTINCT meter, obis FROM metering_block WHERE gateway=?", gateway)
        return [(meter, Obis.parse(obis)) for meter, obis in rows]

    def gateways(self) -> list[str]:
        """Who has blocks, in the configuration or not any more."""
        return [name for (name,) in self._read(_GATEWAYS)]

    def cursors(self, gateway: str) -> dict[str, int]:
        """Up to which position each subscriber has been."""
        return dict(self._read("SELECT subscriber, position FROM metering_cursor WHERE gateway=?", gateway))

    def grid(self, gateway: str) -> RegistrationGrid | None:
        """The registration periods that were last in force."""
        for row in self._read(
            "SELECT start_ms, period_ms, metering_start_s, interval_s FROM registration_grid WHERE gateway=?", gateway
        ):
            return RegistrationGrid(*row)
        return None

    def newest_entries(self, gateway: str, meter: str, now_us: int, limit: int) -> list[tuple[int, bytes]]:
        """Positions and contents of a meter's newest entries of the last hours, the newest first."""
        found: list[tuple[int, bytes]] = []
        last = _bucket(now_us) + 1  # the clock may have been ahead
        for bucket in range(last, last - _NEWEST_BUCKETS, -1):
            rows = self._read(
                "SELECT position, sealed FROM metering_entry WHERE bucket=? AND gateway=? AND meter=?"
                " ORDER BY position DESC LIMIT ?",
                bucket, gateway, meter, limit - len(found),
            )  # fmt: skip
            opened = ((position, self._opened(gateway, position, meter, sealed)) for position, sealed in rows)
            found += [(position, data) for position, data in opened if data is not None]
            if len(found) >= limit:
                break
        return found


class MeteringLogRepository(MeteringLogReader):
    """The SQL of the metering log, for all gateways of a store.  Reading raises StoreError and SealError."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.read, store.cipher)
        self.store = store

    # --- entries: a position is the Unix time in microseconds at which the entry was made, or a little more ---------

    def append(self, gateway: str, position: int, meter: str, data: bytes, *, registered: bool) -> Statement:
        """Keep an entry; `registered` ones stay until their day is a block, the others as long as telegrams do."""
        sealed = self._cipher.seal(_ENTRY, (gateway, position, meter), data)
        return Statement(
            "INSERT INTO metering_entry VALUES (?, ?, ?, ?, ?, ?)",
            (_bucket(position), gateway, position, meter, int(registered), sealed),
        )

    def drop_telegrams(self, before: int, *, of: Meters | None = None, but: Meters = ()) -> Statement:
        """
        Delete what is older than a position, by whole quarter hours, and holds no value of a registration time.

        `of` these meters, or of all `but` those.
        """
        if of is None:
            return Statement(_DROP_OTHERS, (_bucket(before), json.dumps(list(but))))
        return Statement(_DROP_THESE, (_bucket(before), json.dumps(list(of))))

    def drop_entries(self, before: int) -> Statement:
        """Delete whatever is older than a position, by whole quarter hours: of gateways that nobody packs any more."""
        return Statement("DELETE FROM metering_entry WHERE bucket < ?", (_bucket(before),))

    def drop_packed(self, before: int, packer: str) -> Statement:
        """
        Delete what is older than a position, by whole quarter hours, where the subscriber `packer` is as far.

        A gateway that is out of the configuration for a while keeps what nobody has packed.
        """
        return Statement(
            "DELETE FROM metering_entry WHERE bucket < ? AND gateway IN"
            " (SELECT gateway FROM metering_cursor WHERE subscriber = ? AND position >= ?)",
            (_bucket(before), packer, before),
        )

    def drop_ahead(self, gateway: str, now_us: int) -> Statement:
        """Delete a gateway's entries with positions after this quarter hour that every subscriber has dealt with."""
        return Statement(
            "DELETE FROM metering_entry WHERE bucket > ? AND gateway = ? AND position <="
            " (SELECT min(position) FROM metering_cursor WHERE gateway = ?)",
            (_bucket(now_us), gateway, gateway),
        )

    # --- blocks: one register on one day ------------------------------------------------------------------------------

    def put_block(self, gateway: str, meter: str, obis: Obis, day: int, data: bytes) -> Statement:
        """Keep a block, in place of the one that is there."""
        sealed = self._cipher.seal(_BLOCK, (gateway, meter, str(obis), day), data)
        return Statement(
            "INSERT INTO metering_block (gateway, meter, obis, day, sealed) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET sealed=excluded.sealed",
            (gateway, meter, str(obis), day, sealed),
        )

    def drop_blocks(self, gateway: str, meter: str, obis: Obis, before_day: int) -> Statement:
        """Delete a register's blocks of days before one."""
        return Statement(
            "DELETE FROM metering_block WHERE gateway=? AND meter=? AND obis=? AND day<?",
            (gateway, meter, str(obis), before_day),
        )

    # --- cursors ------------------------------------------------------------------------------------------------------

    def move_cursor(self, gateway: str, subscriber: str, position: int) -> Statement:
        """A subscriber has dealt with everything up to a position; it never goes back."""
        return Statement(
            "INSERT INTO metering_cursor VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET position=max(position, excluded.position)",
            (gateway, subscriber, position),
        )

    def retention_position(self) -> int | None:
        """The position at which old values were deleted last; that of the newest entry before the first time."""
        known = self.cursors(_NO_GATEWAY).get(_RETENTION)
        if known is not None:
            return known
        ((bucket,),) = self._read("SELECT max(bucket) FROM metering_entry")
        return None if bucket is None else start_of(int(bucket) + 1, 0, _BUCKET_US)

    def move_retention(self, position: int) -> Statement:
        """Old values are deleted as of this position."""
        return self.move_cursor(_NO_GATEWAY, _RETENTION, position)

    # --- the registration grid ----------------------------------------------------------------------------------------

    def put_grid(self, gateway: str, grid: RegistrationGrid) -> Statement:
        """The registration periods from now on."""
        return Statement(
            "INSERT INTO registration_grid VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET start_ms=excluded.start_ms,"
            " period_ms=excluded.period_ms, metering_start_s=excluded.metering_start_s, interval_s=excluded.interval_s",
            (gateway, grid.start_ms, grid.period_ms, grid.metering_start_s, grid.interval_s),
        )
