"""The judge of a month of deliveries: what an export must say, and that it finds what is wrong, missing or twice."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from loadtest.month.ledger import best_rate
from loadtest.month.plan import MonthSettings, Plan
from loadtest.month.report import MonthReport, write_report
from loadtest.month.truth import COUNT, END_S, FIRST_QUARTER_HOUR, MONTH_S, Judge, registers_of
from node.taf.evaluate import evaluate
from node.taf.series import RegisterValue
from protocol.errors import StromkreisError
from protocol.profiles.processing import Delivery
from protocol.profiles.profile_set import ProfileSet

Row = dict[str, str]


def registers(seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 900, COUNT + 1).cumsum() + 10**6


TRUTH = {f"ESTK00{number:08d}": registers(number) for number in range(2)}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return Plan.make(MonthSettings(tmp_path_factory.mktemp("month"), gateways=24, processes=3))


@pytest.fixture(scope="module")
def exported(plan: Plan) -> list[Row]:
    """What the gateway's own use cases derive from these registers, as an export has it."""
    rows: list[Row] = []
    for name, values in TRUTH.items():
        series = [[RegisterValue(MONTH_S + index * 900, int(value), True) for index, value in enumerate(values)]]
        for profile in profiles(plan, name).processing:
            if profile.recipients[0].delivery is Delivery.AGGREGATED:
                continue
            period = profile.billing_period
            found = evaluate(profile, series, period.index_at(MONTH_S))
            head = {
                "delivery": f"{name} {profile.id}", "sender": f"{name.lower()}.sm", "taf": str(profile.use_case.taf),
                "valid": "1", "billable": "1",
            }  # fmt: skip
            rows += [
                head | {"kind": "register", "obis": str(each.obis), "value": str(each.value), "time": time(END_S)}
                for each in found.registers
            ]
            rows += [
                head | {"kind": "value", "obis": profile.obis, "value": str(each.value), "time": time(each.at_s)}
                for each in found.rows
            ]
    return rows


def profiles(plan: Plan, name: str) -> ProfileSet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("loadtest.month.plan.x509.load_pem_x509_certificates", lambda _: [Certificate()])
        patch.setattr("loadtest.month.plan.text_of", lambda _: "AAAA")
        patch.setattr(Path, "read_bytes", lambda _: b"")
        text = json.dumps(plan.template()).replace("{gateway}", name).replace("{number}", name[-8:])
    return ProfileSet.from_bytes(text.encode())


class Certificate:
    def fingerprint(self, _: Any) -> bytes:
        return bytes(32)


def time(at_s: int) -> str:
    return np.datetime_as_string(np.datetime64(at_s, "s")) + "Z"


def changed(rows: list[Row], index: int, **what: str) -> list[Row]:
    return [*rows[:index], rows[index] | what, *rows[index + 1 :]]


def test_what_use_cases_derive_is_what_the_judge_wants(exported: list[Row]) -> None:
    judge = Judge(TRUTH)
    assert judge.take_all(exported) == []
    assert judge.rows == len(exported) == 2 * (3 + 4 + 11 + COUNT + 1)


def test_the_judge_finds_a_wrong_a_missing_and_a_second_value(exported: list[Row]) -> None:
    last = len(exported) - 1
    value = str(int(exported[last]["value"]) + 1)
    listed = next(index for index, each in enumerate(exported) if each["kind"] == "value")
    for rows, told in (
        (changed(exported, last, value=value), "1 values are not what the meter had"),
        (exported[:-1], "1 values are not what the meter had"),
        (changed(exported, listed, valid="0"), "not for billing"),
        (changed(exported, listed, billable="0"), "not for billing"),
        ([*exported[: listed + 1], exported[listed], *exported[listed + 1 :]], "twice"),
    ):
        (only,) = Judge(TRUTH).take_all(rows)
        assert told in only


