"""A gateway that leaves for good: nothing of it stays after a crash, and nothing goes of one that was not asked."""

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from coordinator.gwa.ca import ROOT_FILE, CertificateAuthority
from node import departure
from node.config import NodeConfig
from node.configured import meter_profiles, open_keys, root_certificate
from node.departure import Departures, erase_node
from node.fleet import run
from node.leave_records import Leave, LeaveRecords, LeaveState
from node.security.record import Record
from node.security.storage_key import FILE_NAME
from node.storage.cipher import store_cipher
from node.storage.engine import Store
from node.storage.repositories.pairings import PairingRepository

ONE, TWO = "ESTK0000000001", "ESTK0000000002"


def configuration(directory: Path, *gateways: str) -> NodeConfig:
    return NodeConfig.model_validate({
        "data_dir": directory / "node", "root_certificate": directory / "pki" / ROOT_FILE, "area": "Nord",
        "gateways": [{"id": each, "meters": ["sml+tcp://127.0.0.1:1"]} for each in gateways],
    })  # fmt: skip


async def test_killed_before_the_rows_were_deleted_its_meters_keys_go_too(tmp_path: Path) -> None:
    CertificateAuthority.create(tmp_path / "pki", datetime.now(UTC))
    config = configuration(tmp_path, ONE)
    (meter,) = meter_profiles(config.all_gateways()[0])
    records = LeaveRecords(config.data_dir)
    records.keep(Leave(ONE, LeaveState.TOLD, 1))

    def opened(keys: Any) -> closing[Store]:
        return closing(Store(config.store_path, store_cipher(keys)))

    with closing(open_keys(config, root_certificate(config))) as keys:
        with opened(keys) as store:
            async with store.writing():
                await PairingRepository(store).keep(meter.device, b"origin", b"key")
        stop = trio.Event()
        stop.set()  # before what all gateways share goes
    await run(config, stop=stop)
    with closing(open_keys(config, root_certificate(config))) as keys, opened(keys) as store:
        assert records.read()[ONE].state is LeaveState.LEFT
        assert store.read("SELECT meter FROM lmn_pairing") == []


def test_killed_while_a_file_of_keys_is_overwritten_the_node_starts_again(tmp_path: Path) -> None:
    CertificateAuthority.create(tmp_path / "pki", datetime.now(UTC))
    config = configuration(tmp_path, ONE, TWO)

    def killed(_descriptor: int) -> None:
        raise KeyboardInterrupt

    with closing(open_keys(config, root_certificate(config))) as keys:
        for each in (ONE, TWO):
            Record(curve_secret=b"curve secret").save(keys.record_path(each))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("node.security.record.os.fsync", killed)
            with pytest.raises(KeyboardInterrupt):
                keys.erase(ONE)
    with closing(open_keys(config, root_certificate(config))) as keys:
        keys.forget_commitment_keys()
        keys.erase(ONE)
        assert [each.name for each in config.keys_path.iterdir() if ONE in each.name] == []
        assert keys.record_path(TWO).exists()


def test_the_keys_of_a_gateway_that_is_not_configured_any_more_stay(tmp_path: Path) -> None:
    config = configuration(tmp_path, ONE)
    config.keys_path.mkdir(parents=True)
    shared = config.keys_path / FILE_NAME, config.store_path
    for path in (*shared, other := config.keys_path / f"{TWO}.json"):
        path.write_text("{}")
    assert erase_node(config) == [TWO]
    assert all(each.exists() for each in shared)
    other.unlink()
    assert erase_node(config) == []
    assert not any(each.exists() for each in shared)


async def test_deleting_that_fails_is_tried_again_without_its_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """The coordinator knows already, and what would sign another statement may be gone."""
    said: list[str] = []

    def step(name: str, *failures: Exception) -> Callable[..., Any]:
        left = list(failures)

        async def done(*_: object) -> None:
            said.append(name)
            if left:
                raise left.pop()

        return done

    def erase(_name: str) -> None:
        said.append("keys")

    repository = SimpleNamespace(delete=step("rows", OSError("full")))
    monkeypatch.setattr(departure, "DepartedRepository", lambda _store: repository)
    monkeypatch.setattr(departure, "announce_leave", step("announced"))
    records, store, client = LeaveRecords(tmp_path), SimpleNamespace(), SimpleNamespace()
    keys = SimpleNamespace(erase=erase)
    gateway = SimpleNamespace(identity=ONE, leave=lambda: None, owed=lambda **_: [], stop=step("stopped"))
    records.ask(ONE, 1, discard=False)
    leaving: Any = Departures
    departures = leaving(records, keys, store, {ONE: ()}, lambda _: said.append("going"), lambda _: said.append("gone"))
    await departures.run(client, [gateway], [gateway])
    once = ["stopped", "going", "keys", "rows"]
    assert said == ["announced", *once, *once, "gone"]
    assert records.read()[ONE].state is LeaveState.LEFT
