"""Databases for the tests: SQLite always, PostgreSQL where its server is installed (started here, for us alone)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.store import Store
from coordinator.tables import metadata


def _server_binaries() -> Path | None:
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    return next(
        (c for c in [*candidates, *([Path(on_path).parent] if on_path else [])] if (c / "initdb").exists()), None
    )


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A PostgreSQL server of our own on a free port, as a user other than root (it refuses to be root)."""
    binaries = _server_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed (Debian package postgresql)")
    # Below the system's own folder for such things: pytest's may be closed to the other user.
    home = Path(tempfile.mkdtemp(prefix="stromkreis-pg-"))
    user: dict[str, str] = {}
    if os.geteuid() == 0:
        shutil.chown(home, "nobody", "nogroup")
        user = {"user": "nobody", "group": "nogroup"}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    control = [str(binaries / "pg_ctl"), "-D", str(home / "data"), "-w", "-t", "60"]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} -c max_connections=40"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": home, **user}
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
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store on either database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'deep' / 'coordinator.sqlite'}"
    else:
        url = request.getfixturevalue("postgresql")
    made = Store(url)
    try:
        yield made
    finally:
        if request.param == "postgresql":
            with made.write() as connection:
                metadata.drop_all(connection)
        made.close()
