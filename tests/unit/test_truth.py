"""The truth checker: it accepts an honest round ledger, and finds every kind of planted fault."""

import math
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.config import MetersConfig
from loadtest.households import households
from loadtest.truth import RoundRow, Verdict, check
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA, WORD_MODULUS, Kind, Schema, Slot

HOMES = households(MetersConfig(count=8, start_quarter_hour=172 * 96 + 40))
METERS = {f"g{i}": (home,) for i, home in enumerate(HOMES)}
RINGS = (("g0", "g1", "g2", "g3"), ("g4", "g5", "g6", "g7"))


class Book:
    """One register of one gateway, counted from its first reading: what it gives where a total opens with it."""

    def __init__(self) -> None:
        self.given = self.counted = self.missed = self.part = 0
        self.last_q: int | None = None

    def opens(self, q: int, counted: int) -> int:
        gap = 0 if self.last_q is None else q - self.last_q - 1
        own = (counted - self.counted) // (gap + 1)
        owed = counted - self.given - own
        self.missed += gap
        if owed and gap:
            self.part = math.ceil(owed / max(16, math.ceil(self.missed / 2)))
        gives = own + min(owed, self.part)
        self.given, self.counted, self.last_q = self.given + gives, counted, q
        if self.given == counted:
            self.missed = self.part = 0
        return gives


def honest_book(absent: dict[int, set[str]], void: set[tuple[int, int]], rounds: int = 12) -> list[RoundRow]:
    """What gateways that carry their energy would open: their own bookkeeping, not the checker's."""
    books = {name: [Book(), Book()] for name in METERS}
    rows = []
    for q in range(1, rounds + 1):
        for ring, members in enumerate(RINGS):
            roster = tuple(name for name in members if name not in absent.get(q, set()))
            if (ring, q) in void:
                rows.append(RoundRow(1, ring, q, q, opened=False))
                continue
            total = [len(roster), 0, 0, sum(METERS[name][0].registers(q).power_w for name in roster)]
            for name in roster:
                now, zero = METERS[name][0].registers(q), METERS[name][0].registers(0)
                total[1] += books[name][0].opens(q, now.import_tenth_wh - zero.import_tenth_wh)
                total[2] += books[name][1].opens(q, now.export_tenth_wh - zero.export_tenth_wh)
            rows.append(RoundRow(1, ring, q, q, True, roster, tuple(word % WORD_MODULUS for word in total)))
    return rows


def judge(rows: list[RoundRow]) -> Verdict:
    return check(DEFAULT_SCHEMA, METERS, rows)


@given(
    absent=st.dictionaries(st.integers(1, 12), st.sets(st.sampled_from(sorted(METERS)), max_size=5), max_size=6),
    void=st.sets(st.tuples(st.integers(0, 1), st.integers(1, 12)), max_size=8),
)
def test_an_honest_book_is_exact_whatever_the_churn(absent: dict[int, set[str]], void: set[tuple[int, int]]) -> None:
    rows = honest_book(absent, void)
    verdict = judge(rows[::-1])  # the order of the rows does not matter
    assert verdict.exact
    assert verdict.conservation_error_wh == 0
    assert (verdict.opened, verdict.void) == (24 - len(void), len(void))


def test_energy_sums_are_told_in_watt_hours() -> None:
    verdict = judge(honest_book({}, set()))
    imported = sum(home.registers(12).import_tenth_wh - home.registers(0).import_tenth_wh for home in HOMES)
    exported = sum(home.registers(12).export_tenth_wh - home.registers(0).export_tenth_wh for home in HOMES)
    assert verdict.energy_import_wh == Decimal(imported) / 10
    assert verdict.energy_export_wh == Decimal(exported) / 10 > 0


