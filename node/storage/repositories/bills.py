"""
Committed values that wait for their bill, and the bills that were given.

Tables `committed` (a row for each gateway, register and interval; neither value nor blinding once it is billed) and
`bill`, with values, amounts and blindings sealed.  A blinding is nowhere else: with it goes the last that opens the
commitment.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgpack

from node.storage.cipher import Cipher
from node.storage.engine import Statement, Store

_word = struct.Struct("<q")
_BLINDING_SIZE = 32


@dataclass(frozen=True, slots=True)
class CommittedValue:
    """What a gateway committed to in one interval of a register, in the schema's unit, and by which blinding."""

    obis: str
    value: int = field(repr=False)
    blinding: int = field(repr=False)


@dataclass(frozen=True, slots=True)
class BillRecord:
    """
    A bill as it was given: to which request, under which tariff (digests), and up to when its intervals reach.

    `answer` is the message that was sent; empty in a bill of an earlier release, whose message is none any more.
    """

    request: bytes
    tariff: bytes
    until_s: int
    answer: bytes = field(repr=False)


class BillRepository:
    """Committed values and bills of all gateways of a store.  Every method raises StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cipher = store.cipher

    def bill(self, gateway: str, request: bytes) -> BillRecord | None:
        """The bill that was given to a request."""
        for tariff, until_s, content in self._store.read(
            "SELECT tariff, until_s, content FROM bill WHERE gateway=? AND request=?", gateway, request
        ):
            kept = msgpack.unpackb(self._cipher.open("bill", (gateway, request), content))
            return BillRecord(request, tariff, until_s, kept[0] if len(kept) == 1 else b"")
        return None

    def committed(self, gateway: str, obis: str, from_s: int, to_s: int) -> dict[int, CommittedValue | None]:
        """The values of a register by the starts of their intervals, both ends included; None where it is billed."""
        rows = self._store.read(
            "SELECT interval_s, value FROM committed WHERE gateway=? AND obis=? AND interval_s BETWEEN ? AND ?",
            gateway, obis, from_s, to_s,
        )  # fmt: skip
        return {
            interval_s: None
            if sealed is None
            else unpack_committed(obis, self._cipher.open("committed", (gateway, obis, interval_s), sealed))
            for interval_s, sealed in rows
        }

    def open_intervals(self, gateway: str) -> set[int]:
        """The intervals that were contributed in rounds whose results are not known."""
        rows = self._store.read("SELECT interval_s FROM contribution WHERE gateway=? AND settled=0", gateway)
        return {interval_s for (interval_s,) in rows}

    def waiting(self, gateway: str) -> list[str]:
        """How many committed values of each register wait for their bill, in words."""
        rows = self._store.read(
            "SELECT obis, count(*) FROM committed WHERE gateway=? AND value IS NOT NULL GROUP BY obis ORDER BY obis",
            gateway,
        )  # fmt: skip
        return [f"the bill of {count} values of {obis}" for obis, count in rows]

    async def give(
        self, gateway: str, bill: BillRecord, obis: str, intervals_s: Sequence[int], *, keep_s: int
    ) -> None:  # fmt: skip
        """
        Keep a bill, delete the values of its intervals, and bills whose intervals are `keep_s` older than its own.

        One transaction, durable on return.
        """
        content = self._cipher.seal("bill", (gateway, bill.request), msgpack.packb((bill.answer,)))
        await self._store.write(
            [
                Statement(
                    "INSERT INTO bill VALUES (?, ?, ?, ?, ?)",
                    (gateway, bill.request, bill.tariff, bill.until_s, content),
                ),
                Statement(
                    "UPDATE committed SET value=NULL, bill=? WHERE gateway=? AND obis=?"
                    " AND interval_s IN (SELECT value FROM json_each(?))",
                    (bill.request, gateway, obis, json.dumps(list(intervals_s))),
                ),
                Statement("DELETE FROM bill WHERE gateway=? AND until_s<?", (gateway, bill.until_s - keep_s)),
            ]
        )


def keep_committed(
    cipher: Cipher, gateway: str, interval_s: int, values: Sequence[CommittedValue], keep_s: int
) -> list[Statement]:  # fmt: skip
    """For the transaction in which a round is settled: the values of its interval wait, those `keep_s` older go."""
    statements = []
    for each in values:
        sealed = cipher.seal("committed", (gateway, each.obis, interval_s), pack_committed(each))
        statements += [
            Statement("INSERT INTO committed VALUES (?, ?, ?, ?, NULL)", (gateway, each.obis, interval_s, sealed)),
            Statement(
                "DELETE FROM committed WHERE gateway=? AND obis=? AND interval_s<?",
                (gateway, each.obis, interval_s - keep_s),
            ),
        ]
    return statements


def pack_committed(committed: CommittedValue) -> bytes:
    """As a row keeps it, before it is sealed."""
    return _word.pack(committed.value) + pack_blindings((committed.blinding,))


def unpack_committed(obis: str, packed: bytes) -> CommittedValue:
    """Inverse of `pack_committed`."""
    (value,), (blinding,) = _word.unpack(packed[: _word.size]), unpack_blindings(packed[_word.size :])
    return CommittedValue(obis, value, blinding)


def pack_blindings(blindings: Sequence[int]) -> bytes:
    """32 bytes, little-endian, for each."""
    return b"".join(each.to_bytes(_BLINDING_SIZE, "little") for each in blindings)


def unpack_blindings(packed: bytes) -> tuple[int, ...]:
    """Inverse of `pack_blindings`."""
    return tuple(
        int.from_bytes(packed[start : start + _BLINDING_SIZE], "little")
        for start in range(0, len(packed), _BLINDING_SIZE)
    )
