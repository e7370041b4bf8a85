"""Data directories and databases are nobody else's to read, whatever the umask and whichever command made them."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from typer.testing import CliRunner

from coordinator.storage.store import Store
from loadtest.network import Network
from stromkreis.pki import app


@pytest.fixture(autouse=True)
def _umask_of_an_open_house() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(root: Path) -> list[str]:
    """What others may read and that is not a certificate or the address of the coordinator, which are for everybody."""
    return [
        str(path.relative_to(root))
        for path in root.rglob("*")
        if stat.S_IMODE(path.stat().st_mode) & 0o077 and path.suffix != ".pem" and path.name != "coordinator.json"
    ]


async def test_what_a_network_writes(network: Network) -> None:
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        assert open_to_others(network.directory) == []
        assert {"coordinator.sqlite", "coordinator.sqlite-wal", "curve.json"} <= set(
            os.listdir(network.directory / "coordinator")
        )
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("first", ["pki", "token"])
def test_what_a_command_makes_before_the_first_start(tmp_path: Path, first: str) -> None:
    data = tmp_path / "coordinator"
    arguments = {
        "pki": ["init", "--pki", str(data / "pki")],
        "token": ["token", "--database", f"sqlite:///{data / 'coordinator.sqlite'}"],
    }
    assert CliRunner().invoke(app, arguments[first]).exit_code == 0
    assert open_to_others(tmp_path) == []
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_a_database_that_was_open_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.sqlite"
    path.touch(0o666)
    Store(f"sqlite:///{path}").close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