@pytest.mark.parametrize(("slot", "error_wh"), [(0, "0"), (1, "0.1"), (2, "0.1"), (3, "0")])
def test_one_word_off_by_one_is_found(slot: int, error_wh: str) -> None:
    rows = honest_book({}, set())
    total = list(rows[9].total)
    total[slot] += 1
    rows[9] = replace(rows[9], total=tuple(total))
    verdict = judge(rows)
    (difference,) = verdict.differences
    assert (difference.ring, difference.round, difference.slot) == (1, 5, DEFAULT_SCHEMA.slots[slot].name)
    assert difference.opened - difference.expected == 1
    assert verdict.conservation_error_wh == Decimal(error_wh)
    assert "ring 1, round 5" in str(difference)


def test_energy_that_was_lost_is_found() -> None:
    rows = honest_book({4: {"g1"}}, set())
    lost = replace(rows[8], total=(rows[8].total[0], rows[8].total[1] - 300, *rows[8].total[2:]))
    verdict = judge([*rows[:8], lost, *rows[9:]])
    assert not verdict.exact
    assert verdict.conservation_error_wh == 30


def test_carried_energy_is_what_meters_counted_and_no_total_holds() -> None:
    verdict = judge(honest_book({4: {"g1"}, 9: {"g1", "g5"}}, {(1, 12)}))
    counted = sum(
        meter.registers(q).import_tenth_wh - meter.registers(0).import_tenth_wh
        + meter.registers(q).export_tenth_wh - meter.registers(0).export_tenth_wh
        for name, (meter,) in METERS.items() for q in [12 if name in RINGS[0] else 11]
    )  # fmt: skip
    assert verdict.exact
    assert verdict.carried == 2
    assert verdict.carried_wh == Decimal(counted) / 10 - verdict.energy_import_wh - verdict.energy_export_wh > 0


def test_a_round_counted_twice_is_found() -> None:
    rows = honest_book({}, set())
    verdict = judge([*rows, replace(rows[-1], round=13)])
    assert not verdict.exact
    assert verdict.conservation_error_wh > 0


def test_a_gateway_that_is_in_the_sum_but_not_in_the_roster_is_found() -> None:
    rows = honest_book({}, set())
    verdict = judge([*rows[:-1], replace(rows[-1], roster=rows[-1].roster[:-1])])
    assert {difference.slot for difference in verdict.differences} >= {"gateways", "active_power"}
    assert verdict.conservation_error_wh > 0


def test_an_opened_round_that_the_book_calls_void_reappears() -> None:
    rows = honest_book({}, set())
    verdict = judge([replace(row, opened=False) if (row.ring, row.q) == (0, 7) else row for row in rows])
    assert verdict.differences[0].round == 8


def test_unknown_gateways_and_short_totals_are_differences() -> None:
    rows = honest_book({}, set(), rounds=1)
    assert not judge([replace(rows[0], roster=("stranger",))]).exact
    assert not judge([replace(rows[0], total=rows[0].total[:2])]).exact


def test_negative_power_and_another_scaler_follow_the_schema() -> None:
    schema = Schema(
        (
            DEFAULT_SCHEMA.slots[0],
            Slot("kilo", "1-0:1.8.0*255", "Wh", 3, Kind.ENERGY),
            Slot("milliwatts", "1-0:16.7.0*255", "W", -3, Kind.POWER),
        )
    )
    home = next(home for home in HOMES if home.profile == "PV")
    q = next(q for q in range(1, 96) if home.registers(q).power_w < 0)
    kilo = home.registers(q).import_tenth_wh // 10_000 - home.registers(0).import_tenth_wh // 10_000
    row = RoundRow(1, 0, 1, q, True, ("g",), (1, kilo, (home.registers(q).power_w * 1000) % WORD_MODULUS))
    assert check(schema, {"g": (home,)}, [row]).exact


def test_a_gateway_with_two_meters_contributes_their_sum() -> None:
    a, b = HOMES[0], HOMES[1]
    one = [m.registers(3).import_tenth_wh - m.registers(0).import_tenth_wh for m in (a, b)]
    two = [m.registers(3).export_tenth_wh - m.registers(0).export_tenth_wh for m in (a, b)]
    total = (1, sum(one), sum(two), a.registers(3).power_w + b.registers(3).power_w)
    assert check(DEFAULT_SCHEMA, {"g": (a, b)}, [RoundRow(1, 0, 3, 3, True, ("g",), total)]).exact
