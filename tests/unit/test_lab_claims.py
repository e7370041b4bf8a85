"""The claims are judged by intervals: a value on the right side of its bound is not enough."""

from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.lab.claims import Claim, judge
from loadtest.lab.experiments.games import KNOWS_AREA
from loadtest.lab.metrics import Estimate
from loadtest.lab.provenance import digest_of
from loadtest.lab.rankings import rankings, turned_pairs
from loadtest.lab.run import Results
from loadtest.lab.settings import Row, Settings

METRICS = ("relative_entropy_bits", "clusters", "aligned_r2", "mutual_information_bits")
EXACT = 1e-9


def results_of(rows: list[Row]) -> Results:
    return Results(Settings(), "invented", {}, tuple(rows), (), {}, (), 0.0)


def claim(number: int, rows: list[Row]) -> Claim:
    return judge(results_of(rows))[number - 1]


def around(value: float, half: float) -> Estimate:
    return Estimate(value, value - half, value + half, 60)


def differencing(small: Estimate, large: Estimate) -> list[Row]:
    kind = "power, next round without"
    return [
        Row("ring", "gwa+emp", "differencing", "correlation", estimate, parameters={
            "members": members, "slot_s": slot_s, "kind": kind,
        })
        for slot_s, of_24, of_64 in ((900, small, large), (1, around(0.97, 0.01), around(0.96, 0.01)))
        for members, estimate in ((24, of_24), (64, of_64))
    ]  # fmt: skip


@pytest.mark.parametrize(("half", "verdict"), [(0.02, "holds"), (0.06, "holds in part")])
def test_rings_whose_intervals_overlap_are_not_told_apart(half: float, verdict: str) -> None:
    found = claim(8, differencing(around(0.23, half), around(0.14, half)))
    assert found.verdict == verdict
    assert found.figures[1].is_met is (verdict == "holds")


def test_a_claim_of_which_a_half_was_not_measured_does_not_hold() -> None:
    rows = differencing(around(0.23, 0.02), around(0.14, 0.02))
    seconds_alone = [row for row in rows if row.parameters["slot_s"] == 1]
    assert claim(8, seconds_alone).verdict == "holds in part"
    assert claim(8, seconds_alone).figures[0].expected == "not measured in this run"
    assert claim(8, []).verdict == "not measured in this run"


def timing(scheme: str, found: float) -> Row:
    parameters = {"households": 300, "slots": 96}
    return Row(scheme, "emp+wan", "timing", "top1", around(found, 0.01), parameters=parameters)


def test_timing_without_the_batched_control_does_not_hold() -> None:
    direct, batched = timing("pseudonyms-ttp", 0.99), timing("pseudonyms-ttp-batched", 0.02)
    assert claim(2, [direct, batched]).verdict == "holds"
    assert claim(2, [direct]).verdict == "holds in part"
    assert claim(2, []).verdict == "not measured in this run"


def test_coalitions_alone_do_not_show_that_series_are_equal() -> None:
    assert claim(4, []).verdict == "holds in part"


def test_a_size_threshold_of_one_day_is_no_growth() -> None:
    parameters = {"members": 20, "slot_s": 900, "days": 1, "knows": "exact"}
    rows = [Row("sum", "emp", "identification", "advantage", around(0.8, 0.1), parameters=parameters)]
    assert claim(7, rows).verdict == "holds in part"


@pytest.mark.parametrize(("error_w", "is_met"), [(0.5, True), (7.0, False)])
def test_a_wrong_sum_of_one_scheme_is_a_figure_of_the_claim(error_w: float, is_met: bool) -> None:
    rows = [
        Row(scheme, "all", "utility", "total_error_w", around(each, 0.0), parameters={"members": 8, "slots": 4})
        for scheme, each in (("ring", 0.0), ("paillier", error_w))
    ]
    (figure,) = [each for each in claim(4, rows).figures if "error of a sum" in each.what]
    assert (figure.estimate.value, figure.is_met) == (error_w, is_met)


def views(gains: list[float], **metrics: list[float]) -> list[Row]:
    """A view a gain, of sums of other sizes, with each metric's value."""
    rows = []
    for index, gain in enumerate(gains):
        parameters = {"members": index + 1, "slot_s": 60, "appliance": "KETTLE"}
        shown = Estimate(1.0 + gain, 1.0 + gain, 1.0 + gain, 9)
        rows.append(
            Row("plain", "emp", "classifier", "precision_over_base", shown, around(1.0, EXACT), parameters=parameters)
        )
        rows += [
            Row("plain", "emp", "distance", metric, around(metrics[metric][index], EXACT), parameters=parameters)
            for metric in METRICS
        ]  # fmt: skip
    return rows


def test_a_metric_that_ranks_as_well_is_not_said_to_misrank() -> None:
    gains = [float(each) for each in range(12)]
    rows = views(
        gains, mutual_information_bits=gains, aligned_r2=gains, clusters=gains[::-1], relative_entropy_bits=gains
    )
    figures = {each.what: each for each in claim(6, rows).figures}
    assert figures["rank correlation of mutual information with attacks"].is_met
    assert not figures["mutual information's less that of R²"].is_met
    assert figures["mutual information's less that of number of clusters"].is_met
    # More relative entropy is said to be more private: here it rises with what attacks gain.
    assert figures["mutual information's less that of relative entropy"].is_met
    assert claim(6, rows).verdict == "holds in part"


