"""Use cases that run: each billing period derived once whatever kills the process, equal to the meter's own truth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from node.storage.errors import StoreError
from node.storage.repositories.profile_sets import ProfileSetRepository
from node.storage.repositories.use_cases import UseCaseRepository, decode_result, encode_result
from node.taf.spans import first_start
from protocol.cosem.delivery import PeriodResult, Row
from protocol.metering.obis import Obis
from protocol.profiles.profile_set import ProfileSet
from tests.integration.closing_gateway import (
    GATEWAY,
    LATE,
    METER,
    MISSING,
    MONTH_COUNT,
    OCTOBER_S,
    truth,
)

_ROOT = Path(__file__).parents[2]
POINT = "DE0001234567890123456789012345678"
NOVEMBER_S = OCTOBER_S + MONTH_COUNT * 900
DAY = {"id": "d", "switches": [{"at": "00:00", "stage": 1}, {"at": "06:00", "stage": 2}, {"at": "22:00", "stage": 1}]}
CALENDAR = {"day_profiles": [DAY], "seasons": [{"begins": "01-01", "weekdays": ["d"] * 7}]}
PAID = 10**9
CASES: dict[str, dict[str, Any]] = {
    "t1": {"taf": 1}, "t2": {"taf": 2, "calendar": CALENDAR}, "t6": {"taf": 6, "days": 10}, "t7": {"taf": 7},
    "t5": {
        "taf": 5, "default_stage": 1, "stages": [1, 2], "event_sources": ["emp"],
        "events": [{"at": "2026-10-11T22:07:00Z", "stage": 2, "source": "emp"}],
    },
    "t12": {
        "taf": 12, "calendar": CALENDAR, "price_scaler": -5, "prices": {"1": 3, "2": 5}, "warning_credit": 0,
        "paid_credit": PAID,
    },
}  # fmt: skip


def profile_set(**changed: Any) -> ProfileSet:
    timed = {"valid_from": "2026-01-01T00:00:00Z"}
    recipients = [
        {"participant": "emp", "communication": "w1", "delivery": "direct"},
        {"participant": "grid", "communication": "w1", "delivery": "pseudonymous"},
        {"participant": "ring", "communication": "w1", "delivery": "aggregated"},
    ]
    made = {
        "gateway": GATEWAY, "version": 1, "issued_at": "2026-10-05T00:00:00Z",
        "meters": [timed | {"id": "m1", "device": METER, "protocol": "sml", "registers": ["1-0:1.8.0*255"]}],
        "processing": [timed | {
            "id": name, "metering_point": POINT, "obis": "1-0:1.8.0*255", "scaler": -1, "meters": [{"meter": "m1"}],
            "use_case": case, "billing_period": {"begins": "2026-01-01T00:00:00+01:00", "months": 1},
            "recipients": recipients,
        } | changed for name, case in CASES.items()],
        "wan": [timed | {
            "id": "w1", "role": "participant", "uri": "https://localhost:7", "tls_certificate": "00" * 32,
            "encryption_certificate": "00" * 32, "signature_certificate": "00" * 32,
        }],
    }  # fmt: skip
    return ProfileSet.from_bytes(json.dumps(made).encode())


def run(directory: Path, stage: str) -> int:
    arguments = [sys.executable, "-m", "tests.integration.closing_gateway", str(directory), stage]
    environment = {"PYTHONPATH": str(_ROOT), "PATH": os.environ["PATH"]}
    return subprocess.run(arguments, cwd=_ROOT, env=environment, timeout=300, check=False).returncode


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a month of quarter hours and a profile set."""
    directory = tmp_path_factory.mktemp("month")
    assert run(directory, "fill") == 0

    async def add() -> None:
        store = Store(directory / "registers.sqlite", StorageCipher(bytes(32)))
        async with store.writing():
            await store.write(ProfileSetRepository(store).add(GATEWAY, 1, profile_set().to_bytes()))
        store.close()

    trio.run(add)
    return directory


def derived(directory: Path) -> tuple[dict[str, PeriodResult], list[tuple[str, str, str]]]:
    store = Store(directory / "registers.sqlite", StorageCipher(bytes(32)))
    try:
        repository = UseCaseRepository(store)
        assert set(repository.next_starts(GATEWAY).values()) == {NOVEMBER_S}
        found = {}
        for name in CASES:
            assert repository.closed(GATEWAY, name) == [OCTOBER_S]
            result = repository.result(GATEWAY, name, OCTOBER_S)
            assert result is not None
            found[name] = result
        waiting = repository.waiting(GATEWAY)
        assert len({each.id for each in waiting}) == len(waiting)
        return found, sorted((each.profile, each.participant, each.delivery) for each in waiting)
    finally:
        store.close()


