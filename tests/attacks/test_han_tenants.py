"""Whoever has moved in asks the gateway for the values of the household before, whose meter it was."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import trio

from node.han.digest import Algorithm, make_verifier
from node.taf.use_cases import UseCases
from protocol.logs.events import Event
from tests.integration.han_home import ANNA, METERS, NOW_S, POINT, QUARTER_S, REALM, Home
from tests.integration.han_profiles import profile_document

CON = "/smgw/con/v1"
NEWEST = NOW_S // QUARTER_S * QUARTER_S
MOVED_S = NEWEST - 12 * 3600
CARL = "carl", "staple battery 3"


def iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat()


def lives(name: str, login: tuple[str, str], begin_s: float, end_s: float | None = None) -> dict[str, Any]:
    user, password = login
    return {
        "id": f"h-{name}", "role": "consumer", "user": user, "metering_points": [POINT], "valid_from": iso(begin_s),
        "valid_to": None if end_s is None else iso(end_s), "facades": ["theben", "ppc", "emh"],
        "ha1_sha256": make_verifier(user, REALM, password)[Algorithm.SHA256],
    }  # fmt: skip


def home_of(path: Path, *han: dict[str, Any]) -> Home:
    return Home(path, (), profiles_document=profile_document(han=list(han)))


async def times(client: httpx.AsyncClient, path: str, name: str) -> list[float]:
    answer = await client.get(f"{path}?q.fromtime={iso(NEWEST - 86_400).replace('+00:00', 'Z')}")
    assert answer.status_code == 200, answer.text
    return [datetime.fromisoformat(each[name]).timestamp() for each in answer.json()["data"]["records"]]


async def test_who_has_moved_in_sees_nothing_of_the_household_before(tmp_path: Path) -> None:
    made = home_of(tmp_path, lives("a", ANNA, 0, MOVED_S), lives("c", CARL, MOVED_S))
    with trio.fail_after(300):
        async with made.serving(days=1):
            assert made.log is not None
            assert made.metering is not None
            assert made.facts is not None
            made.now_s = MOVED_S - 3600
            made.log.note(Event.MEASUREMENT_RESUMED)
            made.now_s = NOW_S
            made.log.note(Event.MEASUREMENT_SUSPENDED)
            profiles: Any = made.facts.profiles
            use_cases = UseCases(
                made.metering, profiles, made.use_cases, made.module, lambda: NEWEST, lambda: NOW_S, lambda: None
            )
            await use_cases.close_due()
            async with made.client(CARL) as client:
                registered = await times(client, f"{CON}/exp/Reading/{METERS[0]}", "registered_for")
                begun = await times(client, f"{CON}/exp/Interval/{METERS[0]}", "start")
                assert min(registered) == min(begun) == MOVED_S
                assert max(registered) == NEWEST
                periods = (await client.get(f"{CON}/rts/Registers/p0-pseudonymous")).json()["periods"]
                assert [each for each in periods if datetime.fromisoformat(each["start"]).timestamp() < MOVED_S] == []
                logged: list[int] = []
                while 2004 not in logged:  # written after the other
                    found = (await client.get(f"{CON}/exp/ConsumerLog/{CARL[0]}")).json()["data"]["records"]
                    logged = [each["type"] for each in found]
                assert 2005 not in logged
                asked = {
                    "method": "readings", "usage-point-id": f"{POINT}.taf7", "fromtime": iso(NEWEST - 86_400),
                    "totime": iso(NEWEST),
                }  # fmt: skip
                answer = (await client.post(f"/smgw/m2m/{CARL[0]}.sm/json", json=asked)).json()
                channels = answer["readings"]["channels"]
                shown = [each["target-time"] for channel in channels for each in channel["readings"]]
                assert min(map(datetime.fromisoformat, shown)).timestamp() == MOVED_S
            async with made.client(ANNA) as client:
                assert (await client.get(f"{CON}/rts/")).status_code == 401
    made.keys.close()


async def test_who_has_come_back_sees_its_own_times_and_none_between(tmp_path: Path) -> None:
    again_s = NEWEST - 4 * 3600
    made = home_of(
        tmp_path, lives("a", ANNA, 0, MOVED_S), lives("c", CARL, MOVED_S, again_s), lives("b", ANNA, again_s)
    )  # fmt: skip
    with trio.fail_after(300):
        async with made.serving(days=1), made.client(ANNA) as client:
            registered = await times(client, f"{CON}/exp/Reading/{METERS[0]}", "registered_for")
            contracts = (await client.get(f"{CON}/rts/Contract/{ANNA[0]}")).json()["contracts"]
    made.keys.close()
    assert [(each["id"], each["is_in_force"]) for each in contracts] == [("h-b", True), ("h-a", False)]
    assert datetime.fromisoformat(contracts[1]["valid_to"]).timestamp() == MOVED_S
    assert min(registered) == NEWEST - 86_400
    assert [each for each in registered if MOVED_S < each < again_s] == []
    assert max(registered) == NEWEST


async def test_a_renewed_profile_of_the_same_consumer_hides_nothing(tmp_path: Path) -> None:
    made = home_of(tmp_path, lives("a", ANNA, 0, MOVED_S), lives("b", ANNA, MOVED_S))
    with trio.fail_after(300):
        async with made.serving(days=1), made.client(ANNA) as client:
            registered = await times(client, f"{CON}/exp/Reading/{METERS[0]}", "registered_for")
    made.keys.close()
    assert sorted(set(registered)) == list(range(NEWEST - 86_400, NEWEST + 1, QUARTER_S))
