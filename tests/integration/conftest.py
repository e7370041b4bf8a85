"""Databases for the tests: SQLite always, PostgreSQL where its server is installed (started here, for us alone)."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from coordinator.storage.engine import Database
from coordinator.storage.store import Store
from loadtest.network import Network
from loadtest.ports import free_port
from node.aggregation.contribution import Contributions
from protocol.dcnet.machines.effects import Attempted, Ended
from protocol.dcnet.setup.rings import RingView, positions_of
from protocol.dcnet.setup.schema import WORD_MODULUS
from protocol.wire import Outcome


def _server_binaries() -> Path | None:
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    return next(
        (c for c in [*candidates, *([Path(on_path).parent] if on_path else [])] if (c / "initdb").exists()), None
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and "network" in item.fixturenames:
            item.add_marker(pytest.mark.rounds)


@pytest.fixture
def postgresql(postgresql_server: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database; whatever a test leaves in it goes."""
    yield postgresql_server
    database = Database(postgresql_server)
    with database.write() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    database.close()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """A PostgreSQL server of our own on a free port, as a user other than root (it refuses to be root)."""
    binaries = _server_binaries()
    if binaries is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no PostgreSQL server is installed (Debian package postgresql)")
        pytest.skip("no PostgreSQL server is installed (Debian package postgresql)")
    # Below the system's own folder for such things: pytest's may be closed to the other user.
    home = Path(tempfile.mkdtemp(prefix="stromkreis-pg-"))
    user: dict[str, str] = {}
    if os.geteuid() == 0:
        shutil.chown(home, "nobody", "nogroup")
        user = {"user": "nobody", "group": "nogroup"}
    port = free_port()
    control = [str(binaries / "pg_ctl"), "-D", str(home / "data"), "-w", "-t", "60"]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} -c max_connections=40"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": home, **user}
    initdb = [str(binaries / "initdb"), "-D", str(home / "data"), "-U", "stromkreis", "-A", "trust", "-E", "UTF8"]
    try:
        subprocess.run([*initdb, "--locale=C"], check=True, **quiet)
        subprocess.run([*control, "-l", str(home / "log"), "-o", options, "start"], check=True, **quiet)
        try:
            yield f"postgresql+psycopg://stromkreis@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, **quiet)
    finally:
        shutil.rmtree(home)


@pytest.fixture(params=["sqlite", "postgresql"])
def any_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'deep' / 'coordinator.sqlite'}"
    url: str = request.getfixturevalue("postgresql")
    return url


@pytest.fixture
def any_store(any_database: str) -> Iterator[Store]:
    """An empty store on either database."""
    made = Store(any_database)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    """A network whose epochs come about in a second or two: few gateways need no long windows."""
    monkeypatch.setattr("coordinator.rings.areas.SETTLE_S", 0.6)
    monkeypatch.setattr("coordinator.rings.areas.JOIN_S", 1.0)
    monkeypatch.setattr("coordinator.rings.areas.DEAL_S", 1.0)
    return Network(tmp_path, origin_unix_s=float(int(time.time()) + 2), period_s=1.0)


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """What every gateway of this process contributed, written down as it became durable."""
    made = Ledger()
    made.install(monkeypatch)
    return made


class Ledger:
    """Holds opened totals against what went in: the totals' ground truth, whatever the clocks did."""

    def __init__(self) -> None:
        self.contributed: dict[tuple[str, int, int], tuple[int, ...]] = {}

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        attempted = Contributions.attempted

        async def noted(mine: Contributions, view: RingView, record: Attempted) -> None:
            await attempted(mine, view, record)
            key = (mine._gateway, view.epoch, record.round)
            vector = tuple(map(int, mine._built[view.epoch, record.round].vector))
            assert self.contributed.setdefault(key, vector) == vector, "one round, two vectors"

        monkeypatch.setattr(Contributions, "attempted", noted)

    def check(self, network: Network) -> list[Ended]:
        """Every opened total is the sum over its roster, slot by slot; returns the opened ones."""
        opened = [each for each in network.ended() if each.outcome is Outcome.OPENED]
        members = network.members()
        for each in opened:
            names = [members[each.epoch, each.ring][position] for position in positions_of(each.roster)]
            vectors = [self.contributed[name, each.epoch, each.round] for name in names]
            assert each.total == tuple(sum(column) % WORD_MODULUS for column in zip(*vectors, strict=True))
        return opened
