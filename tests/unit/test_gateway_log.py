"""A gateway's logs: in order, durable, chained over restarts, bounded, and readable beside a running node."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

import node.logs.gateway_log
from node.logs.gateway_log import GatewayLog
from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from node.storage.errors import SealError, StoreError
from node.storage.repositories.gateway_logs import GatewayLogRepository, read_beside
from protocol.errors import LocalProtocolError, StromkreisError
from protocol.logs.chain import verify
from protocol.logs.events import Event, Log
from stromkreis.gateway_log import app
from tests.unit.test_log_chain import is_signed, signature

CIPHER = StorageCipher(bytes(32))


def not_enrolled(_text: bytes) -> bytes:
    raise LocalProtocolError("no certificate yet")


@asynccontextmanager
async def running(path: Path, sign: Callable[[bytes], bytes] = signature) -> AsyncIterator[Node]:
    """A node that is stopped at the end of the block as by a signal: all of its tasks are cancelled."""
    stopped = Node(path, sign)
    with trio.CancelScope() as scope:
        async with stopped.store.writing():
            try:
                async with trio.open_nursery() as nursery:
                    stopped.log.serve_in(nursery)
                    yield stopped
                    scope.cancel()
            finally:
                await stopped.log.close(Event.STOPPED)
    stopped.store.close()


async def written(running_node: Node) -> None:
    """Return when everything that was noted is written."""
    log = running_node.log
    with trio.fail_after(120):
        while log._waiting or log._is_writing:
            await trio.sleep(0.001)


class Node:
    """A store and one gateway's logs on it."""

    def __init__(self, path: Path, sign: Callable[[bytes], bytes]) -> None:
        self.store = Store(path, CIPHER)
        self.repository = GatewayLogRepository(self.store)
        self.log = GatewayLog(self.repository, "g1", lambda: 1_000.5, sign)

    def numbers(self, which: Log) -> list[int]:
        return [each.event for each in self.repository.entries("g1", which)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registers.sqlite"


async def test_entries_stand_in_their_logs_in_the_order_of_events(path: Path) -> None:
    async with running(path) as node_:
        node_.log.note(Event.STARTED, version="1")
        node_.log.note(Event.BILL_DECLINED, reason="span_too_short")
        node_.log.note(Event.METER_FAULT, kind="crc", protocol="sml", device="m1")
        await written(node_)
        assert node_.numbers(Log.SYSTEM) == [1001, 3001]
        assert node_.numbers(Log.CONSUMER) == [4002]
        (entry,) = node_.repository.entries("g1", Log.CALIBRATION)
        assert (entry.at_ms, dict(entry.parameters)) == (1_000_500, {"version": "1"})


async def test_chain_goes_on_over_restarts_and_enrolment(path: Path) -> None:
    for sign in (not_enrolled, signature, signature):
        async with running(path, sign) as node_:
            node_.log.note(Event.STARTED, version="1")
    with read_beside(path, CIPHER) as logs:
        entries = logs.entries("g1", Log.CALIBRATION)
        found = verify(entries, is_signed)
        assert (found.count, found.findings) == (3, ())
        assert [bool(each.signature) for each in entries] == [False, True, True]
        assert [each.event for each in logs.entries("g1", Log.SYSTEM)] == [1001, 1002] * 3


async def test_entry_that_the_store_did_not_take_is_counted_in_the_next(path: Path) -> None:
    async with running(path) as node_:
        write = node_.store.write

        async def fails(_statements: object) -> None:
            await trio.lowlevel.checkpoint()
            raise StoreError("disk full")

        node_.store.write = fails  # type: ignore[method-assign,assignment]
        node_.log.note(Event.STARTED, version="1")
        await written(node_)
        node_.store.write = write  # type: ignore[method-assign]
        node_.log.note(Event.STARTED, version="2")
    with read_beside(path, CIPHER) as logs:
        assert [(each.event, dict(each.parameters)) for each in logs.entries("g1", Log.SYSTEM)][:2] == [
            (1001, {"version": "2"}), (1003, {"count": 1}),
        ]  # fmt: skip
        assert verify(logs.entries("g1", Log.CALIBRATION), is_signed).findings == ()


async def test_flood_of_events_is_bounded_and_counted(path: Path) -> None:
    async with running(path) as node_:
        for _ in range(1_000):
            node_.log.note(Event.METER_FAULT, kind="crc" * 500, protocol="sml", device="m1")
        await written(node_)
        entries = node_.repository.entries("g1", Log.SYSTEM)
        assert len(entries) == 257
        assert entries[-1].parameters == {"count": 744}
        assert len(str(entries[0].parameters["kind"])) == 200


async def test_system_log_keeps_its_newest_entries_and_calibration_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node.logs.gateway_log, "ENTRIES_KEPT", 3)
    async with running(path) as node_:
        for version in range(6):
            node_.log.note(Event.STARTED, version=str(version))
            await written(node_)
        assert [each.number for each in node_.repository.entries("g1", Log.SYSTEM)] == [4, 5, 6]
        assert [each.number for each in node_.repository.entries("g1", Log.CALIBRATION)] == [1, 2, 3, 4, 5, 6]
        with pytest.raises(LocalProtocolError, match="never shortened"):
            node_.repository.keep_newest("g1", Log.CALIBRATION, 1)


