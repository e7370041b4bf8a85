"""Accounts and audit log over REST and commands: who may what, who is logged out, what is written before it is done."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from coordinator.gwa import accounts
from coordinator.gwa.accounts import BOOTSTRAP
from coordinator.storage.tables import audit_log
from loadtest.network import Network
from protocol.audit import check_chain
from stromkreis.__main__ import build
from tests.integration.gwa_world import HEADERS, ONE, World, client_of, world_in

PASSWORD = "correct horse battery"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as made:
        yield made


async def account(client: httpx.AsyncClient, name: str, role: str) -> dict[str, str]:
    """A new account that is logged in: the headers of its requests."""
    body = {"name": name, "role": role, "password": PASSWORD}
    assert (await client.post("/api/v1/accounts", json=body, headers=HEADERS)).status_code == 201
    return await log_in(client, name)


async def log_in(client: httpx.AsyncClient, name: str, password: str = PASSWORD) -> dict[str, str]:
    answer = await client.post("/api/v1/sessions", json={"name": name, "password": password})
    assert answer.status_code == 201, answer.text
    return {"Authorization": f"Bearer {answer.json()['token']}"}


def actions(world: World) -> list[tuple[str, str]]:
    entries = world.coordinator.audit.page(0, 1000)
    check_chain(entries)
    return [(entry.account, entry.action) for entry, _ in entries]


async def test_each_role_may_what_it_may_and_no_more(world: World) -> None:
    document = json.dumps(world.document(ONE))
    async with client_of(world) as client:
        everybody = {role: await account(client, role, role) for role in ("viewer", "operator", "administrator")}
        requests: list[tuple[str, str, dict[str, Any], int]] = [
            ("GET", "/api/v1/profile-sets", {}, 3),
            ("POST", "/api/v1/profile-sets", {"content": document}, 2),
            ("GET", f"/api/v1/profile-sets/{ONE}", {}, 2),
            ("GET", "/api/v1/accounts", {}, 1),
            ("GET", "/api/v1/audit-log", {}, 1),
            ("PATCH", "/api/v1/accounts/viewer", {"json": {"disabled": False}}, 1),
        ]
        for method, path, how, allowed in requests:
            answers = [await client.request(method, path, headers=each, **how) for each in everybody.values()]
            assert [each.is_success for each in answers] == [False] * (3 - allowed) + [True] * allowed, path
            assert {(each.status_code, each.json()["reason"]) for each in answers[: 3 - allowed]} <= {
                (403, "role_too_low")
            }
            nobody = await client.request(method, path, **how)
            assert (nobody.status_code, nobody.json()["reason"]) == (401, "not_logged_in")


async def test_what_was_asked_for_is_in_the_log_and_what_was_refused(world: World) -> None:
    async with client_of(world) as client:
        viewer, operator = await account(client, "vera", "viewer"), await account(client, "olaf", "operator")
        for each in (viewer, operator):
            await client.post("/api/v1/profile-sets", content=json.dumps(world.document(ONE)), headers=each)
        await client.get("/api/v1/profile-sets", headers=viewer)  # whoever only looks is not in it
    assert actions(world) == [
        (BOOTSTRAP, "create_account"), ("vera", "log_in"), (BOOTSTRAP, "create_account"), ("olaf", "log_in"),
        ("vera", "refused: roll_out_profiles"), ("olaf", "roll_out_profiles"),
    ]  # fmt: skip


async def test_nothing_is_done_that_cannot_be_written_down(world: World) -> None:
    async with client_of(world) as client:
        operator = await account(client, "olaf", "operator")

        def fail(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if statement.startswith("INSERT INTO audit_log"):
                raise DBAPIError(statement, None, sqlite3.OperationalError("disk full"))

        engine = world.coordinator.database.engine
        event.listen(engine, "before_cursor_execute", fail)
        document = json.dumps(world.document(ONE))
        answer = await client.post("/api/v1/profile-sets", content=document, headers=operator)
        event.remove(engine, "before_cursor_execute", fail)
    assert answer.status_code == 503
    assert world.coordinator.profile_sets.newest(ONE) is None


async def test_the_database_refuses_to_change_an_entry(world: World) -> None:
    async with client_of(world) as client:
        await account(client, "olaf", "operator")
    for statement in (audit_log.update().values(account="nobody"), audit_log.delete()):
        with pytest.raises(DBAPIError, match="append-only"), world.coordinator.database.write() as connection:
            connection.execute(statement)
    assert len(actions(world)) == 2


async def test_a_session_ends_by_time_by_log_out_and_by_a_change(world: World) -> None:
    async with client_of(world) as client:

        async def works(headers: dict[str, str]) -> bool:
            return (await client.get("/api/v1/profile-sets", headers=headers)).is_success

        first = await account(client, "olaf", "operator")
        second = await log_in(client, "olaf")
        assert (await client.delete("/api/v1/sessions", headers=first)).status_code == 204
        assert [await works(each) for each in (first, second)] == [False, True]
        changes: list[dict[str, Any]] = [{"role": "viewer"}, {"password": "another long password"}, {"disabled": True}]
        for change in changes:
            assert await works(second)
            await client.patch("/api/v1/accounts/olaf", json=change, headers=HEADERS)
            assert not await works(second)
            if "disabled" not in change:
                second = await log_in(client, "olaf", change.get("password", PASSWORD))
        again = await client.post("/api/v1/sessions", json={"name": "olaf", "password": "another long password"})
        assert again.status_code == 401
        await client.patch("/api/v1/accounts/olaf", json={"disabled": False}, headers=HEADERS)
        second = await log_in(client, "olaf", "another long password")
        world.now += timedelta(hours=13)
        assert not await works(second)
        await log_in(client, "olaf", "another long password")
    assert world.coordinator.accounts.session_count() == 1  # those that are over do not stay


async def test_a_password_that_is_changed_while_it_is_judged_lets_nobody_in(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change ends all sessions; one for the old password that began just then would live for 12 hours."""
    async with client_of(world) as client:
        await account(client, "olaf", "operator")
        judge = accounts._verify

        def judge_slowly(hashed: str, password: str) -> bool:
            is_right = judge(hashed, password)
            world.coordinator.accounts.change("olaf", password="another hash")
            return is_right

        monkeypatch.setattr(accounts, "_verify", judge_slowly)
        answer = await client.post("/api/v1/sessions", json={"name": "olaf", "password": PASSWORD})
    assert (answer.status_code, answer.json()["reason"]) == (401, "wrong_password")
    assert world.coordinator.accounts.session_count() == 0


