"""D8 with certified inventions: what a gateway remembers of the enrolment log over restarts, and keeps as evidence."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from node.aggregation.log_check import LogCheck
from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from node.storage.errors import StoreError
from node.storage.repositories.enrolment_log import (
    EVIDENCE_BYTES_MAX,
    EVIDENCE_MAX,
    EnrolmentLogRepository,
    read_evidence,
)
from protocol import wire
from protocol.enrolment_log.entries import Entry, Kind
from protocol.errors import RemoteProtocolError
from tests.unit.test_log_proof import NOW_MS, ROWS, SEED, SUITE, Log, entry_of

ME, OTHER = "ESTK0000000001", "ESTK0000000002"


@asynccontextmanager
async def gateway(path: Path, confirmed: tuple[int, bytes] | None = None) -> AsyncIterator[LogCheck]:
    """One process over the store in `path`."""
    store = Store(path / "registers.sqlite", StorageCipher(bytes(32)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        verify = partial(SUITE.verify, SUITE.verify_key(SEED))
        yield LogCheck(EnrolmentLogRepository(store), verify, lambda: NOW_MS / 1000, confirmed)
        nursery.cancel_scope.cancel()
    store.close()


def honest(count: int = 9) -> Log:
    return Log([*map(entry_of, ROWS), *(Entry(Kind.REVOKED, f"ESTK1{i:09}", bytes(32), i) for i in range(count - 7))])


async def test_a_restarted_gateway_knows_the_head_that_it_saw(tmp_path: Path) -> None:
    log = honest()
    async with gateway(tmp_path) as check:
        assert check.request(ME, 4) == wire.LogRequest(4, 0, -1, 0)
        await check.take(ME, log.proof(log.head(8)), ROWS)
    async with gateway(tmp_path) as check:
        assert check.request(ME, 5) == wire.LogRequest(5, 8, -1, 0)
        assert check.request(OTHER, 5) == wire.LogRequest(5, 0, -1, 0), "each gateway has its own"
        await check.take(ME, log.proof(log.head(9), 8), ROWS)
        assert check.request(ME, 6) == wire.LogRequest(6, 9, -1, 0)


async def test_a_log_rewritten_between_two_starts_is_refused_and_not_taken_over(tmp_path: Path) -> None:
    log, rewritten = honest(), Log([entry_of(row, NOW_MS - 7) for row in ROWS])
    async with gateway(tmp_path) as check:
        await check.take(ME, log.proof(log.head(9)), ROWS)
    async with gateway(tmp_path) as check:
        with pytest.raises(RemoteProtocolError, match="log_rewritten"):
            await check.take(ME, rewritten.proof(rewritten.head(7)), ROWS)
        assert check.request(ME, 5) == wire.LogRequest(5, 9, -1, 0)
        await check.take(ME, log.proof(log.head(9), 9), ROWS)


async def test_a_log_begun_anew_is_gone_on_from_where_its_head_is_confirmed(tmp_path: Path) -> None:
    log, anew = honest(), Log([entry_of(row, NOW_MS - 7) for row in ROWS])
    async with gateway(tmp_path) as check:
        await check.take(ME, log.proof(log.head(9)), ROWS)
    confirmed = (7, anew.head(7).root)
    grown = Log([*anew.entries, *(Entry(Kind.REVOKED, f"ESTK1{i:09}", bytes(32), i) for i in range(5))])
    fork = Log([*anew.entries, *(Entry(Kind.REVOKED, f"ESTK2{i:09}", bytes(32), i) for i in range(5))])
    async with gateway(tmp_path, confirmed) as check:  # its operator has explained the loss
        assert check.request(ME, 6) == wire.LogRequest(6, 7, -1, 0)
        for other in (log.proof(log.head(9), 7), log.proof(log.head(9), 9)):
            with pytest.raises(RemoteProtocolError, match="log_rewritten"):
                await check.take(ME, other, ROWS)
        await check.take(ME, grown.proof(grown.head(10), 7), ROWS)  # meanwhile it has grown
        assert check.request(ME, 7) == wire.LogRequest(7, 10, -1, 0)
    async with gateway(tmp_path, confirmed) as check:  # still set after a restart: nothing is taken back any more
        assert check.request(ME, 8) == wire.LogRequest(8, 10, -1, 0)
        for back in (grown.proof(grown.head(7), 7), fork.proof(fork.head(12), 10)):
            with pytest.raises(RemoteProtocolError, match="log_rewritten"):
                await check.take(ME, back, ROWS)
        await check.take(ME, grown.proof(grown.head(12), 10), ROWS)


async def test_evidence_is_bounded_and_says_what_was_refused(tmp_path: Path) -> None:
    log = honest()
    proof = log.proof(log.head(9))
    async with gateway(tmp_path) as check:
        for epoch in range(EVIDENCE_MAX + 3):
            await check.keep_evidence(ME, epoch, "not_in_log: why", [wire.Refused(epoch, "x"), proof])
        await check.keep_evidence(OTHER, 1, "log_rewritten", [proof])
        await check.repository.put_evidence(OTHER, 2, 0, "y" * 300, [bytes(EVIDENCE_BYTES_MAX), b"1"])
    found = read_evidence(tmp_path / "registers.sqlite")
    assert [each.epoch for each in found if each.gateway == ME] == list(range(3, EVIDENCE_MAX + 3))
    assert wire.decode(found[0].messages[1], wire.FROM_COORDINATOR) == proof
    assert (found[0].reason, found[0].time_ms) == ("not_in_log: why", NOW_MS)
    last = found[-1]
    assert (last.reason, last.messages) == ("y" * 200, (bytes(EVIDENCE_BYTES_MAX),))


def test_a_store_that_is_none_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file"):
        read_evidence(tmp_path / "registers.sqlite")
    (tmp_path / "registers.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="expected the store of a node"):
        read_evidence(tmp_path / "registers.sqlite")


async def test_a_history_is_asked_for_until_the_log_has_it(tmp_path: Path) -> None:
    log = honest()
    async with gateway(tmp_path) as check:
        await check.keep_history(ME, 6, 3, b"h" * 32)
        assert await check.take(ME, log.proof(log.head(9)), ROWS) is False
    longer = Log([*log.entries, Entry(Kind.HISTORY, "6/3", b"h" * 32, 5)])
    lie = Log([*log.entries, Entry(Kind.HISTORY, "6/3", b"x" * 32, 5)])
    async with gateway(tmp_path) as check:
        assert check.request(ME, 8) == wire.LogRequest(8, 9, 6, 3)
        with pytest.raises(RemoteProtocolError, match="history_differs"):
            await check.take(ME, lie.proof(lie.head(10), 9, past="6/3"), ROWS)
        assert await check.take(ME, longer.proof(longer.head(10), 9, past="6/3"), ROWS) is True
        assert check.request(ME, 9) == wire.LogRequest(9, 10, -1, 0)
        assert await check.take(ME, longer.proof(longer.head(10), 10), ROWS) is False


async def test_a_history_is_missing_once_the_next_ring_has_ended_too(tmp_path: Path) -> None:
    """The coordinator enters it a period after the epoch's end: who asks before must not take it for missing."""
    log = honest()
    longer = Log([*log.entries, Entry(Kind.HISTORY, "6/3", b"h" * 32, 5)])
    async with gateway(tmp_path) as check:
        assert await check.keep_history(ME, 6, 3, b"h" * 32)
        assert await check.take(ME, log.proof(log.head(9)), ROWS) is False
        assert await check.take(ME, longer.proof(longer.head(10), 9, past="6/3"), ROWS) is True
        assert await check.keep_history(ME, 7, 3, b"i" * 32)
        assert await check.take(ME, longer.proof(longer.head(10), 10), ROWS) is False
        assert await check.keep_history(OTHER, 7, 3, b"i" * 32)
        assert not await check.keep_history(ME, 8, 3, b"j" * 32)
        assert await check.keep_history(ME, 9, 3, b"k" * 32), "it was not asked for since"
