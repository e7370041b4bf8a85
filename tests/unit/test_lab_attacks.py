"""The attacks where the answer is known; which leaks they find in schemes: test_lab_leaks.py."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from scipy.stats import ks_2samp

from loadtest.lab.acceptance import excesses
from loadtest.lab.attacks import differencing, linkage
from loadtest.lab.attacks.game import Whitener
from loadtest.lab.discipline import Returns, alternating, contributions, toggling
from loadtest.lab.experiments import check_same_series, curves
from loadtest.lab.experiments.billing import hiding
from loadtest.lab.experiments.games import Game, check_alike, noise_variance_w2
from loadtest.lab.experiments.rosters import designed_rows, transcript_of
from loadtest.lab.households import generate
from loadtest.lab.schemes import SCHEMES, play
from loadtest.lab.schemes.direct import third_party_sum_shape
from loadtest.lab.schemes.sums import noise_of_total, noisy
from loadtest.lab.settings import SMOKE, Lab, Settings
from loadtest.lab.transcript import EMP, Form, Message, Shape, meter
from loadtest.lab.views import view_of


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab(replace(SMOKE, households=80, targets=30, trials=120, iterations=15))


@lru_cache(maxsize=8)
def leaky_sum_shape(n: int) -> Shape:
    """The planted leak: the sums as they are, and every member's reading besides, as one more message to the EMP."""
    shape = third_party_sum_shape(n)
    return replace(shape, messages=(*shape.messages, *(Message(meter(i), EMP, Form({i: 1})) for i in range(n))))


LEAKY = replace(SCHEMES["sum-ttp"], name="sum-ttp", shape=leaky_sum_shape)


def test_readings_beside_the_sum_are_other_series(lab: Lab) -> None:
    check_same_series(lab, SCHEMES["sum-ttp"], SCHEMES["ring"], 900, 20)
    with pytest.raises(AssertionError, match="other sums"):
        check_same_series(lab, SCHEMES["sum-ttp"], replace(LEAKY, name="leaky"), 900, 20)


