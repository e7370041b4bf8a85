"""Which registers of which meters signed profiles let into totals, and what an account does when they change."""

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from node.profiles.contribution_rule import MeterRegister, Selection
from node.storage.engine import Statement
from node.storage.errors import StoreError
from node.storage.repositories.account_basis import AccountBasis, AccountBasisRepository
from protocol.dcnet.setup.schema import Schema
from protocol.errors import RemoteProtocolError
from protocol.logs.events import Event
from protocol.profiles.processing import Recipient
from protocol.profiles.profile_set import ProfileSet
from tests.unit.profiled_account import (
    AREA,
    DAY_S,
    EXPORT,
    GATEWAY,
    IMPORT,
    SCHEMA,
    Account,
    InForce,
    account_in,
    both,
    for_participants,
    processing,
    profile_set,
    rule_of,
)

ONE, TWO = (f"{GATEWAY}/{index}" for index in range(2))
SPAN = 900, DAY_S, DAY_S + 16 * 900


def at(quarter_hour: int) -> str:
    return datetime.fromtimestamp(DAY_S + quarter_hour * 900, UTC).isoformat()


def recipients(**changed: Any) -> list[dict[str, Any]]:
    return [{"participant": "grid", "communication": "w", "delivery": "aggregated"} | changed]


def refusal(profiles: InForce, schema: Schema = SCHEMA, *, without_profile: bool = False) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        rule_of(profiles, without_profile=without_profile).select(schema, *SPAN)
    return caught.value.reason


def named(*names: str, **changed: Any) -> list[dict[str, Any]]:
    """Recipients of totals by these names."""
    return [recipients(participant=name, **changed)[0] for name in names]


def chosen(*profiles: dict[str, Any], **changed: Any) -> set[MeterRegister]:
    return set(rule_of(InForce(profile_set(*profiles, **changed))).select(SCHEMA, *SPAN).registers)


def test_the_registers_that_aggregated_profiles_name_are_contributed() -> None:
    mine = {MeterRegister(ONE, IMPORT), MeterRegister(ONE, EXPORT)}
    assert chosen(*both()) == mine
    assert chosen(*both(), processing(IMPORT, 1)) == mine | {MeterRegister(TWO, IMPORT)}
    assert chosen(*both(), processing(IMPORT, 1, recipients=recipients(delivery="direct"))) == mine
    assert chosen(*both(recipients=recipients(area=AREA))) == mine
    assert chosen(*both(use_case={"taf": 9, "period_s": 900})) == mine
    assert chosen(*both(valid_to=at(16))) == mine


@pytest.mark.parametrize(
    "changed",
    [
        {"recipients": recipients(delivery="direct")},
        {"recipients": recipients(delivery="pseudonymous")},
        {"recipients": recipients(area="Ost")},
        {"use_case": {"taf": 1}},
        {"registration_period_s": 3600},
        {"valid_from": at(1)},
        {"valid_to": at(15)},
        {"valid_to": at(-1)},
    ],
    ids=["direct", "pseudonymous", "area", "use case", "period", "begins later", "ends in it", "ended"],
)
def test_a_profile_that_does_not_fit_lets_nothing_in(changed: dict[str, Any]) -> None:
    assert refusal(InForce(profile_set(*both(**changed)))) == "unprofiled_register"


def test_a_register_of_the_totals_that_no_profile_names_refuses_all() -> None:
    assert refusal(InForce(profile_set(processing(IMPORT)))) == "unprofiled_register"
    assert refusal(InForce(profile_set(*both(), valid_to=at(3)))) == "unprofiled_register", "the meter's own profile"


def test_totals_for_several_are_contributed_to_where_profiles_name_all() -> None:
    two = for_participants("grid", "supplier")
    both_named = InForce(profile_set(*both(recipients=named("grid", "supplier", "third"))))
    assert rule_of(both_named).select(two, *SPAN).devices == (ONE,)
    assert rule_of(both_named).select(SCHEMA, *SPAN) == rule_of(both_named).select(two, *SPAN)
    apart = [processing(obis, recipients=named(name)) for obis in (IMPORT, EXPORT) for name in ("grid", "supplier")]
    assert rule_of(InForce(profile_set(*apart))).select(two, *SPAN).devices == (ONE,), "by profiles of their own"


@pytest.mark.parametrize(
    "profiles",
    [
        both(),
        both(recipients=[*named("grid"), *named("supplier", area="Ost")]),
        both(recipients=[*named("grid"), *named("supplier", delivery="direct")]),
        [*both(), processing(recipients=named("supplier"))],
        [*both(), *both(recipients=named("supplier"), valid_to=at(15))],
        [*both(recipients=named("grid", "supplier")), *both(1)],
    ],
    ids=["not named", "of another area", "direct", "for one register", "not for so long", "for one of two meters"],
)
def test_a_recipient_that_profiles_do_not_name_refuses_all(profiles: list[dict[str, Any]]) -> None:
    in_force = InForce(profile_set(*profiles))
    assert refusal(in_force, for_participants("grid", "supplier")) == "unprofiled_recipient"
    assert rule_of(in_force).select(SCHEMA, *SPAN).registers, "for the one alone it is contributed"


