"""
The conservation law from the books alone: what the totals add up to, and by how much the gateways' accounts moved.

`loadtest.truth` knows the meters and every quarter hour; this knows the node's durable account and the coordinator's
round ledger, and so needs no clock: it holds for any run, with any churn, of processes that were killed at any moment.
The account of a gateway goes from its first reading up by every contribution that opened.  Whether
the very last one opened may be unknown to a gateway that was killed; then the round ledger says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.security.storage_key import FILE_NAME, FileStorageKeys
from node.storage.cipher import store_cipher
from node.storage.engine import Store
from node.storage.repositories.accounts import Account, AccountRepository
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.rings import positions_of
from protocol.dcnet.setup.schema import Kind, Schema, signed
from protocol.wire import Outcome


@dataclass(frozen=True, slots=True)
class EnergyBalance:
    """
    Sums of the energy slots, at the schema's scalers: of all opened totals, of all accounts, and of what the registers
    at the last included contributions show beyond their accounts: energy of missed rounds, which is still to come.
    """

    opened: tuple[int, ...]
    accounts: tuple[int, ...]
    carried: tuple[int, ...]
    gateways: int

    @property
    def is_conserved(self) -> bool:
        """Nothing lost, nothing twice."""
        return self.opened == self.accounts


def flown(
    schema: Schema, ended: Iterable[Ended], members: Mapping[tuple[int, int], Sequence[str]], nodes: Sequence[Path]
) -> EnergyBalance:
    """
    Hold a round ledger against the accounts of a run's nodes (their data directories; they have stopped).

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
    moved, carried = [0] * len(schema.slots), [0] * len(schema.slots)
    gateways = 0
    for directory in nodes:
        with _opened(directory) as accounts:
            for gateway, account in _accounts(accounts).items():
                gateways += 1
                last, end = accounts.last_contribution(gateway), account.energies
                if last is not None and not last.settled and (gateway, last.epoch, last.round) in counted:
                    end = last.energies
                for index in energy:
                    moved[index] += end[index].contributed - account.first[index]
                    carried[index] += end[index].carried
    of_energy = [tuple(each[i] for i in energy) for each in (sums, moved, carried)]
    return EnergyBalance(of_energy[0], of_energy[1], of_energy[2], gateways)


def accounts_of(directory: Path) -> dict[str, Account]:
    """The accounts of a node that has stopped, by gateway."""
    with _opened(directory) as accounts:
        return _accounts(accounts)


@contextmanager
def _opened(directory: Path) -> Iterator[AccountRepository]:
    store = Store(directory / "registers.sqlite", store_cipher(FileStorageKeys(directory / "keys" / FILE_NAME)))
    try:
        yield AccountRepository(store)
    finally:
        store.close()


def _accounts(accounts: AccountRepository) -> dict[str, Account]:
    found = {gateway: accounts.account(gateway) for gateway in accounts.gateways()}
    return {gateway: account for gateway, account in found.items() if account is not None}
