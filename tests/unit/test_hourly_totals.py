"""Totals of gas, heat and water: what hourly profiles let in, and what a gateway contributes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from node.metering.entries import LoggedReading
from node.profiles.contribution_rule import MeterRegister
from protocol import wire
from protocol.dcnet.setup.epoch import Policy, check_call
from protocol.dcnet.setup.schema import GAS_SCHEMA, HEAT_SCHEMA, WATER_SCHEMA, Schema, signed
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality
from protocol.metering.units import unit_code
from tests.unit.profiled_account import (
    DAY_S,
    GATEWAY,
    PARTICIPANT,
    InForce,
    account_in,
    call,
    processing,
    profile_set,
    rule_of,
)

METER = f"{GATEWAY}/0"
MEDIA = pytest.mark.parametrize("schema", [GAS_SCHEMA, HEAT_SCHEMA, WATER_SCHEMA], ids=["gas", "heat", "water"])


def register_of(schema: Schema) -> Obis:
    return Obis.parse(schema.slots[1].obis or "")


def for_participant(schema: Schema) -> Schema:
    count, register = schema.slots
    return Schema((count, replace(register, recipients=(PARTICIPANT,))))


def hourly(schema: Schema) -> InForce:
    obis = register_of(schema)
    profile = processing(obis, registration_period_s=3_600)
    return InForce(profile_set(profile, meters=1, registers=[str(obis)]))


def hourly_call(schema: Schema) -> wire.EpochCall:
    return replace(call(0, for_participant(schema)), period_ms=3_600_000, interval_s=3_600)


@MEDIA
def test_an_hourly_profile_lets_its_register_into_hourly_totals_alone(schema: Schema) -> None:
    rule, named = rule_of(hourly(schema), meters=1), for_participant(schema)
    assert rule.select(named, 3_600, DAY_S, DAY_S + 57_600).registers == {MeterRegister(METER, register_of(schema))}
    with pytest.raises(RemoteProtocolError, match="unprofiled_register"):
        rule.select(named, 900, DAY_S, DAY_S + 14_400)


@MEDIA
async def test_a_gateway_contributes_what_was_used_in_the_hour(tmp_path: Path, schema: Schema) -> None:
    called = hourly_call(schema)
    check_call(called, Policy())
    slot = schema.slots[1]
    async with account_in(tmp_path, hourly(schema), meters=1) as account:
        await account.ring.use(called)
        for hour, value in ((0, 500_000), (1, 501_234)):
            at_s = DAY_S + hour * 3_600
            account.clock.now_s = at_s + 5.0
            await account.metering.append([
                LoggedReading(
                    METER, register_of(schema), value, slot.scaler, unit_code(slot.unit), None, at_s * 1000,
                    at_s * 1000, at_s, 0, True, Quality.VALID,
                )
            ])  # fmt: skip
        mine, view = account.ring.contributions, SimpleNamespace(epoch=0, size=8, noise=(), committed=(), bits=())
        assert mine is not None
        built: Any = mine.build(view, 1, account.published[-1], length_s=3_600)  # type: ignore[arg-type]
    assert [signed(int(each)) for each in built.vector] == [1, 1_234]