def test_the_judge_finds_a_missing_and_a_second_delivery(exported: list[Row]) -> None:
    deliveries = [list(rows) for _, rows in groupby(exported, key=lambda each: each["delivery"])]
    assert Judge(TRUTH).take_all(exported[len(deliveries[0]) :]) == ["estk0000000000.sm TAF 1: no delivery"]
    again = [each | {"delivery": "another id"} for each in deliveries[0]]
    (told,) = Judge(TRUTH).take_all([*exported, *again])
    assert "a second one" in told
    (told,) = Judge({"ESTK0000000001": TRUTH["ESTK0000000001"]}).take_all(exported)[:1]
    assert "nobody waits for" in told


def test_the_last_rounds_of_the_meters_go_on_where_the_month_stands(plan: Plan) -> None:
    homes = plan.households()
    first = plan.settings.first_index
    for home in homes[:4]:
        month = registers_of(home)
        for window in (0, 1, plan.settings.rounds):  # the meters' quarter hour of a round's registration time
            q = plan.schedule.quarter_hour(window)
            assert home.registers(q).import_tenth_wh == 10 * month[first + window]
        assert home.start_quarter_hour == FIRST_QUARTER_HOUR + first - 1
        assert (np.diff(month) >= 0).all()
    assert len({registers_of(home)[0] for home in homes}) == len(homes)


def test_a_run_that_was_broken_off_keeps_time_and_addresses(tmp_path: Path) -> None:
    settings = MonthSettings(tmp_path, gateways=24)
    plan = Plan.make(settings)
    plan.is_over, plan.tokens, plan.figures = True, {"Nord": "stk_1"}, {"fill_s": 1.5}
    plan.save()
    assert (tmp_path / "plan.json").stat().st_mode & 0o777 == 0o600
    assert Plan.load(settings) == plan
    with pytest.raises(StromkreisError, match="other settings"):
        Plan.load(replace(settings, gateways=25))
    assert Plan.load(MonthSettings(tmp_path / "elsewhere")) is None


def test_the_best_rate_is_over_ten_seconds() -> None:
    assert best_rate([]) == 0
    assert best_rate([0.1 * index for index in range(200)]) == pytest.approx(10, abs=0.1)
    assert best_rate([0.0, *(20 + 0.01 * index for index in range(1_000)), 60.0]) == pytest.approx(100, rel=0.02)


def test_a_report_says_why_a_month_failed(tmp_path: Path) -> None:
    report = MonthReport(
        gateways=2, tafs=(1, 7), rounds=96, period_s=2, cpu_count=2, fill_s=1, roll_out_s=1, deliver_s=10,
        deliveries=4, deliveries_per_s=0.4, deliveries_per_s_best=1, coordinator_cpu_ms_per_delivery=20, export_s=1,
        values=5968, mistakes=(), kills=("node-3",), cuts=1, rings_opened=190, rings_void=2, rings_are_exact=True,
        rings_difference="", round_ms_p50_before=100, round_ms_p95_before=200, round_ms_p50_delivering=None,
        round_ms_p95_delivering=None, ring_octets_per_gateway_round=1000, delivery_octets_per_gateway=31_000,
        message_octets_per_gateway=20_000, profile_octets_per_gateway=5_000, contract_mb_per_month=5,
    )  # fmt: skip
    assert report.failures == []
    text = write_report(report, tmp_path)
    assert "97.0 kB a gateway and day" in text
    assert json.loads((tmp_path / "report.json").read_text())["octets_per_gateway_day"] == 97_000
    for change, told in (
        ({"mistakes": ("a", "b")}, "a"), ({"deliveries": 3}, "3 deliveries"), ({"values": 0}, "no values"),
        ({"rings_are_exact": False, "rings_difference": "slot 1"}, "slot 1"), ({"rings_opened": 3}, "3 of 5"),
    ):  # fmt: skip
        failed = replace(report, **change)
        assert told in failed.failures[0]
        assert "FAILED" in write_report(failed, tmp_path)