async def test_nothing_is_done_that_an_entry_has_no_room_for(world: World) -> None:
    """Cut off, it would not say whose values of which time were read."""
    padding = "a" * 200
    async with client_of(world) as client:
        operator = await account(client, "olaf", "operator")
        answer = await client.get(f"/api/v1/profile-sets/{ONE}?x={padding}&y=1", headers=operator)
        assert (answer.status_code, answer.json()["reason"]) == (422, "subject_size")
        viewer = await account(client, "vera", "viewer")
        await client.patch("/api/v1/accounts/%5Bred%5D%0A9%1B%5B2K?q=[/b]", json={}, headers=viewer)
    entries = [entry for entry, _ in world.coordinator.audit.page(0, 100)]
    assert "export_profiles" not in {each.action for each in entries}
    assert entries[-1].subject == "%5Bred%5D%0A9%1B%5B2K q=%5B/b%5D"


async def test_who_guesses_waits_and_learns_no_names(world: World) -> None:
    async with client_of(world) as client:
        await account(client, "olaf", "operator")

        async def guess(name: str) -> tuple[int, str]:
            answer = await client.post("/api/v1/sessions", json={"name": name, "password": "wrong"})
            return answer.status_code, answer.json()["reason"]

        for name in ("olaf", "nobody"):
            assert await guess(name) == (401, "wrong_password")
        for _ in range(3):
            last = await guess("olaf")
        assert last == (403, "too_many_failed_logins")
    shown = [entry.account for entry, _ in world.coordinator.audit.page(0, 100) if entry.action == "log_in_failed"]
    assert set(shown) == {"olaf", "(unknown)"}  # what is no name may be a password in the wrong field


