"""Programs of others that people run at home read a gateway over HTTPS, and what they read is what the meter said."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio

from node.han.accounts import Account
from protocol.profiles.calendar import LEGAL_TIME
from tests.integration.han_home import ANNA, BEN, GATEWAY, METERS, NOW_S, QUARTER_S, Home, consumer
from tests.integration.han_profiles import profile_document
from tests.interop.han_peers import PPC, PPC_PROGRAM, THEBEN, THEBEN_PROGRAM, read

NEWEST = NOW_S // QUARTER_S * QUARTER_S
ALL = frozenset({"ppc", "theben", "emh"})
IMPORTED, EXPORTED = 1_009_600, 144_228  # of the first meter, in tenths of Wh


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    accounts: tuple[Account, ...] = (consumer(*ANNA, 0), consumer(*BEN, 1))
    made = Home(tmp_path, tuple(replace(each, facades=ALL) for each in accounts))
    with trio.fail_after(300):
        async with made.serving():
            yield made
    made.keys.close()


async def test_py_ppc_smgw_reads_what_the_meter_said(home: Home) -> None:
    found = await read(PPC, PPC_PROGRAM, home.address, ANNA)
    name = f"01005e318002.{METERS[0]}.sm"
    assert found["meters"] == [name]
    shown = found["readings"][name]
    assert {obis.partition("*")[0]: Decimal(value) * 10_000 for obis, (value, _) in shown.items()} == {
        "1-0:1.8.0": IMPORTED, "1-0:2.8.0": EXPORTED,
    }  # fmt: skip
    at = datetime.fromtimestamp(NEWEST, LEGAL_TIME).replace(tzinfo=None).isoformat()
    assert [moment for _, moment in shown.values()] == [at, at]
    assert found["profile"][:3] == [METERS[0], 900, True]
    assert found["is_out"]


async def test_py_ppc_smgw_reads_each_value_of_an_hour(home: Home) -> None:
    found = await read(PPC, PPC_PROGRAM, home.address, BEN, "2026-11-30 00:00:00", "2026-11-30 01:00:00")
    at_s = int(datetime(2026, 11, 30, tzinfo=LEGAL_TIME).timestamp())
    first = 10 * (IMPORTED - 50 * (NEWEST - at_s) // QUARTER_S)
    imported = [each for each in found["entries"] if each[0].startswith("1-0:1.8.0")]
    assert [each[1] for each in imported] == [first + 500 * index for index in range(5)]
    assert {tuple(each[2:5]) for each in imported} == {(-1, 30, 0)}
    assert datetime.fromisoformat(imported[0][5]).timestamp() == at_s
    components = {component: version for component, version, _ in found["versions"]}
    assert components["stromkreis"] == "1.2.3"
    assert int(components["smgw-bootstream"]) >= 24052  # which display software of the PTB asks for
    assert int(components["smgw-services"]) >= 25334


async def test_theben_conexa_smgw_reads_what_the_meter_said(home: Home) -> None:
    found = await read(THEBEN, THEBEN_PROGRAM, home.address, ANNA)
    assert found["info"]["smgwID"] == GATEWAY.lower()
    assert found["info"]["firmwareVersion"] == "1.2.3"
    assert found["url"].endswith("/smgw/m2m/anna.sm/json")
    assert as_read(found) == {"0100010800ff": IMPORTED, "0100020800ff": EXPORTED}


async def test_both_read_under_profiles_of_the_administrator(tmp_path: Path) -> None:
    document = profile_document()
    for each in document["han"]:
        each["facades"] = ["ppc", "theben"]
    home = Home(tmp_path, (), profiles_document=document)
    async with home.serving():
        theben = await read(THEBEN, THEBEN_PROGRAM, home.address, BEN)
        ppc = await read(PPC, PPC_PROGRAM, home.address, BEN)
    home.keys.close()
    assert as_read(theben) == {"0100010800ff": 10 * IMPORTED, "0100020800ff": 10 * IMPORTED // 7}
    assert ppc["meters"] == [f"01005e318002.{METERS[1]}.sm"]


def as_read(found: Any) -> dict[str, Decimal]:
    """Values of theben-conexa-smgw, in tenths of Wh."""
    assert {each["unit"] for each in found["values"].values()} == {"Wh"}
    return {obis: Decimal(each["value"]) * 10 for obis, each in found["values"].items()}
