"""Ring parameters: the published check values, exact tails, explicit rules, refusals, and the operator's table."""

import math
import time
from fractions import Fraction
from itertools import combinations

import pytest
import typer
from typer.testing import CliRunner

from protocol.dcnet.parameters.choice import CIRCLE_WARNING, Model, choose, plain_circle
from protocol.dcnet.parameters.hypergeometric import least_safe, sum_bits, tail_bits
from protocol.dcnet.setup.epoch import ring_parameters
from protocol.errors import LocalProtocolError
from stromkreis.parameters import parameters


def exact_tail(population: int, marked: int, drawn: int, at_least: int) -> Fraction:
    hits = sum(
        math.comb(marked, x) * math.comb(population - marked, drawn - x) for x in range(max(at_least, 0), drawn + 1)
    )
    return Fraction(hits, math.comb(population, drawn))


@pytest.mark.parametrize(("population", "marked", "drawn"), [(12, 5, 4), (100, 5, 16), (1000, 330, 78), (50, 45, 10)])
def test_tails_agree_with_exact_fractions(population: int, marked: int, drawn: int) -> None:
    for at_least in range(-1, drawn + 2):
        exact = exact_tail(population, marked, drawn, at_least)
        bits = tail_bits(population, marked, drawn, at_least)
        if exact == 0:
            assert bits == math.inf
        else:
            numerator, denominator = exact.as_integer_ratio()
            assert bits == pytest.approx(math.log2(denominator) - math.log2(numerator), abs=1e-6)


def test_tail_of_a_hundred_million_against_the_binomial_limit() -> None:
    exact = sum(math.comb(30, x) * Fraction(1, 20) ** x * Fraction(19, 20) ** (30 - x) for x in range(15, 31))
    assert tail_bits(10**8, 5 * 10**6, 30, 15) == pytest.approx(-math.log2(exact), abs=1e-3)


def test_bits_add_as_probabilities() -> None:
    assert sum_bits(3.0, 3.0) == pytest.approx(2.0)
    assert sum_bits(40.0, math.inf) == 40.0
    assert sum_bits(math.inf, math.inf) == math.inf
    assert sum_bits(0.0, 0.0) == 0.0
    assert least_safe(99, 5, 12, 200.0) == 5


@pytest.mark.parametrize(
    ("model", "n", "k", "t"),
    [
        ("honest-but-curious", 100, 12, 6),
        ("honest-but-curious", 300, 24, 14),
        ("honest-but-curious", 1000, 30, 17),
        ("honest-but-curious", 10**4, 34, 20),
        ("honest-but-curious", 10**5, 36, 21),
        ("honest-but-curious", 10**6, 38, 22),
        ("semi-malicious", 100, 16, 11),
        ("semi-malicious", 300, 38, 27),
        ("semi-malicious", 1000, 52, 37),
        ("semi-malicious", 10**4, 62, 44),
        ("semi-malicious", 10**5, 68, 48),
        ("semi-malicious", 10**6, 74, 52),
    ],
)
def test_check_values_of_five_percent(model: Model, n: int, k: int, t: int) -> None:
    chosen = choose(n, 0.05, 0.05, sigma=40, eta=20, model=model)
    assert (chosen.k, chosen.t, chosen.t_c, chosen.k_min) == (k, t, t, t)
    assert chosen.sigma_reached >= 40
    assert chosen.eta_reached >= 20


@pytest.mark.parametrize(
    ("model", "n", "gamma", "delta", "k"),
    [
        ("honest-but-curious", 1000, 0.45, 0.45, 822),
        ("honest-but-curious", 1000, 0.33, 0.33, 286),
        ("honest-but-curious", 10**5, 0.33, 0.33, 480),
        ("semi-malicious", 1000, 0.3, 0.3, 872),
        ("honest-but-curious", 10**4, 0.05, 0.33, 86),
        ("semi-malicious", 10**4, 0.05, 0.33, 746),
        ("honest-but-curious", 1000, 0.33, 0.05, 78),
        ("semi-malicious", 10**6, 0.33, 0.05, 212),
        ("semi-malicious", 1000, 0.0, 0.33, 228),
    ],
)
def test_degrees_that_others_published(model: Model, n: int, gamma: float, delta: float, k: int) -> None:
    """
    Degrees from the test table of Google's parameter search for the same protocol (sigma 40, eta 20).

    Ours draws a member's neighbours from the n - 1 others instead of from all n: never less, at most one step more.
    """
    assert choose(n, gamma, delta, sigma=40, eta=20, model=model).k in (k, k + 2)


