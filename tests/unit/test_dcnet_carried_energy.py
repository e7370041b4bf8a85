"""Slow release: what a returning member contributes, what it keeps, and that nothing is lost on the way."""

from hypothesis import given
from hypothesis import strategies as st

from protocol.dcnet.discipline.carried_energy import EnergyAccount, contribute, parts

LIMIT = 2**18 - 1


def at(account: EnergyAccount, interval: int, register: int, limit: int = LIMIT) -> tuple[int, EnergyAccount]:
    return contribute(account, register, 900 * interval, length_s=900, limit=limit)


def test_who_missed_nothing_contributes_the_interval() -> None:
    moved, account = at(EnergyAccount(1000, 1000), 7, 1030)
    assert (moved, account) == (30, EnergyAccount(1030, 1030, 6300))
    moved, account = at(account, 8, 1035)
    assert (moved, account) == (5, EnergyAccount(1035, 1035, 7200))


def test_what_was_missed_comes_in_sixteen_parts_beside_the_mean() -> None:
    _, account = at(EnergyAccount(0, 0), 0, 10)
    moved, account = at(account, 2, 10 + 100 + 220)  # one missed: 320 in two intervals
    assert moved == 160 + 10  # of the 160 that are carried a sixteenth
    assert (account.carried, account.absent, account.part) == (150, 1, 10)
    for interval in range(3, 18):
        moved, account = at(account, interval, account.register + 7)
        assert moved == 7 + 10
    assert account == EnergyAccount(330 + 15 * 7, 330 + 15 * 7, 17 * 900)


def test_a_long_absence_is_released_over_half_of_it() -> None:
    _, account = at(EnergyAccount(0, 0), 0, 0)
    moved, account = at(account, 101, 101 * 50)
    assert moved == 50 + 100
    assert (account.absent, account.part, parts(100)) == (100, 100, 50)


def test_a_second_absence_counts_the_first_while_something_is_carried() -> None:
    _, account = at(EnergyAccount(0, 0), 0, 0)
    _, account = at(account, 41, 41 * 50)
    _, account = at(account, 72, 72 * 50)
    assert account.absent == 70
    assert account.part == -(-(40 * 50 - 100 + 30 * 50) // 35)


def test_a_return_that_does_not_open_leaves_the_account_and_counts_as_missed() -> None:
    _, account = at(EnergyAccount(0, 0), 0, 10)
    at(account, 1, 30)
    moved, after = at(account, 2, 60)
    assert moved == 25 + 2
    assert (after.absent, after.carried) == (1, 23)


def test_what_is_beyond_the_limit_is_carried_and_released() -> None:
    moved, account = at(EnergyAccount(0, 0), 0, 100, limit=31)
    assert (moved, account.carried, account.part) == (31, 69, 0)
    moved, account = at(account, 1, 110, limit=31)
    assert (moved, account.carried) == (10 + 5, 64)
    moved, account = at(account, 2, 140, limit=31)
    assert (moved, account.carried) == (31, 63)


def test_energy_beyond_the_limit_is_released_in_sixteenths() -> None:
    _, account = at(EnergyAccount(0, 0), 0, 0)
    moved, account = at(account, 1, 63, limit=31)
    assert (moved, account.carried, account.part) == (31, 32, 0)
    moved, account = at(account, 2, 63, limit=31)
    assert (moved, account.part) == (2, 2)


def test_a_register_that_fell_a_little_gives_what_is_carried() -> None:
    account = EnergyAccount(100, 200, 900, absent=2, part=10)
    moved, after = at(account, 2, 150)
    assert (moved, after) == (10, EnergyAccount(110, 150, 1800, 2, 10))


def test_intervals_of_another_length_or_offset_are_counted_in_their_own() -> None:
    account = EnergyAccount(100, 100, 3600)
    assert contribute(account, 140, 7200, length_s=3600, limit=LIMIT)[0] == 40
    assert contribute(account, 140, 3600 + 950, length_s=900, limit=LIMIT)[0] == 40
    assert contribute(account, 140, 3600 + 1800, length_s=900, limit=LIMIT)[0] == 20 + 2


@given(
    st.lists(
        st.tuples(st.integers(1, 60), st.integers(0, 5000), st.booleans(), st.sampled_from([LIMIT, 4095])), max_size=80
    )
)
def test_totals_equal_the_accounts_moves_and_the_rest_is_carried(steps: list[tuple[int, int, bool, int]]) -> None:
    """Any absences, voids and limits: Σ opened + carried = what the register counted, and what comes is bounded."""
    account, register, interval, opened = EnergyAccount(50, 50), 50, 0, 0
    for gap, moved, opens, limit in steps:
        interval += gap
        register += gap * moved
        word, after = at(account, interval, register, limit)
        assert 0 <= word <= limit
        if opens:
            opened, account = opened + word, after
        assert opened == account.contributed - 50
        assert account.carried == account.register - account.contributed >= 0
        assert account.register <= register
    for _ in range(sum(gap for gap, *_ in steps) + 2 * 16):  # then it is there in every round
        interval += 1
        word, account = at(account, interval, register)
        opened += word
    assert (opened, account.carried) == (register - 50, 0)


@given(st.integers(1, 400), st.integers(0, 6000))
def test_a_contribution_is_at_most_three_times_the_mean_interval(missed: int, mean: int) -> None:
    _, account = at(EnergyAccount(0, 0), 0, 0)
    word, account = at(account, missed + 1, (missed + 1) * mean)
    assert word <= 3 * mean + 1
    while account.carried:
        word, account = at(account, account.interval_s // 900 + 1, account.register + mean)
        assert word <= 3 * mean + 1