def test_a_refusal_names_the_register_and_its_recipient() -> None:
    with pytest.raises(RemoteProtocolError, match=r"covers 1-0:2\.8\.0\*255 for supplier from"):
        rule_of(InForce(profile_set(*both(), processing(recipients=named("supplier"))))).select(
            for_participants("grid", "supplier"), *SPAN
        )


def test_totals_for_nobody_get_nothing() -> None:
    assert refusal(InForce(profile_set(*both())), for_participants()) == "unprofiled_recipient"
    assert rule_of(InForce(profile_set(*both()))).why_not(for_participants(), DAY_S) == "unprofiled_recipient"


def test_a_register_that_nobody_gets_is_told_before_a_recipient() -> None:
    profiles = InForce(profile_set(processing(IMPORT)))
    assert refusal(profiles, for_participants("supplier")) == "unprofiled_register"


def test_without_an_administrator_every_recipient_gets_totals() -> None:
    rule = rule_of(InForce(None), without_profile=True)
    assert rule.select(for_participants("supplier"), *SPAN).devices == (ONE, TWO)


def test_profiles_without_a_gap_between_them_count_as_one() -> None:
    first, after, later = both(valid_to=at(8)), both(valid_from=at(8)), both(valid_from=at(9))
    selection = rule_of(InForce(profile_set(*first, *after))).select(SCHEMA, *SPAN)
    assert selection.since_s == DAY_S - 86_400
    assert refusal(InForce(profile_set(*first, *later))) == "unprofiled_register"
    assert rule_of(InForce(profile_set(*first, *later))).select(SCHEMA, 900, DAY_S + 9 * 900, DAY_S + 9000).since_s == (
        DAY_S + 9 * 900
    )


def test_without_a_set_in_force_nothing_is_contributed() -> None:
    assert refusal(InForce(None)) == "no_profiles"
    assert refusal(InForce(None, version=3)) == "no_profiles", "what is stored does not open"
    assert rule_of(InForce(None)).why_not(SCHEMA, DAY_S) == "no_profiles"


def test_the_switch_for_no_administrator_ends_with_the_first_set() -> None:
    rule = rule_of(InForce(None), without_profile=True)
    assert rule.select(SCHEMA, *SPAN) == Selection.of_all(SCHEMA, [ONE, TWO])
    assert rule.why_not(SCHEMA, DAY_S) is None
    assert refusal(InForce(None, version=1), without_profile=True) == "no_profiles"
    assert refusal(InForce(profile_set()), without_profile=True) == "unprofiled_register"


def test_an_area_is_of_totals_alone_and_changes_no_other_sets_octets() -> None:
    with pytest.raises(ValidationError, match="only aggregated delivery is of a grid area"):
        Recipient.model_validate_json(json.dumps(recipients(area=AREA, delivery="direct")[0]))
    plain, bound = profile_set(*both()), profile_set(*both(recipients=recipients(area=AREA)))
    assert b'"area"' not in plain.to_bytes()
    assert ProfileSet.from_bytes(plain.to_bytes()) == plain
    assert ProfileSet.from_bytes(bound.to_bytes()) == bound


async def test_a_register_that_is_not_selected_is_in_no_contribution(tmp_path: Path) -> None:
    async with account_in(tmp_path, InForce(profile_set(*both(), processing(EXPORT, 1)))) as account:
        await account.join(0)
        await account.read(0, 1_000, 70_000)
        await account.read(1, 1_025, 70_500)
        assert await account.contribute(0) == (1, 25, 0)


async def test_no_zero_is_taken_before_the_profiles_begin(tmp_path: Path) -> None:
    async with account_in(tmp_path, InForce(profile_set(*both(valid_from=at(0)), meters=1)), meters=1) as account:
        await account.join(0)
        await account.read(-2, 1_000)
        await account.read(-1, 1_500)
        await account.read(0, 1_520)
        await account.read(1, 1_530)
        assert await account.contribute(0) == (1, 10, 0)


async def joined(account: Account, epoch: int, *imports: int) -> tuple[int, ...] | None:
    """An epoch with a reading in its first quarter hour and one in its second, which is contributed."""
    await account.join(epoch)
    await account.read(16 * epoch, *[each - 10 for each in imports])
    await account.read(16 * epoch + 1, *imports)
    return await account.contribute(epoch)


async def test_a_recipient_too_many_ends_contributions_and_begins_anew(tmp_path: Path) -> None:
    more = for_participants("grid", "supplier")
    async with account_in(tmp_path, InForce(profile_set(*both(), meters=1)), meters=1) as account:
        assert await joined(account, 0, 1_010) == (1, 10, 0)
        with pytest.raises(RemoteProtocolError, match="unprofiled_recipient"):
            await account.join(1, more)
        ended = Event.CONTRIBUTIONS_ENDED, {"area": AREA, "version": 1, "reason": "unprofiled_recipient"}
        assert account.noted[-1] == ended
        await account.read(20, 5_000)
        account.profiles.put(profile_set(*both(recipients=named("grid", "supplier")), version=2, meters=1))
        await account.join(2, more)
        await account.read(32, 5_040)
        await account.read(33, 5_050)
        assert await account.contribute(2) == (1, 10, 0), "what was used meanwhile is in no total"