def test_one_neighbour_pair_less_is_not_enough() -> None:
    """Minimality, recomputed with exact fractions: no t works for k - 2."""
    n, c, d, k = 1000, 50, 50, 50
    privacy, progress = Fraction(1, 2**41), Fraction(1, 2**20)
    for t in range(k // 2 + 1, k + 1):
        private = n * exact_tail(n - 1, c, k, 2 * t - k) < privacy
        alive = n * exact_tail(n - 1, d, k, k - t + 1) < progress
        assert not (private and alive)


@pytest.mark.parametrize("n", range(5, 20))
def test_small_rings_are_complete_and_certain(n: int) -> None:
    chosen = choose(n, 0.05, 0.05)
    assert chosen.complete
    assert (chosen.corrupt, chosen.dropped) == (1, 1)
    assert chosen.sigma_reached == chosen.eta_reached == chosen.split_bits == math.inf
    assert 2 * chosen.t > chosen.k + chosen.corrupt
    assert chosen.t <= chosen.k - chosen.dropped
    assert chosen.n_min - chosen.corrupt >= 3


def test_the_least_roster() -> None:
    assert choose(6, 0.0, 0.0).n_min == 4
    assert choose(7, 0.0, 0.0).n_min == 5
    assert choose(64, 0.05, 0.05).n_min == 43
    assert choose(10, 0.5, 0.0).n_min == 8
    assert choose(3, 0.0, 0.0, model="honest-but-curious").n_min == 3


def test_decimal_fractions_mean_what_they_say() -> None:
    assert choose(100, 0.29, 0.0).corrupt == 29
    assert choose(100, 0.07, 0.0).corrupt == 7


def test_two_cuts_are_impossible_in_small_rings_and_priced_in_large_ones() -> None:
    assert choose(300, 0.05, 0.05).split_bits == math.inf
    assert choose(10**4, 0.05, 0.05, eta=20).split_bits < 40
    for n in (1000, 10**4, 10**6):
        chosen = choose(n, 0.05, 0.05, eta=20, model="unsplittable")
        assert chosen.split_bits >= 40
        assert chosen.k <= 1.2 * choose(n, 0.05, 0.05, eta=20).k
    assert choose(100, 0.05, 0.05, model="honest-but-curious").split_bits == 0
    assert choose(9, 0.4, 0.0, model="honest-but-curious").split_bits == 0


def test_split_bound_against_all_placements() -> None:
    """n = 14, k = 4, c = 4, t_c = 3: count every placement that has two disjoint windows with a corrupt member each."""
    n, window, need = 14, 2, 1
    hits = 0
    for corrupt in combinations(range(n), 4):
        full = [start for start in range(n) if sum((start + step) % n in corrupt for step in range(window)) >= need]
        hits += any(window <= (b - a) % n <= n - window for a in full for b in full)
    real = -math.log2(hits / math.comb(n, 4))
    pairs = math.log2(n * (n - 5) / 2)
    assert max(0.0, 2 * tail_bits(n, 4, window, need) - pairs) <= real


def test_a_population_counts_unlucky_rings() -> None:
    alone, drawn = choose(128, 0.05, 0.05), choose(128, 0.05, 0.05, population=10**4)
    assert drawn.corrupt > alone.corrupt
    assert drawn.k > alone.k
    assert choose(64, 0.05, 0.05, population=64) == choose(64, 0.05, 0.05)


@pytest.mark.parametrize("model", ["honest-but-curious", "semi-malicious", "unsplittable"])
def test_a_hundred_million_members_cost_no_work_for_each(model: Model) -> None:
    started = time.process_time()
    chosen = choose(10**8, 0.1, 0.2, model=model)
    assert time.process_time() - started < 20, "some .3 s; a loop over the members would take minutes"
    assert chosen.sigma_reached >= 40
    assert chosen.eta_reached >= 30


@pytest.mark.parametrize(
    ("n", "gamma", "delta", "model", "reason"),
    [
        pytest.param(2, 0.0, 0.0, "semi-malicious", "ring size", id="two"),
        pytest.param(10**9, 0.0, 0.0, "semi-malicious", "ring size", id="huge"),
        pytest.param(100, 1.0, 0.0, "semi-malicious", "fraction", id="all-corrupt"),
        pytest.param(100, 0.0, -0.1, "semi-malicious", "fraction", id="negative"),
        pytest.param(3, 0.05, 0.05, "semi-malicious", "a roster needs 4", id="three"),
        pytest.param(3, 0.05, 0.05, "honest-but-curious", "a roster needs 4", id="three-curious"),
        pytest.param(100, 0.6, 0.2, "semi-malicious", "2 x dropout", id="overlap"),
        pytest.param(3000, 0.67, 0.33, "honest-but-curious", "corrupt \\+ dropout", id="overlap-curious"),
        pytest.param(10**6, 0.32, 0.33, "semi-malicious", "surely answer", id="too-many-neighbours"),
        pytest.param(10**8, 0.49, 0.5, "honest-but-curious", "fall apart", id="falls-apart"),
        pytest.param(5000, 0.45, 0.45, "trusting", "threat model", id="unknown-model"),
    ],
)
def test_the_impossible_is_refused_with_its_reason(
    n: int, gamma: float, delta: float, model: Model, reason: str
) -> None:
    with pytest.raises(LocalProtocolError, match=reason):
        choose(n, gamma, delta, model=model)


def test_the_circle_only_by_name() -> None:
    assert all(choose(n, 0.0, 0.0).k >= 4 for n in (20, 50, 1000))
    circle = plain_circle(20, 0.1, 0.05)
    assert (circle.k, circle.t, circle.warnings) == (2, 2, (CIRCLE_WARNING,))
    assert circle.sigma_reached < 1
    assert plain_circle(20, 0.05, 0.0).sigma_reached == math.inf


app = typer.Typer()
app.command()(parameters)


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})
    return result.exit_code, result.stdout, result.stderr


