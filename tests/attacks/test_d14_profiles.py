"""
D14: an administrator that signs profiles so that one household stands alone in the difference of two totals.

It may withdraw and roll out whatever it likes, whenever it likes, and sees every total.  It must gain nothing over a
head that leaves a gateway out: no change inside an epoch, no free return, no energy of the time between, no meter's
register as the difference of two selections, and no total of the victim and a handful of accomplices.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from node.aggregation.beacon import CrowdPolicy
from node.storage.repositories.account_basis import AccountBasis, AccountBasisRepository
from protocol.dcnet.discipline.returns import TOKENS_MAX
from protocol.dcnet.machines.effects import Attempted, Progress
from protocol.dcnet.machines.member_attempt import Resume
from protocol.errors import RemoteProtocolError
from protocol.profiles.profile_set import ProfileSet
from tests.attacks.test_d08_gateway import CALL, ME, NOW_S, OTHERS, Clock, gateway, listed, refusal
from tests.unit.profiled_account import (
    Account,
    InForce,
    account_in,
    both,
    call,
    processing,
    profile_set,
)

WHOLE, NOTHING = profile_set(*both(), *both(1)), profile_set()
NO_EXPORT = profile_set(processing(), processing(meter=1))


def version(number: int, *, is_whole: bool) -> InForce:
    return InForce((WHOLE if is_whole else NOTHING).model_copy(update={"version": number}))


def switch(account: Account, number: int, *, is_whole: bool) -> None:
    account.profiles.put(version(number, is_whole=is_whole).current)


async def test_inside_an_epoch_no_profile_takes_a_household_out(tmp_path: Path) -> None:
    """Else alternate totals with and without it would be free, and of the administrator's own choice."""
    async with account_in(tmp_path, version(1, is_whole=True)) as account:
        await account.join(0)
        await account.read(0, 1_000, 1_000)
        for quarter_hour in range(1, 9):
            switch(account, 1 + quarter_hour, is_whole=quarter_hour % 2 == 0)
            await account.read(quarter_hour, 1_000 + 7 * quarter_hour, 1_000)
            assert await account.contribute(0) == (1, 7, 0)


@pytest.mark.parametrize("less", [NOTHING, NO_EXPORT], ids=["nothing", "no-export"])
async def test_each_withdrawal_costs_all_returns_and_its_energy_is_in_no_total(
    tmp_path: Path, less: ProfileSet
) -> None:
    used, number = 0, 1
    async with account_in(tmp_path, version(1, is_whole=True)) as account:
        for epoch in range(0, 6, 2):
            await account.join(epoch)
            await account.read(16 * epoch, 1_000 + used, 500)
            await account.read(16 * epoch + 1, 1_010 + used, 500)
            assert await account.contribute(epoch) == (1, 10, 0), "of one quarter hour, whatever was used meanwhile"
            assert account.tokens == (TOKENS_MAX if epoch == 0 else 0)
            used, number = used + 12_345, number + 2
            account.profiles.put(less.model_copy(update={"version": number - 1}))
            with pytest.raises(RemoteProtocolError):
                await account.join(epoch + 1)
            switch(account, number, is_whole=True)


async def test_another_selection_is_no_difference_of_two_contributions(tmp_path: Path) -> None:
    """A heat pump's meter that is added or taken away: its register must not come out, nor what it used."""
    async with account_in(tmp_path, version(1, is_whole=True)) as account:
        await account.join(0)
        await account.read(0, 1_000, 90_000)
        await account.read(1, 1_010, 90_777)
        assert await account.contribute(0) == (1, 787, 0)
        for epoch, profiles in ((1, both()), (2, [*both(), *both(1)]), (3, both(1))):
            account.profiles.put(profile_set(*profiles, version=1 + epoch))
            await account.join(epoch)
            assert account.tokens == 0
            await account.read(16 * epoch, 1_020, 92_000)
            await account.read(16 * epoch + 1, 1_024, 92_500)
            assert await account.contribute(epoch) == (1, {1: 4, 2: 504, 3: 500}[epoch], 0)


async def test_what_was_read_before_another_selection_is_no_zero_nor_contributed(tmp_path: Path) -> None:
    """The call comes when meters are read: a meter's whole register would be the difference."""
    for profiles, others in ((both(), both(1)), ([*both(), *both(1)], [])):
        async with account_in(tmp_path / str(len(others)), InForce(profile_set(*profiles))) as account:
            await account.join(0)
            await account.read(0, 1_000, 90_000)
            await account.read(1, 1_010, 90_000)
            assert await account.contribute(0) == (1, 10, 0)
            put = AccountBasisRepository.put

            async def put_late(
                mine: AccountBasisRepository, gateway: str, basis: AccountBasis,
                account: Account = account, put: Callable[..., Awaitable[None]] = put,
            ) -> None:  # fmt: skip
                await account.read(16, 1_020, 90_000)  # by the old selection
                await put(mine, gateway, basis)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(AccountBasisRepository, "put", put_late)
                account.profiles.put(profile_set(*(both() if not others else [*profiles, *others]), version=2))
                await account.join(1)
            before = account.published[-1]
            await account.read(17, 1_030, 90_000)
            await account.read(18, 1_040, 90_000)
            newest = account.published[-1]
            account.published.append(before)
            assert await account.contribute(1) is None
            account.published.append(newest)
            assert await account.contribute(1) == (1, 10, 0)


async def test_another_selection_goes_into_no_round_of_the_ring_that_lives(tmp_path: Path) -> None:
    """And the member of that ring, where it is made again, knows what it shared in: no round is served twice."""
    async with account_in(tmp_path, version(1, is_whole=True)) as account:
        await account.join(0)
        await account.read(0, 1_000, 90_000)
        await account.read(1, 1_010, 90_000)
        mine = account.ring.contributions
        assert mine is not None
        registers = account.published[-1]
        view: Any = SimpleNamespace(epoch=0, size=8, noise=(), committed=(), bits=())
        assert mine.build(view, 1, registers) is not None
        await mine.attempted(view, Attempted(1, 0, Progress.SERVED, is_return=False))
        account.profiles.put(profile_set(*both(), version=2))
        await account.ring.use(call(1))
        assert mine.resume(0) == Resume(1, 0, Progress.SERVED, settled=False)
        await mine.settle(0, 1, included=True)
        assert mine.resume(0) == Resume(1, 0, Progress.SERVED, settled=True)
        for quarter_hour in (1, 2, 3):
            await account.read(quarter_hour, 1_010, 90_000)
            assert await account.contribute(0) is None
        await account.read(16, 1_020, 90_000)
        await account.read(17, 1_030, 90_000)
        assert await account.contribute(1) == (1, 10, 0)


async def test_whoever_withdraws_all_others_gets_no_total_of_the_one(tmp_path: Path) -> None:
    """Members without profiles are not in the list, and a list of few gets no value of the victim's: no ring."""
    clock = Clock()
    async with gateway(tmp_path, clock, CrowdPolicy(), since_s=NOW_S - 86_400) as beacon:
        message = listed(CALL, (await beacon.join(CALL)).commitment(ME))
        _, entries = await beacon.reveal(CALL, message)
        await beacon.layout_held(CALL, entries)
        clock.now_s += 32 * 900
        later = replace(CALL, epoch=8)
        commitment = (await beacon.join(later)).commitment(ME)
        assert await refusal(beacon, later, listed(later, commitment, OTHERS[:40])) == "area_shrunk"