@pytest.mark.parametrize("stage", ["before", "after", "never"])
def test_periods_are_derived_once_when_the_process_is_killed(month: Path, tmp_path: Path, stage: str) -> None:
    for each in month.glob("registers.sqlite*"):
        (tmp_path / each.name).write_bytes(each.read_bytes())
    assert run(tmp_path, stage) == (0 if stage == "never" else -9)
    assert run(tmp_path, "never") == 0
    assert run(tmp_path, "never") == 0
    found, waiting = derived(tmp_path)
    assert waiting == [
        (name, participant, form)
        for name in sorted(CASES)
        for participant, form in (("emp", "direct"), ("grid", "pseudonymous"))
    ]
    registers = np.array(truth())
    broken = MISSING | LATE
    assert dict(found["t1"].registers)[found["t1"].obis] == registers[MONTH_COUNT] - registers[0]
    assert [each.at_s for each in found["t1"].rows] == [OCTOBER_S, NOVEMBER_S]
    assert not found["t1"].is_complete
    rows = {each.at_s: each for each in found["t7"].rows}
    assert {(at_s - OCTOBER_S) // 900: each.value for at_s, each in rows.items()} == {
        index: int(registers[index]) for index in range(MONTH_COUNT + 1) if index not in MISSING
    }
    assert [each.at_s for each in rows.values() if not each.is_valid] == [OCTOBER_S + index * 900 for index in LATE]
    energies, stages = np.diff(registers)[:MONTH_COUNT], stages_by_hand(broken)
    wanted = {stage: int(energies[stages == stage].sum()) for stage in (1, 2, 63)}
    assert {obis.e: value for obis, value in found["t2"].registers} == wanted | {0: int(energies.sum())}
    later = np.arange(MONTH_COUNT) * 900 + OCTOBER_S >= datetime(2026, 10, 11, 22, 7, tzinfo=UTC).timestamp()
    by_event = np.where(stages == 63, 63, np.where(later, 2, 1))
    wanted = {stage: int(energies[by_event == stage].sum()) for stage in (1, 2, 63)}
    assert {obis.e: value for obis, value in found["t5"].registers} == wanted | {0: int(energies.sum())}
    used = sum(int(energies[stages == stage].sum()) * price for stage, price in ((1, 3), (2, 5)))
    assert [each.value for each in found["t12"].details] == [10 * PAID - used, 10 * PAID]  # in tenths, as the register
    midnights = [NOVEMBER_S - day * 86_400 - (3_600 if day >= 7 else 0) for day in range(10, -1, -1)]  # one of 25 hours
    assert [each.at_s for each in found["t6"].rows] == midnights


def stages_by_hand(broken: frozenset[int]) -> Any:
    """By the clock on the wall, summer time up to 25 October 01:00 UTC; 63 where an end has no valid value."""
    change_s = int(datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp())
    stages = []
    for index in range(MONTH_COUNT):
        at_s = OCTOBER_S + index * 900
        hour = (at_s // 3_600 + (2 if at_s < change_s else 1)) % 24
        stages.append(63 if {index, index + 1} & broken else 2 if 6 <= hour < 22 else 1)
    return np.array(stages)


def test_a_closed_period_cannot_be_closed_again(tmp_path: Path) -> None:
    obis = Obis(1, 0, 1, 8, 0, 255)
    result = PeriodResult(
        "p", 1, POINT, obis, 0, 30, 900, 0, 900, is_complete=True, is_billable=True, registers=((obis, 5),),
        rows=(Row(0, 1), Row(900, 6, is_valid=False, status=7)),
    )  # fmt: skip
    assert decode_result(encode_result(result)) == result

    async def close_twice() -> None:
        store = Store(tmp_path / "registers.sqlite", StorageCipher(bytes(32)))
        repository = UseCaseRepository(store)
        async with store.writing():
            await store.write(repository.close(GATEWAY, result, []))
            with pytest.raises(StoreError, match="contradicts"):
                await store.write(repository.close(GATEWAY, result, []))
        assert repository.result(GATEWAY, "p", 0) == result
        store.close()

    trio.run(close_twice)


@pytest.mark.parametrize(
    ("valid_from", "first"),
    [("2026-01-01T00:00:00Z", "2026-10-01T00:00:00+02:00"), ("2026-10-02T00:00:00Z", "2026-11-01T00:00:00+01:00")],
)
def test_the_first_period_begins_while_the_profile_is_valid(valid_from: str, first: str) -> None:
    profiles = profile_set(valid_from=valid_from)
    assert first_start(profiles.processing[0], profiles.issued_at) == datetime.fromisoformat(first).timestamp()