def test_a_lead_within_its_interval_is_none() -> None:
    gains = [float(each) for each in range(8)]
    nearly = [0.0, 2.0, 1.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    falling = [-each for each in nearly]
    rows = views(
        gains, mutual_information_bits=gains, aligned_r2=nearly, clusters=nearly, relative_entropy_bits=falling
    )
    found = rankings(results_of(rows))
    assert found is not None
    assert found.behind["aligned_r2"].value > 0
    assert found.behind["aligned_r2"].low <= 0
    assert claim(6, rows).verdict == "holds in part"
    assert [each.is_met for each in claim(6, rows).figures if each.expected == "above 0"] == [False] * 3


def test_a_pair_is_turned_round_where_both_intervals_say_so() -> None:
    gains = [5.0, 4.0, 3.0, 2.0, 1.0]
    turned = [-5.0, -4.0, -3.0, -1.0, -2.0]
    rows = views(
        gains, mutual_information_bits=gains, aligned_r2=gains, clusters=gains[::-1], relative_entropy_bits=turned
    )
    found = turned_pairs(results_of(rows))
    assert {metric: each.turned for metric, each in found.items()} == {
        "relative_entropy_bits": 1, "clusters": 10, "aligned_r2": 0, "mutual_information_bits": 0,
    }  # fmt: skip
    assert {each.settled for each in found.values()} == {10}
    wide = [replace(row, estimate=around(row.estimate.value, 9.0)) if row.metric == "clusters" else row for row in rows]
    assert turned_pairs(results_of(wide))["clusters"].turned == 0
    unsure = [
        replace(row, estimate=around(row.estimate.value, 9.0)) if row.attack == "classifier" else row for row in rows
    ]
    assert turned_pairs(results_of(unsure)) == {}


def test_mutual_information_that_turns_a_pair_round_is_told() -> None:
    gains = [5.0, 4.0, 3.0, 2.0, 1.0]
    turned = [5.0, 4.0, 3.0, 1.0, 2.0]
    falling = [-each for each in gains]
    rows = views(gains, mutual_information_bits=turned, aligned_r2=gains, clusters=gains, relative_entropy_bits=falling)
    figures = [each for each in claim(6, rows).figures if each.what.startswith("pairs of views")]
    assert [(each.estimate.value, each.is_met) for each in figures] == [(0, False), (0, False), (0, False), (1, False)]


def test_few_views_are_no_ranking() -> None:
    gains = [1.0, 2.0, 3.0, 4.0]
    assert claim(6, views(gains, **dict.fromkeys(METRICS, gains))).verdict == "not measured in this run"


def test_a_price_alone_decides_no_claim() -> None:
    """Noise that hides nothing has its price all the same."""
    parameters = {"members": 64, "slot_s": 900, "days": 7, "epsilon": 1.0, "knows": "exact"}
    rows = [
        Row("sum", "emp", "identification", "advantage", around(0.0, 0.1), parameters={
            "members": 900, "slot_s": 900, "days": 7, "knows": "exact",
        }),
        Row("ring-noise", "emp", "identification", "advantage", around(0.8, 0.1), parameters=parameters),
        Row("ring-noise", "emp", "utility", "total_error_share", around(1.3, 0.1), parameters=parameters),
    ]  # fmt: skip
    assert claim(7, rows).verdict == "not shown"


def test_results_of_other_code_are_of_another_name(tmp_path: Path) -> None:
    (tmp_path / "schemes").mkdir()
    scheme, page = tmp_path / "schemes" / "battery.py", tmp_path / "report.py"
    scheme.write_text("RECOVERED = 80\n")
    page.write_text("TITLE = 'Lab'\n")
    before = digest_of(tmp_path)
    page.write_text("TITLE = 'Privacy lab'\n")
    assert digest_of(tmp_path) == before
    scheme.write_text("RECOVERED = 50\n")
    assert digest_of(tmp_path) != before


@pytest.mark.parametrize(("learned", "is_met"), [(around(0.2, 0.1), True), (around(0.05, 0.1), False)])
def test_the_stronger_attacker_decides_on_the_largest_sum(learned: Estimate, is_met: bool) -> None:
    rows = [
        Row("sum", "emp", "identification", "advantage", estimate, parameters={
            "members": 900, "slot_s": 900, "days": 7, "knows": knows, "reference": 1000,
        })
        for estimate, knows in ((around(0.04, 0.1), "exact"), (learned, KNOWS_AREA))
    ]  # fmt: skip
    weaker, stronger = claim(7, rows).figures[:2]
    assert (weaker.expected, weaker.estimate.value) == ("stated", 0.04)
    assert stronger.is_met is is_met
    assert claim(7, rows[:1]).figures[0].is_met is False