def test_a_scheme_whose_group_shows_more_is_played_for_no_other(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    check_alike(lab)
    monkeypatch.setitem(SCHEMES, "kursawe", replace(SCHEMES["kursawe"], shape=leaky_sum_shape))
    with pytest.raises(AssertionError, match="other series under kursawe"):
        check_alike(lab)


def test_timing_needs_the_listener(lab: Lab) -> None:
    transcript = play(SCHEMES["pseudonyms-ttp"], lab.area.at(900), 40, 1)
    assert linkage.by_timing(view_of(transcript, frozenset({"emp"}), traffic=True).links) == {}
    assert linkage.by_timing(view_of(transcript, frozenset({"wan"}), traffic=True).links) == {}


def test_linkage_finds_a_household_that_never_changes(lab: Lab) -> None:
    """The planted leak: under the pseudonym each household repeats its known day."""
    known = lab.history.power_w[:, :96]
    repeated = replace(lab.area.at(900).only(slice(None), slice(0, 96)), power_w=known.copy())
    transcript = play(SCHEMES["pseudonyms-tr03109"], repeated, 40, 1)
    view = view_of(transcript, frozenset({"emp"}))
    guesses = linkage.by_habits(known.astype(float), view.pseudonymous(), 900, known.astype(float))
    assert all(transcript.owners[alias] == guess for alias, guess in guesses.items())


def test_bills_find_energies_that_are_unique() -> None:
    households = generate(40, 1, 900, seed=2)
    transcript = play(SCHEMES["pseudonyms-tr03109"], households, 40, 1)
    series = view_of(transcript, frozenset({"emp"})).pseudonymous()
    exact = (households.power_w.sum(axis=1) // 4).tolist()
    guesses = linkage.by_bills(exact, series, 900, 1)
    assert len(set(exact)) == 40
    assert all(transcript.owners[alias] == guess for alias, guess in guesses.items())


def test_games_find_a_sum_of_one(lab: Lab) -> None:
    game = Game(lab, 900, 2)
    alone, many = game.identification(2, 120), game.identification(50, 120)
    assert alone["view"].low > 0.9
    assert many["view"].value < alone["view"].low
    for each in (alone, many):
        assert each["blind"].low <= 0.0 <= each["blind"].high
        assert each["without"].low <= 0.15
    inside, outside = game.member_scores(2, 120)
    assert np.median(inside) > np.quantile(outside, 0.95)


@pytest.mark.parametrize("slot_s", [900, 3600])
def test_the_days_before_are_no_exact_curves(lab: Lab, slot_s: int) -> None:
    game = Game(lab, slot_s, 2)
    assert game.identification(5, 120, knows="before")["view"].high < game.identification(5, 120)["view"].low


def test_noise_drawn_for_a_total_is_that_of_its_members_shares() -> None:
    rng = np.random.default_rng(9)
    nothing = np.zeros((40, 4000), np.int64)
    shares, at_once = noisy(nothing, 1.0, rng).sum(axis=0), noise_of_total(40, 4000, 1.0, rng)
    assert ks_2samp(shares, at_once).pvalue > 0.01
    assert at_once.std() == pytest.approx(np.sqrt(noise_variance_w2(1.0) * 40 / 38), rel=0.1)


def test_noise_hides_who_is_in_the_sum(lab: Lab) -> None:
    noisy = Game(lab, 900, 2, epsilon=0.1).identification(10, 120)
    assert noisy["view"].low <= 0.1
    assert Game(lab, 900, 2).identification(10, 120)["view"].low > 0.6


def test_a_whitener_undoes_the_covariance_that_it_learned() -> None:
    rng = np.random.default_rng(1)
    reference = np.cumsum(rng.normal(size=(4000, 24)), axis=1)
    whitener = Whitener(reference, 24)
    weighted = whitener.weights(np.eye(24), 1)
    assert np.allclose(weighted @ whitener.covariance, np.eye(24), atol=1e-8)


def test_differencing_is_exact_where_others_stand_still() -> None:
    """The planted leak: a ring whose other members do not change, and a head that toggles one."""
    households = generate(8, 1, 60, seed=4)
    households = replace(households, power_w=np.where(np.arange(8)[:, None] == 3, households.power_w, 200))
    transcript = transcript_of(households.power_w, 60, 3, alternating(1440))
    view = view_of(transcript, frozenset({"gwa", "emp"}))
    slots, drops = differencing.next_to(view.series, 3, 60)
    assert len(slots) == 720
    assert np.array_equal(drops, households.power_w[3, slots])
    assert differencing.next_to(view_of(transcript, frozenset({"wan"})).series, 3, 60)[1].tolist() == []


def test_the_best_linear_attacker_is_exact_without_others() -> None:
    rng = np.random.default_rng(7)
    covariance = np.eye(12) * 100.0
    own = rng.normal(50.0, 10.0, 12)
    rows = contributions(np.ones(12, np.bool_), Returns.LIMITED)
    attacker = differencing.LinearAttacker(rows, np.eye(12), 0, np.full(12, 50.0), covariance, noise_w2=1e-6)
    assert np.allclose(attacker.estimate(rows @ own), own, atol=1e-3)


@pytest.mark.parametrize(("returns", "largest"), [(Returns.FREE, 4.0), (Returns.LIMITED, 1.0 + 3 / 16)])
def test_carried_energy_is_all_released_and_none_twice(returns: Returns, largest: float) -> None:
    served = np.ones(200, np.bool_)
    served[[5, 6, 7, 60, 61, 100]] = False
    rows = contributions(served, returns)
    assert np.allclose(rows.sum(axis=0), 1.0)
    assert not rows[~served].any()
    assert rows.max() <= 1.0 + 1e-9
    assert rows.sum(axis=1).max() == pytest.approx(largest)


def test_a_member_left_out_gives_the_mean_and_a_sixteenth_of_the_rest() -> None:
    served = np.ones(40, np.bool_)
    served[4] = False
    rows = contributions(served, Returns.LIMITED)
    assert rows[5, [3, 4, 5]] == pytest.approx([0.0, 0.5 + 0.5 / 16, 0.5 + 0.5 / 16])
    assert rows[6, [4, 5, 6]] == pytest.approx([0.5 / 16, 0.5 / 16, 1.0])


def test_rounds_that_are_said_to_be_void_are_contributed_again() -> None:
    opened = np.ones(40, np.bool_)
    opened[4] = False
    rows = contributions(np.ones(40, np.bool_), Returns.LIMITED, opened)
    assert rows[4, 4] == 1.0
    assert rows[5, [4, 5]] == pytest.approx([0.5 + 0.5 / 16] * 2)
    assert rows[opened].sum(axis=0) == pytest.approx(np.ones(40))


@pytest.mark.parametrize("away", [1, 4])
def test_a_bucket_allows_four_returns_and_one_more_each_four_hours(away: int) -> None:
    served = toggling(672, Returns.LIMITED, away)
    returns = np.flatnonzero(~served[:-1] & served[1:])
    assert len(returns) >= 3 + 672 // 16 - 1
    for start in range(0, 672 - 96):
        assert ((returns >= start) & (returns < start + 96)).sum() <= 4 + 6
    assert np.array_equal(toggling(9, Returns.FREE), alternating(9))


def test_allowed_rosters_tell_hardly_more_than_those_with_everybody() -> None:
    """A taste of `make acceptance-discipline`: fewer households and days, and an attacker that knows fewer others."""
    rows = designed_rows(Lab(Settings(households=60, days=2, slot_s=900, targets=40, processes=1)))
    assert {row.parameters["members"] for row in rows} == {30}
    assert excesses(rows) == []
    by_kind = {row.parameters["kind"]: row.estimate.value for row in rows}
    assert by_kind["every second round, returns not limited"] > by_kind["as often as allowed"] + 0.05
    assert len(excesses(rows, more_max=-1.0)) == 5  # every strategy of the present rules is looked at


def tariff(*changes: tuple[int, int], days: int = 28) -> list[int]:
    prices = [30] * (96 * days)
    for index, price in changes:
        prices[index] = price
    return prices


@pytest.mark.parametrize(
    ("prices", "effective"),
    [
        (tariff(), None),
        ([15 if slot % 96 < 24 else 30 for slot in range(96 * 28)], 293),
        (tariff((2000, 60)), 1),
        ([30 + 70 * (slot // 96 == 10 and 64 <= slot % 96 < 80) for slot in range(96 * 28)], 15),
    ],
    ids=["flat", "two rates", "one interval dearer", "one critical peak of four hours"],
)
def test_leverage_has_the_check_values_of_the_design(prices: list[int], effective: int | None) -> None:
    """The billing rules name intervals that a bill is effectively about: 293, 1, 15."""
    found = hiding(np.array(prices), 96)
    if effective is not None:
        assert found == pytest.approx(effective, rel=0.15)
    assert (found >= 24) is (effective is None or effective >= 24)


def test_settings_that_cannot_be_run_are_refused() -> None:
    from protocol.errors import StromkreisError

    for wrong, told in (
        (Settings(households=10), "expected 24 or more"), (Settings(slot_s=3600), "at most 900 s"),
        (Settings(group_size=1), "2 to 1024"), (Settings(slot_s=1), "at most 8 GiB"),
    ):  # fmt: skip
        with pytest.raises(StromkreisError, match=told):
            wrong.check()


def test_the_blind_curve_is_of_the_days_that_are_evaluated() -> None:
    """Every household uses the same, but another on each day: who knows the typical one needs no view."""
    lab = Lab(Settings(households=24, days=4, slot_s=900, targets=4))
    same_w = np.random.default_rng(5).integers(50, 3000, lab.area.slots)
    lab.area = replace(lab.area, power_w=np.tile(same_w, (lab.area.count, 1)))
    lab.reference = replace(lab.reference, power_w=np.tile(same_w, (lab.reference.count, 1)))
    blind = {row.metric: row.blind.value for row in curves.distances(lab, SCHEMES["plain"], 900, 8)}
    assert blind["relative_entropy_bits"] == pytest.approx(0.0, abs=1e-6)
    assert blind["aligned_r2"] == pytest.approx(1.0)
