"""Tariff use cases as they run: TAF 5, 11, 12 and 13 by registration times, TAF 9, 10 and 14 by telegrams."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from node.han.derived import running_period
from node.profiles.ring_readings import RingReadings
from node.taf.outbox import WAITING_MAX
from node.wan.deliveries import Deliveries
from protocol.cosem.delivery import Detail
from protocol.metering.interval import QUARTER_HOURS
from protocol.metering.reading import Quality
from tests.unit.taf_gateway import GATEWAY, IMPORT, OCTOBER_S, TafGateway, moment, profile_set, taf_gateway

DAY_S = 86_400
QUARTERS = 96
DRAW = np.random.default_rng(2026)
ENERGIES = DRAW.integers(0, 900, 3 * QUARTERS)
REGISTERS = [int(each) for each in 5_000 + np.concatenate([[0], np.cumsum(ENERGIES)])]
BOTH = ("direct", "pseudonymous")
DAY_AND_NIGHT = {
    "day_profiles": [{"id": "d", "switches": [{"at": "00:00", "stage": 1}, {"at": "06:00", "stage": 2}]}],
    "seasons": [{"begins": "01-01", "weekdays": ["d"] * 7}],
}
VOLTAGE, FEED_IN, FREQUENCY = "1-0:32.7.0*255", "1-0:2.7.0*255", "1-0:14.7.0*255"


async def log_days(gateway: TafGateway, count: int, without: Sequence[int] = ()) -> None:
    """Registers of `count` quarter hours and one more, closing what is due after each as the running task does."""
    for index in range(count + 2):
        if index not in without and index < len(REGISTERS):
            await gateway.register(index * 900, REGISTERS[index])
            await gateway.use_cases.close_due()


def by_what(details: Sequence[Detail]) -> dict[str, int]:
    return {each.what: each.value for each in details}


async def test_taf5_days_have_the_stages_that_events_set(tmp_path: Path) -> None:
    times = sorted(int(each) for each in DRAW.choice(2 * DAY_S, 40, replace=False))
    stages = [int(each) for each in DRAW.integers(1, 4, 40)]
    events = [
        {"at": moment(at), "stage": stage, "source": "emp"} for at, stage in zip(times, stages, strict=True)
    ]  # fmt: skip
    use_case = {"taf": 5, "default_stage": 1, "stages": [1, 2, 3], "event_sources": ["emp"], "events": events}
    async with taf_gateway(tmp_path, profile_set({"id": "p", "use_case": use_case})) as gateway:
        await log_days(gateway, 2 * QUARTERS, without=(70,))
        results = gateway.results("p")
        assert gateway.deliveries("p") == [(day, form) for day in (0, DAY_S) for form in BOTH]
    for day, result in enumerate(results):
        wanted = Counter(dict.fromkeys((1, 2, 3, 63), 0))
        for index in range(day * QUARTERS, (day + 1) * QUARTERS):
            known = [stage for at, stage in zip(times, stages, strict=True) if at <= index * 900]
            wanted[63 if index in (69, 70) else known[-1] if known else 1] += int(ENERGIES[index])
        registers = {obis.e: value for obis, value in result.registers}
        assert registers == {0: wanted.total(), **wanted}
        assert registers[0] == REGISTERS[(day + 1) * QUARTERS] - REGISTERS[day * QUARTERS]


async def test_taf11_record_goes_when_the_control_has_ended(tmp_path: Path) -> None:
    controls = [
        {"system": "wallbox", "begins": moment(3_700), "ends": moment(9_100), "limit_w": 4_200},
        {"system": "pv", "begins": moment(20_000), "ends": moment(21_600), "limit_w": None},
        {"system": "wallbox", "begins": moment(80_000), "ends": moment(DAY_S + 10), "limit_w": 0},
    ]
    async with taf_gateway(
        tmp_path, profile_set({"id": "p", "use_case": {"taf": 11, "controls": controls}})
    ) as gateway:
        await log_days(gateway, QUARTERS + 3)
        results = [each for each in gateway.results("p") if each.details]
        starts = [each.start_s - OCTOBER_S for each in gateway.results("p")]
        assert gateway.deliveries("p") == [(start, form) for start in starts for form in BOTH]
    assert starts == [0, 9_900, 21_600, DAY_S]
    found = [[(each.what, each.subject, each.value, each.at_ms // 1000 - OCTOBER_S) for each in one.details]
             for one in results]  # fmt: skip
    assert found == [
        [("limited", "wallbox", 4_200, 3_700), ("before", "wallbox", REGISTERS[4], 3_600),
         ("after", "wallbox", REGISTERS[11], 9_900)],
        [("off", "pv", 0, 20_000), ("before", "pv", REGISTERS[22], 19_800), ("after", "pv", REGISTERS[24], 21_600)],
        [("limited", "wallbox", 0, 80_000), ("before", "wallbox", REGISTERS[88], 79_200),
         ("after", "wallbox", REGISTERS[97], 87_300)],
    ]  # fmt: skip


async def test_taf12_credit_adds_up_over_changes_of_its_standing(tmp_path: Path) -> None:
    prices = {1: 3, 2: 5}
    costs = [int(each) * prices[2 if index % QUARTERS >= 24 else 1] for index, each in enumerate(ENERGIES)]
    first_day = sum(costs[:QUARTERS])
    warned, paid = first_day // 2, first_day - 40_000  # used up before the day ends

    def prepaid(paid: int) -> dict[str, Any]:
        return {"id": "p", "use_case": {
            "taf": 12, "calendar": DAY_AND_NIGHT, "price_scaler": -5, "prices": prices, "paid_credit": paid,
            "warning_credit": warned,
        }, "scaler": 0}  # fmt: skip

    # Registers are logged as tenths; the profile counts whole watt hours of them, which `register` makes exact.
    async with taf_gateway(tmp_path, profile_set(prepaid(paid))) as gateway:
        for index in range(QUARTERS + 2):
            await gateway.register(index * 900, 10 * REGISTERS[index])
            await gateway.use_cases.close_due()
        gateway.profiles.current = profile_set(prepaid(paid + 10**7), issued_s=DAY_S, version=2)
        gateway.new_process()
        await gateway.use_cases.close_due()
        await gateway.listen()
        for index in range(QUARTERS + 2, QUARTERS + 12):
            await gateway.register(index * 900, 10 * REGISTERS[index])
            await gateway.use_cases.close_due()
        results = gateway.results("p")
        assert len(gateway.deliveries("p")) == 2 * len(results)
    assert all(before.end_s == after.start_s for before, after in pairwise(results))
    assert results[0].start_s == OCTOBER_S
    standings, balance = [], 0
    for result in results:
        balance = result.details[0].value
        until = (result.end_s - OCTOBER_S) // 900
        credited = result.details[1].value
        assert balance == credited - sum(costs[:until])
        standings.append(result.details[0].what)
    assert [each for before, each in pairwise(["", *standings]) if each != before] == ["low", "used-up", "enough"]
    crossed = next(index for index in range(QUARTERS) if paid - sum(costs[: index + 1]) <= 0)
    assert OCTOBER_S + (crossed + 1) * 900 in [each.end_s for each in results]
    total = sum(dict(each.registers)[IMPORT._replace(e=0)] for each in results)
    assert total == REGISTERS[(results[-1].end_s - OCTOBER_S) // 900] - REGISTERS[0]
    assert results[-1].end_s > OCTOBER_S + DAY_S


async def test_taf13_portal_gets_each_value_once_and_soon(tmp_path: Path) -> None:
    profile = {"id": "p", "use_case": {"taf": 13, "period_s": 1_800}}
    async with taf_gateway(tmp_path, profile_set(profile, issued_s=4_000)) as gateway:
        await log_days(gateway, 12)
        results = gateway.results("p")
    rows = [each for result in results for each in result.rows]
    assert [(each.at_s - OCTOBER_S, each.value) for each in rows] == [
        (index * 900, REGISTERS[index]) for index in range(5, 13)
    ]
    assert [len(each.rows) for each in results] == [2, 2, 2, 2]


async def test_taf8_extremes_are_in_the_result(tmp_path: Path) -> None:
    async with taf_gateway(tmp_path, profile_set({"id": "p", "use_case": {"taf": 8, "count": 2}})) as gateway:
        await log_days(gateway, QUARTERS)
        (result,) = gateway.results("p")
    order = sorted(range(QUARTERS), key=lambda index: (-ENERGIES[index], index))
    largest = [
        (each.value, (each.at_ms // 1000 - OCTOBER_S) // 900) for each in result.details if each.what == "largest"
    ]
    assert largest == [(int(ENERGIES[index]), index) for index in order[:2]]
    assert sum(each.what == "smallest" for each in result.details) == 2


async def test_taf9_value_goes_at_each_period_and_request(tmp_path: Path) -> None:
    use_case = {"taf": 9, "period_s": 60, "requests": [moment(100), moment(130)]}
    async with taf_gateway(tmp_path, profile_set({"id": "p", "obis": FEED_IN, "use_case": use_case})) as gateway:
        await gateway.look()
        for second in range(5, 200, 10):
            await gateway.telegram(second, {FEED_IN: second})
            await gateway.look()
        assert await gateway.look(200) == pytest.approx(42)
        results = gateway.results("p")
        assert gateway.deliveries("p")[:2] == [(-1, "direct"), (-1, "pseudonymous")]
    assert [(each.end_s - OCTOBER_S, by_what(each.details)) for each in results] == [
        (0, {}), (60, {"present": 55}), (100, {"present": 95}), (120, {"present": 115}), (130, {"present": 125}),
        (180, {"present": 175}),
    ]  # fmt: skip
    assert not any(each.is_billable for each in results)


def grid_state(**changed: Any) -> dict[str, Any]:
    limit = {"obis": VOLTAGE, "scaler": 0, "low": 207, "high": 253, "hysteresis": 2}
    use_case = {"taf": 10, "period_s": 3_600, "registers": [FREQUENCY], "limits": [limit]}
    return {"id": "p", "obis": VOLTAGE, "use_case": use_case | changed}


async def test_taf10_event_goes_within_seconds_and_once(tmp_path: Path) -> None:
    volts = {10: 2_300, 20: 2_531, 21: 2_529, 22: 2_532, 40: 2_511, 60: 2_509, 80: 2_069, 3_590: 2_300}
    async with taf_gateway(tmp_path, profile_set(grid_state(), issued_s=1)) as gateway:
        await gateway.look()
        for second, value in volts.items():
            await gateway.telegram(second, {VOLTAGE: value, FREQUENCY: 500})
            await gateway.look(second + 4)
        await gateway.look(3_605)
        results = gateway.results("p")
    events = [(each.what, each.at_ms // 1000 - OCTOBER_S, result.end_s - OCTOBER_S)
              for result in results for each in result.details if each.subject == "event"]  # fmt: skip
    assert events == [("high", 20, 21), ("inside", 60, 61), ("low", 80, 81), ("inside", 3_590, 3_591)]
    last = {str(each.obis): (each.what, each.value) for each in results[-2].details if not each.subject}
    assert last == {VOLTAGE: ("inside", 2_300), FREQUENCY: ("present", 500)}
    assert not results[-1].is_complete  # nothing was measured in its nine seconds


async def test_taf10_restart_repeats_no_event(tmp_path: Path) -> None:
    async with taf_gateway(tmp_path, profile_set(grid_state(period_s=60), issued_s=1)) as gateway:
        await gateway.look()
        await gateway.telegram(20, {VOLTAGE: 2_600})
        await gateway.look(24)
        gateway.new_process()
        await gateway.listen()
        await gateway.look(25)
        await gateway.telegram(30, {VOLTAGE: 2_601})
        await gateway.look(63)
        events = [each for one in gateway.results("p") for each in one.details if each.subject]
        assert gateway.results("p")[-1].details[0].what == "high"
    assert len(events) == 1


async def test_taf10_value_that_the_meter_doubts_is_marked(tmp_path: Path) -> None:
    async with taf_gateway(tmp_path, profile_set(grid_state(period_s=60), issued_s=1)) as gateway:
        await gateway.look()
        await gateway.telegram(20, {VOLTAGE: 9_999}, quality=Quality.METER_ERROR)
        await gateway.look(63)
        (result,) = gateway.results("p")
    assert [(each.subject, each.is_valid) for each in result.details] == [("", False)]


async def test_taf14_second_values_go_in_batches_and_are_not_billed(tmp_path: Path) -> None:
    profile = {"id": "p", "obis": FEED_IN, "use_case": {"taf": 14, "period_s": 1}}
    async with taf_gateway(tmp_path, profile_set(profile)) as gateway:
        await gateway.look()
        for tenth in range(0, 1_200, 5):  # two a second
            await gateway.telegram(tenth / 10, {FEED_IN: tenth})
        await gateway.look(123)
        results = gateway.results("p")
        assert gateway.deliveries("p") == [(start, form) for start in (0, 60) for form in BOTH]
    rows = [(each.at_s - OCTOBER_S, each.value) for result in results for each in result.rows]
    assert rows == [(second, 10 * second) for second in range(120)]
    assert {(each.is_billable, each.period_s) for each in results} == {(False, 1)}


async def test_current_values_that_wait_are_bounded(tmp_path: Path) -> None:
    profile = {"id": "p", "obis": FEED_IN, "use_case": {"taf": 9, "period_s": 60}}
    count = WAITING_MAX + 30
    async with taf_gateway(tmp_path, profile_set(profile)) as gateway:
        for minute in range(count):
            await gateway.look(minute * 60 + 3)
        waiting = gateway.deliveries("p")
    assert len(waiting) == 2 * WAITING_MAX
    assert waiting[-1][0] == (count - 2) * 60


async def test_gateway_that_stood_still_goes_on_with_the_present(tmp_path: Path) -> None:
    profile = {"id": "p", "obis": FEED_IN, "use_case": {"taf": 9, "period_s": 60}}
    async with taf_gateway(tmp_path, profile_set(profile)) as gateway:
        await gateway.look(3)
        await gateway.look(30 * DAY_S + 3)
        starts = [each.start_s - OCTOBER_S for each in gateway.results("p")]
    assert len(starts) <= 17
    assert starts[-1] == 30 * DAY_S - 60


async def test_running_period_shows_what_would_be_closed(tmp_path: Path) -> None:
    profile = {"id": "p", "use_case": {"taf": 2, "calendar": DAY_AND_NIGHT}}
    async with taf_gateway(tmp_path, profile_set(profile)) as gateway:
        await log_days(gateway, 30)
        (processing,) = gateway.profiles.current.processing
        devices = gateway.profiles.devices_of(processing)
        now_s = OCTOBER_S + 29 * 900
        running = running_period(gateway.repository, gateway.log.registered, GATEWAY, processing, devices, now_s)
        before = running_period(gateway.repository, gateway.log.registered, GATEWAY, processing, devices, OCTOBER_S)
    assert before is None
    assert running is not None
    registers = {obis.e: value for obis, value in running.registers}
    night, day = int(ENERGIES[:24].sum()), int(ENERGIES[24:29].sum())
    assert registers == {0: night + day, 1: night, 2: day, 63: 0}
    assert (running.start_s, running.end_s, running.is_complete) == (OCTOBER_S, now_s, True)


async def test_high_frequency_goes_behind_all_other_deliveries(tmp_path: Path) -> None:
    second = {"id": "fast", "obis": FEED_IN, "use_case": {"taf": 14, "period_s": 1}}
    async with taf_gateway(tmp_path, profile_set(second, {"id": "slow", "use_case": {"taf": 7}})) as gateway:
        await gateway.look()
        await gateway.telegram(5, {FEED_IN: 1})
        await gateway.look(63)
        await log_days(gateway, QUARTERS)
        services: Any = SimpleNamespace(repository=gateway.repository)
        module: Any = SimpleNamespace(identity=GATEWAY)
        profiles: Any = gateway.profiles
        deliveries = Deliveries(services, module, profiles, lambda *_, **__: None, random.Random(1))
        sent: list[str] = []

        async def send(waiting: list[Any]) -> bool:
            sent.extend(each.profile for each in waiting)
            return True

        deliveries._send_to_participant = send  # type: ignore[method-assign]
        assert await deliveries.send_waiting()
    assert sent == ["slow", "slow", "fast", "fast"]


async def test_five_minute_values_are_derived_and_not_for_billing(tmp_path: Path) -> None:
    fine = {"id": "fine", "use_case": {"taf": 7}, "registration_period_s": 300}
    profiles = profile_set(fine, {"id": "bill", "use_case": {"taf": 7}}, meter_period_s=300)
    async with taf_gateway(tmp_path, profiles) as gateway:
        for index in range(3 * QUARTERS + 2):
            await gateway.register(index * 300, 1_000 + 7 * index)
        await gateway.use_cases.close_due()
        (fine_result,), (bill,) = gateway.results("fine"), gateway.results("bill")
        known: Any = gateway.profiles
        rings = RingReadings(known, lambda: QUARTER_HOURS)
        assert rings.finest_s() == 300
        (entry,) = [each for each in gateway.log.read(0, 9) if each.readings[0].registration_s == OCTOBER_S + 300]
        assert rings.view(entry).readings[0].registration_s is None
    assert [each.value for each in fine_result.rows] == [1_000 + 7 * index for index in range(3 * QUARTERS + 1)]
    assert [each.value for each in bill.rows] == [1_000 + 21 * index for index in range(QUARTERS + 1)]
    assert (fine_result.is_billable, bill.is_billable) == (False, True)
    assert fine_result.is_complete
    assert bill.is_complete


async def test_gas_is_registered_and_billed_by_the_hour(tmp_path: Path) -> None:
    gas = {"id": "gas", "use_case": {"taf": 1}, "registration_period_s": 3_600}
    async with taf_gateway(tmp_path, profile_set(gas)) as gateway:
        await log_days(gateway, QUARTERS, without=(3, 5, 6))  # quarter hours beside the hours are nobody's
        (result,) = gateway.results("gas")
    assert (result.is_complete, result.is_billable, result.period_s) == (True, True, 3_600)
    assert result.registers[0][1] == int(ENERGIES[:QUARTERS].sum())
