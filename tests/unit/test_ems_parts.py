"""The parts of the scenarios of energy management that need no process: limits, meter, reactions, judgement, files."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loadtest.ems.ems import Applied, Command, Ems, reactions
from loadtest.ems.freshness import Arrival
from loadtest.ems.limits import FAILSAFE_DURATION_S, HEARTBEAT_TIMEOUT_S, PowerLimit, State
from loadtest.ems.measured import Spans, cold_s, commands_recovery, curve, failsafe_faults, result_of, values_recovery
from loadtest.ems.meter import IMPORT, STEP_COUNT, STEP_S, HouseholdMeter, household_w, wanted_w
from loadtest.ems.options import OPTIONS
from loadtest.ems.page import figures, load_results, measured_rows, seconds
from loadtest.ems.readers import learn_rows
from loadtest.ems.result import Latency, Result, latencies
from protocol.errors import StromkreisError

SPANS = Spans(began_s=100.0, calm_s=160.0, cut_s=170.0, healed_s=185.0, ends_s=260.0)


def limited(now_s: float = 0.0) -> PowerLimit:
    made = PowerLimit(4_200, now_s)
    made.heartbeat(now_s)
    assert made.receive(7_000, now_s)
    return made


def test_a_limit_holds_for_its_duration() -> None:
    made = PowerLimit(4_200, 0.0)
    made.heartbeat(0.0)
    assert made.limit_w(0.0) == 4_200  # until the first limit
    assert made.receive(7_000, 1.0, duration_s=30.0)
    assert made.limit_w(30.9) == 7_000
    assert made.limit_w(31.0) is None
    assert made.state is State.CONTROLLED


def test_without_heartbeat_the_failsafe_limit_holds_from_120_s_on() -> None:
    made = limited()
    assert made.limit_w(HEARTBEAT_TIMEOUT_S) == 7_000
    assert made.limit_w(HEARTBEAT_TIMEOUT_S + 0.1) == 4_200
    assert made.changes[-1] == (HEARTBEAT_TIMEOUT_S, State.FAILSAFE)


def test_failsafe_is_left_by_heartbeat_and_limit_not_by_one_of_them() -> None:
    made = limited()
    assert made.limit_w(200.0) == 4_200
    assert not made.receive(9_000, 201.0)
    assert made.limit_w(201.0) == 4_200
    made.heartbeat(202.0)
    assert made.limit_w(202.0) == 4_200
    assert made.receive(9_000, 203.0)
    assert made.limit_w(203.0) == 9_000


def test_failsafe_ends_by_itself_after_its_duration() -> None:
    made = limited()
    ends_s = HEARTBEAT_TIMEOUT_S + FAILSAFE_DURATION_S
    assert made.limit_w(ends_s) == 4_200
    assert made.limit_w(ends_s + 1) is None
    assert made.state is State.AUTONOMOUS


def test_a_system_that_nobody_ever_speaks_to_is_on_its_own_after_a_while() -> None:
    made = PowerLimit(4_200, 10.0)
    assert made.limit_w(130.0) == 4_200
    assert made.limit_w(130.1) is None
    assert not made.receive(5_000, 131.0)


def test_a_negative_limit_is_refused_and_the_one_in_force_stays() -> None:
    made = limited()
    assert not made.receive(-1, 1.0)
    assert made.limit_w(1.0) == 7_000


def test_the_meter_knows_when_it_showed_what() -> None:
    meter = HouseholdMeter(began_s=1_000.0)
    shown = [meter.registers(datetime.fromtimestamp(1_000.0 + second, UTC)) for second in range(400)]
    energies = [registers[0][1] for registers in shown]
    assert shown[0][0][0] == IMPORT
    assert len(set(energies)) == len(energies) == 400  # each second has a register of its own
    assert [meter.shown_at(each) for each in energies] == [1_000.0 + second for second in range(400)]
    assert meter.shown_at(energies[0] - 1) is None
    # Tenths of a Wh, cut off once and not in each step.
    turn_s = STEP_COUNT * STEP_S
    used = meter.energy_tenth_wh(1_000.0 + 3 * turn_s) - energies[0]
    assert used == 3 * sum(map(household_w, range(STEP_COUNT))) * 5 // 360


def test_a_step_is_known_by_its_power() -> None:
    limits = {wanted_w(household_w(step)) for step in range(7, 7 + STEP_COUNT)}
    assert len(limits) == STEP_COUNT
    assert min(limits) > 0


def test_reactions_count_from_the_step_to_the_first_device() -> None:
    meter = HouseholdMeter(began_s=0.0)
    applied = [
        Applied(device, wanted_w(household_w(step)), step * STEP_S + delay_s)
        for step in (4, 5, 7)
        for device, delay_s in (("modbus_charger", 1.5), ("charge_point", 0.5))
    ]
    early = Applied("charge_point", wanted_w(household_w(6)), 6 * STEP_S - 0.1)  # nobody can react before
    assert reactions([*applied, early], meter, 3.5 * STEP_S, 8.5 * STEP_S) == ([0.5, 0.5, 0.5], 1)


def test_a_value_that_the_meter_never_showed_is_counted_and_not_used() -> None:
    ems = Ems(HouseholdMeter())
    ems.learn(1, 3_000)
    assert (ems.unknown, ems.arrivals, ems.household_w) == (1, [], None)


def test_an_export_is_learnt_once_and_its_power_when_that_comes() -> None:
    row = "d,s,p,soon,14,0,value,{},2026-11-30T12:00:0{}Z,{},{},1,,,"
    head = "delivery,sender,metering_point,profile,taf,billable,kind,obis,time,value,unit,valid,status,until,subject"
    energy = [row.format("1-0:1.8.0*255", second, f"100{second}.5", "Wh") for second in (1, 0)]
    power = [row.format("1-0:16.7.0*255", 1, "3000", "W")]
    told, seen = list[tuple[int, int | None]](), set[tuple[str, bool]]()
    for lines in (energy, energy, energy + power, energy + power):
        learn_rows("\n".join([head, *lines]), seen, lambda *value: told.append(value))
    assert told == [(10_005, None), (10_015, None), (10_015, 3_000)]


def command(issued_s: float, took_s: float = 0.1, *, is_accepted: bool = True) -> Command:
    return Command("charger", 4_200, issued_s, issued_s + took_s, is_accepted)


def test_latencies_are_of_commands_that_were_answered_in_the_span() -> None:
    noted = [command(99.0, 9.0), command(101.0, 0.25), command(102.0, 0.5), command(103.0, 10.0, is_accepted=False)]
    assert latencies(noted, 100.0, 160.0) == {"charger": Latency(2, 0.25, 0.5, failed=1)}


def test_a_cut_that_no_command_met_was_not_noticed() -> None:
    assert commands_recovery([command(each) for each in range(160, 200, 2)], SPANS) == 0.0


def test_recovery_of_commands_ends_with_the_first_answer_after_the_cut() -> None:
    met = [command(160.0), command(172.0, 10.0, is_accepted=False), command(183.0, 10.0, is_accepted=False)]
    assert commands_recovery(met, SPANS) is None
    assert commands_recovery([*met, command(195.0, 3.0)], SPANS) == pytest.approx(13.0)


def test_recovery_of_values_is_none_while_they_are_old() -> None:
    before = [Arrival(100 + second + 0.2, 100.0 + second) for second in range(70)]
    assert values_recovery(before, SPANS, 260.0) is None
    assert values_recovery([*before, Arrival(215.0, 214.5)], SPANS, 260.0) == pytest.approx(30.0)
    through = [Arrival(100 + second + 0.2, 100.0 + second) for second in range(160)]
    assert values_recovery(through, SPANS, 259.0) == 0.0


def test_cold_tunnels_count_from_their_beginning_and_not_those_after_the_cut() -> None:
    openings = [(120.0, 121.0), (161.0, 162.0), (186.0, 187.0)]
    commands = [command(162.5, 0.5), command(190.0, 0.5)]
    assert cold_s(openings, commands, SPANS) == [2.0]


def test_the_curve_goes_up_between_values_and_down_with_them() -> None:
    assert curve([Arrival(1.0, 0.5), Arrival(3.0, 3.0)], 0.0, 4.0) == [(1.0, 0.5), (3.0, 2.5), (3.0, 0.0), (4.0, 1.0)]


def judged(name: str, ems: Ems, *, octets: int = 0, display_s: int = 1) -> Result:
    spans = Spans(SPANS.began_s, SPANS.calm_s, SPANS.cut_s, SPANS.healed_s, None, SPANS.ends_s, 0.6, {"box": octets})
    return result_of(
        OPTIONS[name], datetime(2026, 11, 30, tzinfo=UTC), spans, {"local": ems}, [], ems.meter, [], limit=None,
        nominal_s=1.0, wan="lte", emp_values="1s", display_s=display_s,
    )  # fmt: skip


def well_served() -> Ems:
    ems = Ems(HouseholdMeter(began_s=0.0))
    ems.arrivals = [Arrival(90 + second + 0.2, 90.0 + second) for second in range(170)]
    ems.commands = [command(each) for each in range(90, 260, 2)]
    return ems


def test_a_run_in_which_all_is_well_has_no_failure() -> None:
    result = judged("1a", well_served())
    assert result.failures == []
    assert result.gateway_cpu_percent == 1.0
    assert result.recovery_s == {"values, local EMS": 0.0, "commands, charger": 0.0}


def test_a_value_at_home_older_than_the_display_interval_is_a_failure() -> None:
    ems = well_served()
    ems.arrivals = [Arrival(90 + second + 0.2, 90.0 + second) for second in range(0, 170, 20)]
    assert judged("1a", ems, display_s=20).failures == []
    assert judged("1a", ems, display_s=20).values["local EMS"].gaps == 0
    told = "local EMS: a value of 20.2 s, the display interval allows 17 s"
    assert told in judged("1a", ems, display_s=10).failures
    assert told not in judged("2a", ems, display_s=10).failures  # nobody reads the interface


def test_what_leaves_a_home_that_needs_no_wan_is_a_failure() -> None:
    assert judged("1a", well_served(), octets=7).failures == ["7 octets left the home, which this option does not need"]


def test_unknown_values_and_unanswered_commands_are_failures() -> None:
    ems = well_served()
    ems.unknown, ems.commands = 2, [command(each, 10.0, is_accepted=False) for each in range(90, 260, 12)]
    failures = judged("1a", ems).failures
    assert "local EMS: 2 values that the meter never showed" in failures
    assert "charger: no command was answered" in failures
    assert "commands, charger: not back after the cut" in failures


LONG_CUT = Spans(began_s=0.0, calm_s=60.0, cut_s=100.0, healed_s=250.0, ends_s=300.0)


def cut_off() -> PowerLimit:
    made = limited()
    made.heartbeat(99.0)
    made.limit_w(240.0)  # 120 s after the heartbeat: failsafe
    made.heartbeat(252.0)
    made.receive(9_000, 252.0)
    return made


def test_a_device_that_keeps_to_the_failsafe_limit_is_no_fault() -> None:
    applied = [Applied("charger", 7_000, 90.0), Applied("charger", 4_200, 220.0), Applied("charger", 9_000, 253.0)]
    assert failsafe_faults(cut_off(), applied, LONG_CUT) == []
    assert failsafe_faults(limited(), [], SPANS) == []  # the heartbeat was not missed for long enough


def test_a_device_above_the_failsafe_limit_and_a_limit_that_stays_are_faults() -> None:
    stays = [Applied("charger", 7_000, 90.0)]
    raised = [Applied("charger", 4_200, 221.0), Applied("charger", 5_000, 240.0), Applied("charger", 4_200, 245.0)]
    for applied in (stays, raised):
        (fault,) = failsafe_faults(cut_off(), applied, LONG_CUT)
        assert fault == "charger: above the failsafe limit while the heartbeat was missing"
    never = limited()
    assert failsafe_faults(never, [], LONG_CUT) == ["no failsafe limit though the heartbeat was missing"]
    never.limit_w(250.0)
    assert failsafe_faults(never, [], LONG_CUT) == ["the failsafe limit was not left: failsafe"]


def test_a_result_is_read_back_as_it_was(tmp_path: Path) -> None:
    result = judged("1a", well_served())
    result.save(tmp_path)
    (found,) = load_results(tmp_path).values()
    assert (found.values, found.commands, found.reaction) == (result.values, result.commands, result.reaction)
    rows = {row.title: row.cells for row in measured_rows({"1a": found})}
    assert rows["Sample period"][0] == ["local EMS: 1.0\N{NO-BREAK SPACE}s / 1.0\N{NO-BREAK SPACE}s"]
    assert rows["Sample period"][1] == [""]  # an option that was not run


@pytest.mark.parametrize("content", ["{}", "[1]", "no JSON", json.dumps({"values": {"x": {}}})])
def test_a_result_of_another_version_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "ems-1a.json").write_text(content)
    with pytest.raises(StromkreisError, match=r"ems-1a\.json: expected the result of a scenario of this version"):
        load_results(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StromkreisError, match="no result of a scenario"):
        load_results(tmp_path / "empty")


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (0.0123, "12 ms"), (0.999, "1.0 s"), (62.04, "62.0 s"), (3600.0, "3,600 s")]
)
def test_times_are_shown_at_a_readable_precision(value: float | None, shown: str) -> None:
    assert seconds(value).replace("\N{NO-BREAK SPACE}", " ") == shown


def test_an_age_that_grows_for_long_is_drawn_bent_on_its_logarithmic_axis() -> None:
    result = replace(judged("1a", well_served()), curves={"local EMS": [(0.0, 1.0), (60.0, 61.0), (60.0, 0.0)]})
    _, _, figure = next(figures({"1a": result}))
    (trace,) = figure["data"]
    points = list(zip(trace["x"], trace["y"], strict=True))
    assert points[0] == (0.0, 1.0)
    assert points[-1] == (60.0, 0.02)
    assert len(points) > 20
    assert all(age == pytest.approx(1.0 + at_s) for at_s, age in points[:-1])
