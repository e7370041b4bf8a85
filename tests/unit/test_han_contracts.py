"""Which contracts a consumer is shown: those in force, and those that ended in the past 15 months."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from node.han.accounts import CONTRACTS_KEPT, Accounts
from node.han.contracts import contract_parts, sets_up_to
from node.storage.cipher import StorageCipher
from node.storage.engine import Statement, Store
from node.storage.repositories.profile_sets import ProfileSetRepository
from protocol.profiles.profile_set import ProfileSet
from tests.integration.han_home import ANNA, BEN, GATEWAY, POINT
from tests.integration.han_profiles import profile_document
from tests.unit.test_han_login import Profiles, Secrets

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HA1 = "ab" * 32


def consumer(name: str, begin: datetime, end: datetime | None = None, **changed: Any) -> dict[str, Any]:
    return {
        "id": name, "role": "consumer", "user": ANNA[0], "metering_points": [POINT], "ha1_sha256": HA1,
        "valid_from": begin.isoformat(), "valid_to": None if end is None else end.isoformat(),
    } | changed  # fmt: skip


def profile_set(version: int, *han: dict[str, Any], issued_at: datetime = NOW - DAY) -> ProfileSet:
    document = profile_document(version, han=list(han), issued_at=issued_at.isoformat())
    return ProfileSet.model_validate_json(json.dumps(document))


def shown(*sets: ProfileSet) -> list[tuple[str, datetime | None, bool]]:
    (account,) = Accounts(Profiles(sets[0]), [], Secrets(), NOW.timestamp).all()
    return [(each.id, each.valid_to, each.is_in_force) for each in contract_parts(account, sets, NOW)]


def test_contracts_of_the_set_are_shown_for_15_months_after_their_end() -> None:
    ends = [NOW - CONTRACTS_KEPT + DAY, NOW - CONTRACTS_KEPT - DAY, NOW - DAY]
    old = [consumer(f"h{number}", ends[number] - 30 * DAY, end) for number, end in enumerate(ends)]
    found = shown(profile_set(1, consumer("now", NOW - DAY), *old, consumer("later", NOW + DAY)))
    assert found == [("now", None, True), ("h2", ends[2], False), ("h0", ends[0], False)]


def test_a_contract_left_out_of_the_set_ended_when_the_next_was_issued() -> None:
    begin, issued = NOW - 90 * DAY, [NOW - days * DAY for days in (2, 40, 80)]
    sets = [
        profile_set(3, consumer("c", issued[0]), issued_at=issued[0]),
        profile_set(2, consumer("b", begin), issued_at=issued[1]),
        profile_set(1, consumer("b", begin), consumer("a", begin), issued_at=issued[2]),
    ]
    assert shown(*sets) == [("c", None, True), ("b", issued[0], False), ("a", issued[1], False)]


@pytest.mark.parametrize(
    "changed", [{"ha1_sha256": "cd" * 32}, {"user": BEN[0]}, {"valid_from": NOW.isoformat()}], ids=str
)
def test_what_may_be_another_persons_or_never_began_is_not_shown(changed: dict[str, Any]) -> None:
    old = consumer("old", NOW - 90 * DAY, **changed)
    sets: Sequence[ProfileSet] = [
        profile_set(2, consumer("new", NOW - DAY)), profile_set(1, old, consumer("new", NOW - DAY)),
    ]  # fmt: skip
    assert shown(*sets) == [("new", None, True)]


def test_a_contract_left_out_over_15_months_ago_is_not_shown() -> None:
    past = NOW - CONTRACTS_KEPT - DAY
    sets = [
        profile_set(2, consumer("new", past), issued_at=past),
        profile_set(1, consumer("old", past - DAY), issued_at=past - DAY),
    ]
    assert shown(*sets) == [("new", None, True)]


async def test_earlier_sets_come_from_the_store_as_far_as_they_open(tmp_path: Path) -> None:
    store = Store(tmp_path / "node.sqlite", StorageCipher(bytes(32)))
    kept = ProfileSetRepository(store)
    sets = [profile_set(version, consumer(f"h{version}", NOW - DAY)) for version in range(1, 5)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        for each in sets:
            await store.write(kept.add(GATEWAY, each.version, each.to_bytes()))
        await store.write([Statement("UPDATE profile_set SET sealed=x'00' WHERE version=2", ())])
        nursery.cancel_scope.cancel()
    assert [each.version for each in sets_up_to(sets[2], kept)] == [3, 1]
    store.close()