async def test_other_recipients_that_profiles_name_change_no_account(tmp_path: Path) -> None:
    profiles = InForce(profile_set(*both(recipients=named("grid", "supplier")), meters=1))
    async with account_in(tmp_path, profiles, meters=1) as account:
        assert await joined(account, 0, 1_010) == (1, 10, 0)
        tokens = account.tokens
        await account.join(1, for_participants("supplier"))
        await account.read(16, 1_170)
        contributed = await account.contribute(1)
        assert contributed is not None
        assert contributed[1] > 0, "it goes on from the last total, and not from a new zero"
        assert account.tokens == tokens


async def test_a_withdrawal_is_told_once_and_what_was_used_meanwhile_is_lost(tmp_path: Path) -> None:
    whole = profile_set(*both(), meters=1)
    profiles = InForce(whole)
    async with account_in(tmp_path, profiles, meters=1) as account:
        assert await joined(account, 0, 1_010) == (1, 10, 0)
        profiles.put(profile_set(meters=1, version=2))
        for _ in range(2):
            with pytest.raises(RemoteProtocolError, match="unprofiled_register"):
                await account.join(1)
        await account.read(2, 1_030)
        assert await account.contribute(0) == (1, 20, 0), "within the epoch nothing changes"
    profiles.put(whole.model_copy(update={"version": 3}))
    async with account_in(tmp_path, profiles, meters=1) as account:  # killed and started again
        assert await joined(account, 2, 2_000) == (1, 10, 0)
        assert account.tokens == 0
        assert [event for event, _ in account.noted] == [Event.CONTRIBUTIONS_BEGUN]


async def test_what_ends_is_in_the_gateways_log_with_its_reason(tmp_path: Path) -> None:
    profiles = InForce(profile_set(*both(), meters=1))
    async with account_in(tmp_path, profiles, meters=1) as account:
        await account.join(0)
        profiles.put(profile_set(*both(recipients=recipients(delivery="direct")), meters=1, version=2))
        for epoch in (1, 2):
            with pytest.raises(RemoteProtocolError):
                await account.join(epoch)
        begun, ended = account.noted
        assert begun == (Event.CONTRIBUTIONS_BEGUN, {"area": AREA, "version": 1})
        assert ended == (Event.CONTRIBUTIONS_ENDED, {"area": AREA, "version": 2, "reason": "no_profiles"})


@pytest.mark.parametrize("is_written", [False, True], ids=["before", "after"])
async def test_killed_around_the_new_basis_an_account_begins_anew_once(tmp_path: Path, *, is_written: bool) -> None:
    profiles = InForce(profile_set(*both(), *both(1)))
    async with account_in(tmp_path, profiles) as account:
        assert await joined(account, 0, 1_010, 50_010) == (1, 20, 0)
    profiles.put(profile_set(*both(), version=2))
    async with account_in(tmp_path, profiles) as account:
        put = AccountBasisRepository.put

        async def killed(mine: AccountBasisRepository, gateway: str, basis: AccountBasis) -> None:
            if is_written:
                await put(mine, gateway, basis)
            raise StoreError("killed")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AccountBasisRepository, "put", killed)
            with pytest.raises(StoreError):
                await account.join(1)
    async with account_in(tmp_path, profiles) as account:
        assert await joined(account, 1, 1_030, 60_000) == (1, 10, 0), "neither meter 1 nor the time between"


async def test_a_store_from_before_the_first_epoch_is_held_against_the_keys(tmp_path: Path) -> None:
    """Its zero is old: all that was used since would be in one contribution, a second time."""
    profiles = InForce(profile_set(*both(), meters=1))
    async with account_in(tmp_path, profiles, meters=1) as account:
        await account.join(0)
        await account.read(0, 1_000)
    async with account_in(tmp_path, profiles, meters=1, bound=3) as account:
        start: Any = SimpleNamespace(permits=lambda interval_s: interval_s > DAY_S)  # nothing from before the start
        account.ring.review.start = start
        assert await joined(account, 4, 900_000) == (1, 10, 0)
        assert account.tokens == 0


async def test_an_account_of_an_earlier_release_goes_on_under_the_same_registers(tmp_path: Path) -> None:
    profiles = InForce(profile_set(*both(), meters=1))
    async with account_in(tmp_path, profiles, meters=1) as account:
        assert await joined(account, 0, 1_010) == (1, 10, 0)
        await account.store.write([Statement("DELETE FROM account_basis", ())])
    async with account_in(tmp_path, profiles, meters=1) as account:
        assert await joined(account, 1, 1_050) is not None
        assert account.tokens > 0
