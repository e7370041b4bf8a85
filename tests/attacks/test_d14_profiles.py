"""
D14: an administrator that signs profiles so that one household stands alone in the difference of two totals.

It may withdraw and roll out whatever it likes, whenever it likes, and sees every total.  It must gain nothing over a
head that leaves a gateway out: no change inside an epoch, no free return, no energy of the time between, no meter's
register as the difference of two selections, and no total of the victim and a handful of accomplices.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from node.aggregation.beacon import CrowdPolicy
from protocol.dcnet.discipline.returns import TOKENS_MAX
from protocol.errors import RemoteProtocolError
from tests.attacks.test_d08_gateway import CALL, ME, NOW_S, OTHERS, Clock, gateway, listed, refusal
from tests.unit.profiled_account import Account, InForce, account_in, both, profile_set

WHOLE, NOTHING = profile_set(*both(), *both(1)), profile_set()


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


async def test_each_withdrawal_costs_all_returns_and_its_energy_is_in_no_total(tmp_path: Path) -> None:
    used, number = 0, 1
    async with account_in(tmp_path, version(1, is_whole=True)) as account:
        for epoch in range(0, 6, 2):
            await account.join(epoch)
            await account.read(16 * epoch, 1_000 + used, 500)
            await account.read(16 * epoch + 1, 1_010 + used, 500)
            assert await account.contribute(epoch) == (1, 10, 0), "of one quarter hour, whatever was used meanwhile"
            assert account.tokens == (TOKENS_MAX if epoch == 0 else 0)
            used, number = used + 12_345, number + 2
            switch(account, number - 1, is_whole=False)
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