def test_the_operators_table() -> None:
    code, out, _ = run("--ring", "64", "--corrupt", "0.05", "--dropout", "0.05")
    assert code == 0
    rows = {cells[1].strip(): cells[2].strip() for line in out.splitlines() if len(cells := line.split("│")) == 5}
    chosen = choose(64, 0.05, 0.05, model="unsplittable")
    assert rows["neighbours (k)"] == str(chosen.k)
    assert rows["recovery (t)"] == str(chosen.t)
    assert rows["least members (n_min)"] == str(chosen.n_min)
    assert rows["privacy"] == "certain"
    assert "7 on either side" in out
    assert f"among those of {chosen.n_min - chosen.corrupt} honest members at least" in out
    assert "give --population" in out.replace("\n", " ")


def test_the_table_is_what_an_area_gets() -> None:
    code, out, _ = run("--ring", "64", "--population", "1024", "--corrupt", "0.05", "--dropout", "0.05")
    rows = {cells[1].strip(): cells[2].strip() for line in out.splitlines() if len(cells := line.split("│")) == 5}
    ours = ring_parameters(64, 1024, 50_000, 50_000)
    assert code == 0
    assert [rows[name] for name in ("neighbours (k)", "recovery (t)", "least members (n_min)")] == [
        str(ours.k), str(ours.t), str(ours.n_min)
    ]  # fmt: skip
    assert rows["privacy"] == f"{math.floor(ours.sigma_reached)} bits"
    assert "a reading is exposed: in less than one epoch in 10^14" in out
    assert "a round gets stuck: in less than one round in 10^9" in out
    assert "--population" not in out


def test_the_table_speaks_up() -> None:
    assert "everybody else" in run("--ring", "10")[1]
    code, out, _ = run("--ring", "20", "--corrupt", "0.1", "--circle")
    assert code == 0
    assert f"Warning: {CIRCLE_WARNING}." in out
    assert "no protection" in out
    assert "--model unsplittable" in run("--ring", "100000", "--model", "semi-malicious")[1]
    code, out, err = run("--ring", "100", "--dropout", "0.5")
    assert (code, out) == (1, "")
    assert "impossible" in err
    assert "Choose larger rings, or lower --corrupt or --dropout." in err
