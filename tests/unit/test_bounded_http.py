"""Answers of the coordinator: read up to their bound and no further, whatever the other end sends."""

import gzip
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import trio
from trio.testing import MockClock

from node.wan.bounded_http import ask
from protocol.errors import RemoteProtocolError


class Parts(httpx.AsyncByteStream):
    """A body that comes in parts of 1,000 bytes, and counts how many were taken."""

    def __init__(self, count: int, pause_s: float = 0.0) -> None:
        self.taken = 0
        self._count = count
        self._pause_s = pause_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self._count):
            await trio.sleep(self._pause_s)
            self.taken += 1
            yield bytes(1000)


def client(answer: Callable[[httpx.Request], httpx.Response]) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="https://c")


async def test_an_answer_within_the_bound_is_as_it_was_sent() -> None:
    async with client(lambda request: httpx.Response(201, json={"asked": request.method})) as there:
        answer = await ask(there, "POST", "/x", json={"a": 1})
    assert (answer.status_code, answer.json()) == (201, {"asked": "POST"})


async def test_an_answer_without_end_is_given_up_at_the_bound() -> None:
    body = Parts(1_000_000)
    async with client(lambda _request: httpx.Response(200, stream=body)) as there:
        with pytest.raises(RemoteProtocolError, match="over 5000 bytes"):
            await ask(there, "GET", "/x", size_max=5000)
    assert body.taken == 6


async def test_a_compressed_answer_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    headers = {"Content-Encoding": "gzip"}
    async with client(lambda _request: httpx.Response(200, headers=headers, content=bomb)) as there:
        with pytest.raises(RemoteProtocolError, match="compressed"):
            await ask(there, "GET", "/x")


async def test_an_answer_that_trickles_ends_like_one_that_never_comes(autojump_clock: MockClock) -> None:
    body = Parts(100, pause_s=1.0)
    async with client(lambda _request: httpx.Response(200, stream=body)) as there:
        with pytest.raises(httpx.ReadTimeout, match="not complete after 60 s"):
            await ask(there, "GET", "/x")
