"""
The accounts of gateways: what the energies of the next contribution are differences to, and the last contribution.

Tables `baseline` (a row for each gateway) and `contribution`, with registers and vectors sealed.  Register values are
little-endian 64-bit words, as in the vectors of the rings.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgpack

from node.storage.engine import Statement, Store
from node.storage.repositories.bills import CommittedValue, keep_committed, pack_blindings, unpack_blindings
from protocol.dcnet.discipline.carried_energy import EnergyAccount

_WORD = 2**64


@dataclass(frozen=True, slots=True)
class Account:
    """Registers at the gateway's first reading, and each slot's account; those of slots without energy say nothing."""

    first: tuple[int, ...] = field(repr=False)
    energies: tuple[EnergyAccount, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ContributionRecord:
    """A gateway's contribution to one round, how far that has come, and the account once it is opened."""

    epoch: int
    round: int
    attempt: int
    interval_s: int
    progress: int
    settled: bool
    registers: tuple[int, ...] = field(repr=False)
    vector: bytes = field(repr=False)
    blindings: tuple[int, ...] = field(repr=False)  # of the committed slots
    energies: tuple[EnergyAccount, ...] = field(repr=False)


class AccountRepository:
    """Accounts and contributions of all gateways of a store.  Every method raises StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cipher = store.cipher

    def gateways(self) -> list[str]:
        """Who has an account."""
        return [name for (name,) in self._store.read("SELECT gateway FROM baseline ORDER BY gateway")]

    def account(self, gateway: str) -> Account | None:
        """A gateway's account; None before its first reading."""
        for first, opened in self._store.read("SELECT first, opened FROM baseline WHERE gateway=?", gateway):
            return Account(
                _unpack(self._cipher.open("baseline.first", (gateway,), first)),
                _unpack_energies(self._cipher.open("baseline.opened", (gateway,), opened)),
            )
        return None

    def last_contribution(self, gateway: str) -> ContributionRecord | None:
        """A gateway's newest contribution."""
        for epoch, round_, attempt, interval_s, progress, settled, content in self._store.read(
            "SELECT epoch, round, attempt, interval_s, progress, settled, content FROM contribution"
            " WHERE gateway=? ORDER BY interval_s DESC, epoch DESC, round DESC LIMIT 1",
            gateway,
        ):
            row = gateway, epoch, round_, interval_s
            registers, vector, blindings, energies = msgpack.unpackb(self._cipher.open("contribution", row, content))
            return ContributionRecord(
                epoch, round_, attempt, interval_s, progress, bool(settled), _unpack(registers), vector,
                unpack_blindings(blindings), _unpack_energies(energies),
            )  # fmt: skip
        return None

    async def begin(self, gateway: str, registers: tuple[int, ...]) -> None:
        """Make a gateway's account; does nothing where there is one.  Durable on return."""
        energies = _pack_energies([EnergyAccount(each, each) for each in registers])
        first = self._cipher.seal("baseline.first", (gateway,), _pack(registers))
        opened = self._cipher.seal("baseline.opened", (gateway,), energies)
        await self._store.write(
            [Statement("INSERT OR IGNORE INTO baseline VALUES (?, ?, ?)", (gateway, first, opened))]
        )

    async def delete(self, gateway: str) -> None:
        """Delete a gateway's account and contributions, and its values that wait for a bill.  Durable on return."""
        tables = ("baseline WHERE", "contribution WHERE", "committed WHERE value IS NOT NULL AND")
        await self._store.write([Statement(f"DELETE FROM {table} gateway=?", (gateway,)) for table in tables])  # noqa: S608

    async def contribute(self, gateway: str, record: ContributionRecord, also: Sequence[Statement] = ()) -> None:
        """
        Keep a contribution that is none of the known ones.  Durable on return.

        `also` is part of the transaction: the cursor of whoever brought the registers.
        """
        row = gateway, record.epoch, record.round, record.interval_s
        content = msgpack.packb(
            (_pack(record.registers), record.vector, pack_blindings(record.blindings), _pack_energies(record.energies))
        )
        await self._store.write(
            [
                Statement(
                    "INSERT INTO contribution VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)",
                    (
                        gateway, record.epoch, record.round, record.attempt, record.interval_s, record.progress,
                        int(record.settled), self._cipher.seal("contribution", row, content),
                    ),
                ),
                *also,
            ]
        )  # fmt: skip

    async def progress(
        self, gateway: str, epoch: int, round_: int, *, attempt: int, progress: int, also: Sequence[Statement] = ()
    ) -> None:
        """A known contribution has come further, or is attempted anew; `also` as above.  Durable on return."""
        sql = "UPDATE contribution SET attempt=?, progress=? WHERE gateway=? AND epoch=? AND round=?"
        await self._store.write([Statement(sql, (attempt, progress, gateway, epoch, round_)), *also])

    async def settle(
        self, gateway: str, record: ContributionRecord, *, included: bool, committed: Sequence[CommittedValue] = (),
        keep_committed_s: int = 0,
    ) -> None:  # fmt: skip
        """
        The round of a contribution is over, and those before it are deleted: the account needs the last one only.

        Where it is `included` in an opened total the account moves by what was contributed, and the values that it
        committed to wait for their bill; those older than `keep_committed_s` go.  One transaction, durable on return.
        """
        statements = [
            Statement(
                "UPDATE contribution SET settled=1, included=? WHERE gateway=? AND epoch=? AND round=?",
                (int(included), gateway, record.epoch, record.round),
            ),
            Statement("DELETE FROM contribution WHERE gateway=? AND interval_s<?", (gateway, record.interval_s)),
        ]
        if included:
            opened = self._cipher.seal("baseline.opened", (gateway,), _pack_energies(record.energies))
            statements.append(Statement("UPDATE baseline SET opened=? WHERE gateway=?", (opened, gateway)))
            statements += keep_committed(self._cipher, gateway, record.interval_s, committed, keep_committed_s)
        await self._store.write(statements)


def _pack(values: tuple[int, ...]) -> bytes:
    return struct.pack(f"<{len(values)}Q", *[value % _WORD for value in values])


def _unpack(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 8}q", data)


def _pack_energies(accounts: Sequence[EnergyAccount]) -> bytes:
    return bytes(msgpack.packb(accounts))


def _unpack_energies(data: bytes) -> tuple[EnergyAccount, ...]:
    return tuple(EnergyAccount(*row) for row in msgpack.unpackb(data))