async def test_behind_a_proxy_who_guesses_makes_nobody_else_wait(tmp_path: Path) -> None:
    async with world_in(tmp_path, proxies=[ip_network("127.0.0.1")]) as world, client_of(world) as client:
        await account(client, "olaf", "operator")

        async def try_from(forwarded: str, password: str) -> int:
            body = {"name": "olaf", "password": password}
            answer = await client.post("/api/v1/sessions", json=body, headers={"X-Forwarded-For": forwarded})
            return answer.status_code

        assert await try_from("203.0.113.9", PASSWORD) == 201
        found = [await try_from("203.0.113.9, 198.51.100.66", "wrong") for _ in range(8)]
        assert 403 in found  # it cannot name another's address
        assert await try_from("203.0.113.9", PASSWORD) == 201
        entries = [entry for entry, _ in world.coordinator.audit.page(0, 100)]
    assert {each.address for each in entries if each.action == "log_in_failed"} == {"198.51.100.66"}


async def test_a_short_password_and_a_second_account_are_refused(world: World) -> None:
    async with client_of(world) as client:
        for body, reason in (
            ({"name": "olaf", "role": "operator", "password": "short"}, "password_short"),
            ({"name": "olaf", "role": "operator", "password": PASSWORD}, None),
            ({"name": "olaf", "role": "viewer", "password": PASSWORD}, "account_known"),
            ({"name": "(operator.token)", "role": "viewer", "password": PASSWORD}, "invalid_input"),
        ):
            answer = await client.post("/api/v1/accounts", json=body, headers=HEADERS)
            assert answer.json().get("reason") == reason
    with closing(sqlite3.connect(world.path / "coordinator.sqlite")) as connection:
        (kept,) = connection.execute("SELECT password FROM accounts").fetchone()
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,")


async def test_commands_manage_accounts_and_verify_the_log(network: Network, tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        await network.start_coordinator(nursery)
        assert network.coordinator_config is not None
        data = network.coordinator_config.data_dir
        mine = tmp_path / "mine.token"

        async def run(token: Path, *arguments: str) -> tuple[int, str]:
            options = [
                "--coordinator",
                network.web[0],
                "--root",
                str(data / "pki/root.pem"),
                "--token-file",
                str(token),
            ]
            done = await trio.to_thread.run_sync(CliRunner().invoke, build(["gwa"]), ["gwa", *options, *arguments])
            return done.exit_code, f"{done.output}{done.exception or ''}"

        own = data / "operator.token"
        added = await run(own, "accounts", "add", "alice", "--role", "administrator", "--password", PASSWORD)
        assert added == (0, "alice is administrator\n")
        status, told = await run(mine, "accounts", "log-in", "alice", "--password", PASSWORD)
        assert (status, "alice is logged in as administrator" in told) == (0, True)
        assert mine.stat().st_mode & 0o777 == 0o600
        assert "own token" in (await run(own, "accounts", "log-in", "alice", "--password", PASSWORD))[1]
        assert "alice" in (await run(mine, "accounts", "list"))[1]
        status, told = await run(mine, "audit", "verify")
        assert (status, told.startswith("2 entries hold")) == (0, True)
        head = told.split()[-1]
        assert (await run(mine, "accounts", "log-out"))[0] == 0
        assert not mine.exists()
        assert (await run(own, "audit", "verify", "--head", head))[1].startswith("3 entries hold")
        status, told = await run(own, "audit", "verify", "--head", f"9{head}")
        assert (status, "audit_cut" in told) == (1, True)
        nursery.cancel_scope.cancel()
