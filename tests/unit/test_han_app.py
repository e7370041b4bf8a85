"""The bounds of the home's web application: time, bodies, defects; on a clock of the test's own."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
import trio
import trio.testing

from node.han.accounts import Account, Role
from node.han.api import HanAnswer, HanRequest
from node.han.app import ANSWER_S, BODY_S, REQUESTS_MAX, HanApplication
from node.han.login import LoginRequest
from node.han.page import Page

ACCOUNT = Account("anna", Role.CONSUMER)


class Login:
    """Lets everybody in."""

    def identify(self, _request: LoginRequest) -> Account:
        return ACCOUNT


class Api:
    """Answers as the test says; counts how many are under way."""

    def __init__(self) -> None:
        self.takes_s = 0.0
        self.fails = False
        self.under_way = self.most = 0

    async def answer(self, request: HanRequest) -> HanAnswer:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await trio.sleep(self.takes_s)
        finally:
            self.under_way -= 1
        if self.fails:
            raise ValueError("10096 Wh")
        return HanAnswer(200, request.body or b"{}", "application/json")


async def ask(api: Api, body: list[bytes] | None = None, gap_s: float = 0.0, **headers: str) -> tuple[int, Any]:
    application = HanApplication(Login(), api, Page(), lambda: 0.0)  # type: ignore[arg-type]
    parts = list(body or [])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await trio.sleep(gap_s)
        if body is None or not parts:
            await trio.sleep_forever()
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Any) -> None:
        sent.append(message)

    encoded = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http", "method": "GET" if body is None else "POST", "path": "/smgw/", "raw_path": b"/smgw/",
        "query_string": b"", "headers": encoded, "client": ("192.0.2.1", 1),
    }  # fmt: skip
    await application(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


async def test_an_answer_that_takes_too_long_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    api = Api()
    api.takes_s = 60
    started_s = trio.current_time()
    status, content = await ask(api)
    assert (status, content["reason"]) == (503, "busy")
    assert trio.current_time() - started_s == pytest.approx(ANSWER_S)
    assert ANSWER_S < 20


async def test_a_body_that_trickles_in_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    status, content = await ask(Api(), [b"a"] * 100, gap_s=1, content_length="100")
    assert (status, content["reason"]) == (408, "slow")
    assert BODY_S < ANSWER_S


async def test_a_body_in_parts_is_put_together() -> None:
    assert await ask(Api(), [b'{"a"', b":1}"], content_length="7") == (200, {"a": 1})


async def test_a_body_without_a_length_or_with_too_much_of_it_is_refused() -> None:
    assert (await ask(Api(), [b"{}"]))[0] == 411
    assert (await ask(Api(), [b"{}"], content_length="70000"))[0] == 413
    assert (await ask(Api(), [b"{}"], content_length="-1"))[0] == 413


async def test_only_so_many_requests_are_under_way(autojump_clock: trio.testing.MockClock) -> None:
    api = Api()
    api.takes_s = 5
    application = HanApplication(Login(), api, Page(), lambda: 0.0)  # type: ignore[arg-type]
    statuses: list[int] = []

    async def one() -> None:
        async def send(message: Any) -> None:
            statuses.append(message.get("status", 0))

        scope: dict[str, Any] = {
            "type": "http", "method": "GET", "path": "/smgw/", "raw_path": b"/smgw/", "query_string": b"",
            "headers": [], "client": None,
        }  # fmt: skip
        await application(scope, trio.sleep_forever, send)

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(one)
    assert api.most == REQUESTS_MAX
    assert {200, 503} == set(statuses) - {0}


async def test_a_request_ends_with_its_session(autojump_clock: trio.testing.MockClock) -> None:
    api = Api()
    api.takes_s = 1_000
    application = HanApplication(Login(), api, Page(), lambda: 0.0)  # type: ignore[arg-type]
    is_gone = trio.Event()

    async def receive() -> dict[str, Any]:
        await is_gone.wait()
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None:
        pass

    scope: dict[str, Any] = {
        "type": "http", "method": "GET", "path": "/smgw/", "raw_path": b"/smgw/", "query_string": b"", "headers": [],
        "client": None,
    }  # fmt: skip
    async with trio.open_nursery() as nursery:
        nursery.start_soon(application, scope, receive, send)
        await trio.testing.wait_all_tasks_blocked()
        assert api.under_way == 1
        gone_s = trio.current_time()
        is_gone.set()
    assert api.under_way == 0
    assert trio.current_time() == gone_s


async def test_a_defect_costs_its_answer_and_shows_no_value(caplog: pytest.LogCaptureFixture) -> None:
    api = Api()
    api.fails = True
    with caplog.at_level(logging.DEBUG):
        status, content = await ask(api)
    assert (status, content["reason"]) == (500, "internal")
    assert "10096" not in caplog.text + json.dumps(content)
    assert "ValueError" in caplog.text
