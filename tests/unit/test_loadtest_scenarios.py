"""Load-test scenarios as data, their plans, and what is made of ledgers: nothing runs here."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loadtest.scenarios.books import Books, Judgement, RingRound, households_of, judge
from loadtest.scenarios.costs import Costs
from loadtest.scenarios.faults import Fault
from loadtest.scenarios.page import figures, write_page
from loadtest.scenarios.plan import PER_PROCESS_MAX, Calendar, Plan, make_plan
from loadtest.scenarios.recovery import NOT_HELD, fault_report, intervals
from loadtest.scenarios.report import Report, line_uses, make_report, markdown, write_json
from loadtest.scenarios.run import LoadTest
from loadtest.scenarios.samples import Sample, Samples
from loadtest.scenarios.scaling import fit, is_of, page, read_run, tables
from loadtest.scenarios.scenario import CHURN_GROUPS, Action, Event, Scenario, load_scenario, shipped
from loadtest.truth import zeros_of
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA
from protocol.errors import StromkreisError
from protocol.wire import Outcome
from stromkreis import loadtest as command

NAMES = sorted(shipped())
WANTED = {
    "smoke", "steady-10k", "steady-50k", "churn-storm", "coordinator-restart", "coordinator-failover", "partition",
    "lte-evening", "rolling-upgrade", "head-massacre", "cpu-starved", "restore-drill",
}  # fmt: skip
CALENDAR = Calendar(1_000_000, 2.0)


def test_every_scenario_that_is_wanted_is_shipped() -> None:
    assert set(NAMES) >= WANTED


@pytest.mark.parametrize("name", NAMES)
def test_every_gateway_has_one_process_area_and_meter(name: str) -> None:
    plan = make_plan(load_scenario(name))
    ids = [each.id for each in plan.gateways]
    assert len(ids) == len(set(ids)) == plan.scenario.gateways
    assert sorted(each.id for meters in plan.meters for each in meters.gateways) == sorted(ids)
    assert all(len(node.gateways) <= PER_PROCESS_MAX for node in plan.nodes)
    for node in plan.nodes:
        assert {each.area for each in node.gateways} <= set(plan.areas[node.coordinator])


@pytest.mark.parametrize("name", ["steady-10k", "steady-50k", "churn-storm"])
def test_a_process_that_dies_takes_the_same_share_of_every_area(name: str) -> None:
    plan = make_plan(load_scenario(name))
    sizes = Counter(each.area for each in plan.gateways)
    for node in plan.nodes:
        mine = Counter(each.area for each in node.gateways)
        share = len(node.gateways) / sum(sizes[area] for area in plan.areas[node.coordinator])
        assert all(abs(mine[area] - share * sizes[area]) < 2.5 for area in plan.areas[node.coordinator])


def test_churn_kills_its_share_in_every_round_and_groups_in_turn() -> None:
    scenario = load_scenario("steady-10k")
    killed = [each.target for each in scenario.all_events()]
    assert killed[: CHURN_GROUPS + 1] == ["churn-2", "churn-3", "churn-0", "churn-1", "churn-2"]
    plan = make_plan(scenario)
    for group in range(CHURN_GROUPS):
        hosted = sum(len(node.gateways) for node in plan.nodes if node.group == f"churn-{group}")
        assert hosted == pytest.approx(500, abs=1)


def test_more_than_ten_thousand_gateways_have_coordinators_of_their_own() -> None:
    plan = make_plan(load_scenario("steady-50k"))
    assert len(plan.areas) == 5
    assert {len({each.area for each in node.gateways} & set(plan.areas[node.coordinator])) > 0 for node in plan.nodes}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"groups": [{"name": "half", "share": 0.5}]}, "shares that add up to 1"),
        ({"groups": [{"name": "meters", "share": 1.0}]}, "another name than meters"),
        ({"events": [{"round": 1, "action": "kill", "target": "nobody"}]}, "has the target nobody"),
        ({"events": [{"round": 99, "action": "kill"}]}, "the last one is 5"),
        ({"events": [{"round": 1, "action": "restore"}]}, "is for the targets coordinators"),
        ({"events": [{"round": 1, "action": "cut"}]}, "cut wants namespaces"),
        ({"events": [{"round": 1, "action": "explode"}]}, "events.0.action"),
        ({"lines": {"profile": "lte"}, "gateways": 20_000}, "lines without namespaces"),
        ({"gateways": 2}, "gateways"),
    ],
)
def test_a_scenario_that_cannot_be_says_what_is_expected(changes: dict[str, object], said: str) -> None:
    wrong = {"events": [], **changes} if "groups" in changes else changes
    with pytest.raises(StromkreisError, match=said):
        load_scenario("smoke", wrong)


def test_an_unknown_scenario_names_those_that_are_known() -> None:
    with pytest.raises(StromkreisError, match=r"expected one of churn-storm, .*, or a TOML file"):
        load_scenario("smok")


def test_a_file_that_is_no_toml_or_not_there_says_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    with pytest.raises(StromkreisError, match="cannot be read"):
        load_scenario(str(path))
    path.write_text("gateways = [", encoding="utf-8")
    with pytest.raises(StromkreisError, match="not TOML"):
        load_scenario(str(path))


# Ledgers


def small(name: str) -> Plan:
    """The plan of a scenario with as few gateways as its processes allow."""
    return make_plan(load_scenario(name, {"gateways": 70}))


def exact_books(plan: Plan, rounds: int = 3, *, away: frozenset[str] = frozenset(), away_in: int = 1) -> Books:
    """What a run without a fault leaves: every area one ring, exact totals; `away` miss round `away_in`."""
    homes = households_of(plan, CALENDAR)
    sizes = Counter(each.area for each in plan.gateways)
    books = Books([], sizes)
    books.schema = DEFAULT_SCHEMA
    for area in sizes:
        books.first[area] = 0
        members = tuple(each.id for each in plan.gateways if each.area == area)
        for round_ in range(rounds):
            q = Calendar.quarter_hour(round_)
            present = tuple(name for name in members if not (round_ == away_in and name in away))
            registers = [(homes[name][0].registers(q - 1), homes[name][0].registers(q)) for name in present]
            total = (
                len(present),
                sum(after.import_tenth_wh - before.import_tenth_wh for before, after in registers),
                sum(after.export_tenth_wh - before.export_tenth_wh for before, after in registers),
                sum(after.power_w for _, after in registers) % 2**64,
            )
            opens_s = CALENDAR.origin_unix_s + round_ * CALENDAR.period_s
            roster = sum(1 << place for place, name in enumerate(members) if name in present)
            ended = Ended(0, 0, round_, Outcome.OPENED, 0, 0, roster, roster, total, False, "", opens_s, opens_s + 0.5)
            books.rounds[len(books.rounds), 0, 0, round_] = RingRound(0, area, round_, ended, members, present)
    return books


def planted(books: Books, slot: int, by: int) -> None:
    """One total is off."""
    key = next(iter(books.rounds))
    each = books.rounds[key]
    total = list(each.ended.total)
    total[slot] += by
    books.rounds[key] = replace(each, ended=replace(each.ended, total=tuple(total)))


def judged(plan: Plan, books: Books) -> Judgement:
    return judge(books, households_of(plan, CALENDAR), [], {})


@pytest.mark.parametrize("name", NAMES)
def test_a_watt_hour_too_much_fails_every_scenario(name: str) -> None:
    plan = small(name)
    books = exact_books(plan)
    assert judged(plan, books).failures == []
    planted(books, 1, 10)
    failures = judged(plan, books).failures
    assert any("not what they must be" in each for each in failures)
    assert any("energy is not conserved: 1 Wh off" in each for each in failures)


def test_books_without_a_round_are_no_success() -> None:
    plan = small("smoke")
    with pytest.raises(StromkreisError, match="no round was held"):
        judged(plan, Books([], {}))


def test_an_account_begins_with_registers_that_its_meter_had() -> None:
    homes = households_of(small("smoke"), CALENDAR)
    meters = next(iter(homes.values()))
    shown = meters[0].registers(3)
    first = (0, shown.import_tenth_wh, shown.export_tenth_wh, 0)
    assert zeros_of(DEFAULT_SCHEMA, {"a": meters}, [("a", first)], 9) == {"a": [3]}
    with pytest.raises(StromkreisError, match="a: its account begins with registers that its meter never had"):
        zeros_of(DEFAULT_SCHEMA, {"a": meters}, [("a", (0, shown.import_tenth_wh + 1, 0, 0))], 9)


def test_a_fault_is_over_when_its_gateways_and_all_others_are_in_totals() -> None:
    plan = small("smoke")
    gone = frozenset(each.id for node in plan.nodes if node.group == "killed" for each in node.gateways)
    books = exact_books(plan, 4, away=gone)
    by_interval = books.by_interval(4)
    start_s = float(CALENDAR.origin_unix_s)
    found = intervals(by_interval, start_s, CALENDAR.period_s, [])
    fault = Fault(Event(round=1, action=Action.KILL, target="killed"), ("killed-1",), gone, start_s + 2.1, start_s + 3)
    everybody = frozenset(each.id for each in plan.gateways)
    report = fault_report(fault, [fault], found, by_interval, everybody, start_s)
    assert (report.back_after_rounds, report.whole_after_rounds, report.void) == (0, 0, 0)
    assert report.whole_after_s == pytest.approx(1.5)
    late = replace(fault, ended_s=start_s + 100)
    assert fault_report(late, [late], found, by_interval, everybody, start_s).whole_after_rounds is None


def test_a_round_that_no_coordinator_held_is_void() -> None:
    books = exact_books(small("smoke"), 4)
    by_interval = books.by_interval(4)
    del by_interval[2]
    found = intervals(by_interval, float(CALENDAR.origin_unix_s), CALENDAR.period_s, [])
    assert [(each.interval, each.opened, each.void, each.at_s) for each in found] == [
        (0, 1, 0, 0.0), (1, 1, 0, 2.0), (2, 0, 1, 4.0), (3, 1, 0, 6.0),
    ]  # fmt: skip
    assert found[2].reasons == {NOT_HELD: 1}
    end = intervals(by_interval, float(CALENDAR.origin_unix_s), CALENDAR.period_s, [], 6)[4:]
    assert [(each.interval, each.void, each.at_s) for each in end] == [(4, 1, 8.0), (5, 1, 10.0)]


def test_who_waits_for_a_return_is_not_held_against_a_round() -> None:
    plan = small("smoke")
    gone = frozenset(each.id for node in plan.nodes if node.group == "killed" for each in node.gateways)
    books = exact_books(plan, 3, away=gone, away_in=2)
    assert reported(plan, books, []).failures == []  # one of the last rounds was whole
    short = exact_books(plan, 1, away=gone, away_in=0)
    assert any("in none of the last" in each for each in reported(plan, short, []).failures)
    assert reported(plan, short, [(0.0, len(gone))]).failures == []


def reported(plan: Plan, books: Books, waiting: list[tuple[float, int]], load: float = 0.5) -> Report:
    samples = Samples(waiting=waiting, samples=[Sample(0.0, "steady-1", 0.0, 9), Sample(4.0, "steady-1", 1.0, 90_000)])
    costs = Costs(**dict.fromkeys((each.name for each in fields(Costs)), 1.0))  # type: ignore[arg-type]
    rounds = 1 + max(each.interval for each in books.rounds.values())
    plan = replace(plan, scenario=plan.scenario.model_copy(update={"rounds": rounds}))
    return make_report(
        plan, CALENDAR, books, judged(plan, books), [], samples, costs, start_s=float(CALENDAR.origin_unix_s),
        took_s=31.0, load=(load, 1.5),
    )  # fmt: skip


def test_reports_name_what_is_wrong_and_what_was_played(tmp_path: Path) -> None:
    plan = small("smoke")
    books = exact_books(plan)
    planted(books, 1, 10)
    report = reported(plan, books, [])
    text = "\n".join(markdown(report))
    assert "FAILED:" in text
    assert "energy is not conserved: 1 Wh off" in text
    assert "returns are limited" in text
    write_page(report, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "FAILED: energy is not conserved" in page
    assert [title for title, _, _ in figures(report)][:3] == [
        "Latency of ring rounds", "Gateways in totals", "Latency, distribution",
    ]  # fmt: skip


def test_void_rounds_on_a_busy_machine_are_reported_with_its_load() -> None:
    plan = small("smoke")
    books = exact_books(plan, 3)
    for key, each in books.rounds.items():
        if each.interval:
            books.rounds[key] = replace(each, ended=replace(each.ended, outcome=Outcome.VOID), present=())
    quiet, busy = (reported(plan, books, [], load).failures for load in (0.0, 99.0))
    assert not any("other programs" in each for each in quiet)
    assert any("other programs used the machine (load 99.0 on " in each for each in busy)


def test_bytes_of_a_round_are_held_against_lines_of_the_field() -> None:
    uses = {each.profile: each for each in line_uses(15_000 / 8 * 900, 0)}
    assert uses["gprs"].sent_percent == pytest.approx(100)
    assert uses["gprs"].received_percent == 0


def test_a_scenario_is_its_own_description() -> None:
    scenario = load_scenario("partition")
    assert Scenario.model_validate(scenario.model_dump()) == scenario


def report_file(folder: Path, gateways: int, fixed_s: float, each_s: float, **changes: object) -> Path:
    """A report with the costs of so many gateways."""
    folder.mkdir(exist_ok=True)
    costs = dict.fromkeys((each.name for each in fields(Costs)), 1.0)
    costs["coordinator_bytes_per_gateway_round"] = 90_000.0
    costs["all_nodes_cpu_ms_per_gateway_round"] = 1000 * (fixed_s + each_s * gateways) / gateways
    values = {
        "gateways": gateways, "costs": costs, "rings": gateways // 64, "opened": 9, "void": 1, "is_exact": True,
        "conservation_error_wh": 0.0, "started_at": "2026-11-30T13:00:00+00:00", "cpu_count": 2,
        "machine": "Linux x86_64", "python": "3.11.7", "failures": [], "version": version("stromkreis"),
        "scenario": load_scenario("steady-10k", {"gateways": gateways}).model_dump(mode="json"),
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(values | changes), encoding="utf-8")
    return folder


def test_the_fit_finds_what_is_fixed_and_what_each_gateway_costs(tmp_path: Path) -> None:
    runs = [read_run(report_file(tmp_path / str(count), count, 0.5, 0.002)) for count in (100, 1_000, 3_000)]
    line = fit(runs)[0]
    assert line.fixed == pytest.approx(0.5)
    assert line.each == pytest.approx(0.002)
    assert line.error == pytest.approx(0, abs=1e-6)
    assert line.at(10_000) == pytest.approx(20.5)
    (country,) = [each for each in tables(runs) if each.startswith("| 40,000,000")]
    # 90 kB for each gateway and quarter hour: 800 bit/s, and the byte that its set-up has, three times a day.
    assert "| 32,000 Mbit/s | 60,000,000 |" in country
    assert "The model rests on these assumptions:" in page(runs)


def test_a_fit_wants_two_sizes_and_reports_that_are_some(tmp_path: Path) -> None:
    with pytest.raises(StromkreisError, match="at least two sizes"):
        fit([read_run(report_file(tmp_path / "one", 100, 0.5, 0.002))])
    folder = report_file(tmp_path / "older", 100, 0.5, 0.002)
    values = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    del values["costs"]["coordinator_bytes_per_gateway_round"]
    (folder / "report.json").write_text(json.dumps(values), encoding="utf-8")
    assert not is_of(folder, load_scenario("steady-10k", {"gateways": 100}))
    with pytest.raises(StromkreisError, match="no report of a load test"):
        read_run(folder)
    (tmp_path / "report.json").write_text("{}", encoding="utf-8")
    with pytest.raises(StromkreisError, match="no report of a load test"):
        read_run(tmp_path)


def test_a_series_goes_on_where_it_was_and_names_a_size_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, into, played = tmp_path / "scale", tmp_path / "scale.md", []
    out.mkdir()
    report_file(out / "100", 100, 0.5, 0.002)

    def play(test: LoadTest) -> None:
        played.append(test.scenario.gateways)
        if test.scenario.gateways == 3_000:
            raise StromkreisError("meters-1 ended by itself with signal SIGKILL")
        report_file(test.out, test.scenario.gateways, 0.5, 0.002)

    monkeypatch.setattr(command, "_play", play)
    arguments = ["series", "3000", "100", "1000", "--out", str(out), "--into", str(into)]
    result = CliRunner().invoke(command.app, arguments)
    assert (result.exit_code, played) == (1, [1_000, 3_000]), result.output
    page = into.read_text(encoding="utf-8")
    assert "| 100 |" in page
    assert "| 1,000 |" in page
    assert "- 3,000 gateways failed: meters-1 ended by itself with signal SIGKILL." in page
    assert "The model rests on these assumptions:" in page
    monkeypatch.setattr(command, "_play", lambda test: report_file(test.out, test.scenario.gateways, 0.5, 0.002))
    assert CliRunner().invoke(command.app, arguments).exit_code == 0
    assert "failed" not in into.read_text(encoding="utf-8")


def test_a_size_that_opened_no_total_is_shown_played_again_and_not_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, into, played = tmp_path / "scale", tmp_path / "scale.md", []
    out.mkdir()
    report_file(out / "100", 100, 0.5, 0.002)
    report_file(out / "300", 300, 9.0, 0.002, opened=0, failures=["no total was opened"])
    text = page([read_run(out / "100"), read_run(out / "300")])
    assert "| no total |" in text
    assert "assumptions" not in text

    def play(test: LoadTest) -> None:
        played.append(test.scenario.gateways)
        report_file(test.out, test.scenario.gateways, 0.5, 0.002)

    monkeypatch.setattr(command, "_play", play)
    result = CliRunner().invoke(command.app, ["series", "100", "300", "--out", str(out), "--into", str(into)])
    assert (result.exit_code, played) == (0, [300]), result.output
    assert "assumptions" in into.read_text(encoding="utf-8")


def test_a_page_of_one_size_has_its_figures_and_no_model(tmp_path: Path) -> None:
    text = page([read_run(report_file(tmp_path / "one", 100, 0.5, 0.002))])
    assert "| 100 |" in text
    assert "assumptions" not in text


def test_a_report_of_other_settings_is_measured_anew(tmp_path: Path) -> None:
    folder = report_file(tmp_path / "one", 100, 0.5, 0.002)
    assert is_of(folder, load_scenario("steady-10k", {"gateways": 100}))
    assert not is_of(folder, load_scenario("steady-10k", {"gateways": 100, "churn": 0.1}))
    assert not is_of(tmp_path / "none", load_scenario("steady-10k", {"gateways": 100}))


def test_load_tests_beside_each_other_say_which_failed_and_why(tmp_path: Path) -> None:
    plan = small("smoke")
    good, bad = exact_books(plan), exact_books(plan)
    planted(bad, 1, 10)
    for name, books in (("good", good), ("bad", bad)):
        write_json(reported(plan, books, []), tmp_path / name / "report.json")
    result = CliRunner().invoke(command.app, ["verdicts", str(tmp_path / "good"), str(tmp_path / "bad")])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    exact = "| smoke | 1970-01-12 | 70, 2 | 3 of 2 s | yes | 0 | 3, 0 | none | no fault | 31 s | 0.5 to 1.5 |"
    assert lines[2].startswith(exact)
    assert lines[2].endswith("| passed |")
    assert "| NO | 1 |" in lines[3]
    assert "energy is not conserved: 1 Wh off" in lines[3]
