"""
A consumer's contracts: those in force, and those that have ended in the past 15 months.

The administrator's set may keep the HAN profiles of contracts that are over, or leave them out.  What is left out is
found in the sets that were in force before; it has ended when the next set was issued.  A user name alone is nobody's
for good, so such a profile must show the same password or certificate as one that the consumer has now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise

from node.han.accounts import CONTRACTS_KEPT, Account, Contract
from node.han.models import ContractPart
from node.storage.errors import SealError
from node.storage.repositories.profile_sets import ProfileSetRepository
from protocol.errors import RemoteProtocolError
from protocol.profiles.communication import HanProfile
from protocol.profiles.profile_set import ProfileSet


def contract_parts(account: Account, sets: Sequence[ProfileSet], now: datetime) -> tuple[ContractPart, ...]:
    """An account's contracts by the set in force and those before it, the newest first in `sets`."""
    over = [*account.ended, *_withdrawn(account.user, sets, now)]
    over.sort(key=lambda each: each.valid_to or now, reverse=True)
    return (
        *(_part(each, is_in_force=True) for each in account.contracts),
        *(_part(each, is_in_force=False) for each in over),
    )


def sets_up_to(current: ProfileSet, kept: ProfileSetRepository) -> Iterator[ProfileSet]:
    """The set in force, then the earlier ones that still open, the newest first.  Raises StoreError."""
    yield current
    for version in kept.versions(current.gateway):
        if version < current.version:
            try:
                document = kept.document(current.gateway, version)
                if document is not None:
                    yield ProfileSet.from_bytes(document)
            except (SealError, RemoteProtocolError):  # of an earlier release
                continue


def _withdrawn(user: str, sets: Sequence[ProfileSet], now: datetime) -> Iterator[Contract]:
    own = list(_consumers(user, sets[0])) if sets else []
    known = {each.id for each in own}
    for following, each_set in pairwise(sets):
        for each in _consumers(user, each_set):
            if each.id in known or not any(_is_same_login(each, one) for one in own):
                continue
            known.add(each.id)
            end = min(following.issued_at, each.valid_to or following.issued_at)
            if each.valid_from < end and now - CONTRACTS_KEPT < end <= now:
                yield Contract(each.id, each.metering_points, each.valid_from, end)


def _consumers(user: str, profiles: ProfileSet) -> Iterator[HanProfile]:
    return (each for each in profiles.han if each.user == user and each.role == "consumer")


def _is_same_login(one: HanProfile, other: HanProfile) -> bool:
    names = ("certificate", "ha1_sha256", "ha1_md5")
    return any(getattr(one, name) is not None and getattr(one, name) == getattr(other, name) for name in names)


def _part(contract: Contract, *, is_in_force: bool) -> ContractPart:
    return ContractPart(
        id=contract.id, metering_points=contract.metering_points, valid_from=contract.valid_from,
        valid_to=contract.valid_to, is_in_force=is_in_force,
    )  # fmt: skip