async def test_parameters_that_the_event_does_not_have_are_an_error(path: Path) -> None:
    async with running(path) as node_:
        with pytest.raises(LocalProtocolError, match="STARTED"):
            node_.log.note(Event.STARTED, reading=7)


async def test_entry_moved_to_another_gateway_does_not_open(path: Path) -> None:
    async with running(path) as node_:
        node_.log.note(Event.BILL_DECLINED, reason="planted-reason")
        await written(node_)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE gateway_log SET gateway='g2'")
    assert b"planted-reason" not in path.read_bytes()
    with read_beside(path, CIPHER) as logs, pytest.raises(SealError):
        logs.entries("g2", Log.CONSUMER)


def test_file_that_is_no_store_is_refused_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "other.sqlite"
    file.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match=r"other\.sqlite"), read_beside(file, CIPHER) as logs:
        logs.gateways()


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.BrainpoolP256R1())


@pytest.fixture
async def exported(path: Path, tmp_path: Path, key: ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
    """An exported log and the gateway's certificate."""
    name = x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1).not_valid_before(
        datetime(2026, 1, 1, tzinfo=UTC)
    )
    certificate = builder.not_valid_after(datetime(2030, 1, 1, tzinfo=UTC)).sign(key, hashes.SHA256())
    (tmp_path / "gateway.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    async with running(path, lambda text: key.sign(text, ec.ECDSA(hashes.SHA256()))) as node_:
        for version in range(3):
            node_.log.note(Event.STARTED, version=str(version))
    with read_beside(path, CIPHER) as logs:
        lines = [each.to_json() for each in logs.entries("g1", Log.CALIBRATION)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "log.jsonl", tmp_path / "gateway.pem"


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


async def test_verify_prints_the_head_and_finds_a_cut_end_by_it(exported: tuple[Path, Path]) -> None:
    file, certificate = exported
    status, output = run("verify", file, "--certificate", certificate)
    assert status == 0
    assert "3 entries, whole" in output
    head = next(line for line in output.splitlines() if line.startswith("3:"))
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    assert run("verify", file, "--certificate", certificate)[0] == 0
    status, output = run("verify", file, "--certificate", certificate, "--head", head)
    assert status == 1
    assert "the end was cut off" in output


async def test_verify_finds_a_change_by_the_certificate(exported: tuple[Path, Path]) -> None:
    file, certificate = exported
    file.write_text(file.read_text().replace('"version": "1"', '"version": "7"'))
    status, output = run("verify", file, "--certificate", certificate)
    assert status == 1
    assert "entry 2 is not what the gateway signed" in output


@pytest.mark.parametrize("head", ["3", "x:00", f"0:{'00' * 32}", "3:00"])
async def test_head_that_cannot_be_one_is_refused(exported: tuple[Path, Path], head: str) -> None:
    file, certificate = exported
    with pytest.raises(StromkreisError, match="NUMBER:HASH"):
        run("verify", file, "--certificate", certificate, "--head", head)


async def test_certificate_or_line_that_is_none_ends_in_a_sentence(exported: tuple[Path, Path]) -> None:
    file, certificate = exported
    with pytest.raises(StromkreisError, match="no certificate"):
        run("verify", file, "--certificate", file)
    file.write_text("nothing\n")
    with pytest.raises(StromkreisError, match="line 1: expected"):
        run("verify", file, "--certificate", certificate)
