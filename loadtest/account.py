"""
The conservation law from the books alone: what the totals add up to, and by how much the gateways' accounts moved.

`loadtest.truth` knows the meters and every quarter hour; this knows the node's durable account and the coordinator's
round ledger, and so needs no clock: it holds for any run, with any churn, of processes that were killed at any moment.
The account of a gateway goes from its first reading to the registers of the last contribution that opened.  Whether
the very last one opened may be unknown to a gateway that was killed; then the round ledger says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.storage.engine import Store
from node.storage.repositories.accounts import AccountRepository
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.rings import positions_of
from protocol.dcnet.setup.schema import Kind, Schema, signed
from protocol.wire import Outcome


@dataclass(frozen=True, slots=True)
class EnergyBalance:
    """Sums of the energy slots, at the schema's scalers: of all opened totals, and of all accounts."""

    opened: tuple[int, ...]
    accounts: tuple[int, ...]
    gateways: int

    @property
    def is_conserved(self) -> bool:
        """Nothing lost, nothing twice."""
        return self.opened == self.accounts


def flown(
    schema: Schema, ended: Iterable[Ended], members: Mapping[tuple[int, int], Sequence[str]], stores: Sequence[Path]
) -> EnergyBalance:
    """
    Hold a round ledger against the node stores of a run (SQLite files of nodes that have stopped).

    `members` are the gateways of each (epoch, ring) in position order.
    """
    energy = [index for index, slot in enumerate(schema.slots) if slot.kind is Kind.ENERGY]
    opened = [each for each in ended if each.outcome is Outcome.OPENED]
    sums = [0] * len(schema.slots)
    counted: set[tuple[str, int, int]] = set()
    for each in opened:
        for index in energy:
            sums[index] += signed(each.total[index])
        counted.update((members[each.epoch, each.ring][i], each.epoch, each.round) for i in positions_of(each.roster))
    moved = [0] * len(schema.slots)
    gateways = 0
    for path in stores:
        store = Store(path)
        accounts = AccountRepository(store)
        for gateway in accounts.gateways():
            gateways += 1
            account, last = accounts.account(gateway), accounts.last_contribution(gateway)
            if account is None:
                continue
            end = account.opened
            if last is not None and not last.settled and (gateway, last.epoch, last.round) in counted:
                end = last.registers
            for index in energy:
                moved[index] += end[index] - account.first[index]
        store.close()
    return EnergyBalance(tuple(sums[i] for i in energy), tuple(moved[i] for i in energy), gateways)
