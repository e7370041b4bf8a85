"""`stromkreis db`: what it says of each database, and what it leaves of it."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.storage.store import Store as CoordinatorStore
from node.security.module import KeyDirectory
from node.storage.cipher import store_cipher
from node.storage.engine import Store
from node.storage.migrations import EPOCH_SEED_STEPS, STEPS
from protocol.dcnet.crypto.suite import StandardSuite

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data" / "node_store_v0"


def configured(directory: Path) -> Path:
    path = directory / "stromkreis.toml"
    path.write_text(
        f"""
[coordinator]
data_dir = "{directory}/coordinator"
[node]
data_dir = "{directory}/node"
coordinator = "https://127.0.0.1:7381"
root_certificate = "{directory}/root.pem"
gateways = [{{ id = "ESTK0000000001", meters = ["sml+tcp://127.0.0.1:20000"] }}]
"""
    )
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    shutil.copytree(DATA, tmp_path / "node", ignore=shutil.ignore_patterns("*.md", "*.json"))
    return configured(tmp_path)


def call(*arguments: str | Path, cwd: Path | None = None) -> tuple[int, str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "COLUMNS": "500", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "stromkreis", *arguments], cwd=cwd or ROOT, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        ((found,),) = connection.execute("PRAGMA user_version")
    return int(found)


def test_what_is_due_is_shown_then_done_then_nothing_is_due(config: Path, tmp_path: Path) -> None:
    store = tmp_path / "node" / "registers.sqlite"
    returned, said = call("db", "status", "node", "--config", config)
    assert returned == 1
    assert f"{store}" in said
    assert "upgrade due: 1 Take over the tables from the time before versions.; 2 Seal readings" in said
    assert version(store) == 0
    assert not (tmp_path / "node" / "keys" / "storage.key").exists()

    returned, said = call("db", "upgrade", "node", "--config", config)
    assert returned == 0
    assert f"registers.sqlite: 0 is now {len(STEPS)}" in said
    assert f"epochs.sqlite: 0 is now {len(EPOCH_SEED_STEPS)}" in said
    assert version(store) == len(STEPS)

    assert call("db", "status", "node", "--config", config)[0] == 0
    assert f"{len(STEPS)} is the latest version" in call("db", "upgrade", "node", "--config", config)[1]


def test_both_sides_of_a_configuration_are_covered(config: Path, tmp_path: Path) -> None:
    CoordinatorStore(f"sqlite:///{tmp_path / 'coordinator' / 'coordinator.sqlite'}").close()
    returned, said = call("db", "status", "--config", config)
    assert returned == 1
    assert "coordinator.sqlite" in said
    assert call("db", "upgrade", "--config", config)[0] == 0
    returned, said = call("db", "status", "--config", config)
    assert (returned, said.count("up to date")) == (0, 3)


def test_what_is_not_there_is_not_made(tmp_path: Path) -> None:
    path = configured(tmp_path)
    for command in ("status", "upgrade"):
        returned, said = call("db", command, "node", "--config", path)
        assert returned == 0
        assert "not there yet" in said
    assert not (tmp_path / "node").exists()


def test_a_later_releases_store_is_refused_by_both(config: Path, tmp_path: Path) -> None:
    store = tmp_path / "node" / "registers.sqlite"
    call("db", "upgrade", "node", "--config", config)
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA user_version=99")
    returned, said = call("db", "status", "node", "--config", config)
    assert returned == 1
    assert "written by a later release: run that one" in said
    returned, said = call("db", "upgrade", "node", "--config", config)
    assert returned == 1
    assert f"has version 99, this release knows versions up to {len(STEPS)}" in said


def test_a_store_in_use_is_not_upgraded(config: Path, tmp_path: Path) -> None:
    keys = KeyDirectory(tmp_path / "node" / "keys", StandardSuite())
    store = Store(tmp_path / "node" / "registers.sqlite", store_cipher(keys), blinding_key=keys.retired_commitment_key)
    try:
        returned, said = call("db", "upgrade", "node", "--config", config)
    finally:
        store.close()
        keys.close()
    assert returned == 1
    assert "another process has it open" in said


def test_where_nothing_is_named_it_says_what_is_expected(tmp_path: Path) -> None:
    returned, said = call("db", "status", cwd=tmp_path)
    assert returned == 1
    assert "no database is named; expected a data directory in var/ here" in said
    (tmp_path / "empty.toml").write_text("")
    returned, said = call("db", "status", "-c", tmp_path / "empty.toml")
    assert returned == 1
    assert "expected a section [node] or [coordinator]" in said


@pytest.mark.parametrize("command", ["node", "coordinator"])
def test_a_service_runs_without_core_dumps(config: Path, command: str) -> None:
    script = (
        "import resource, sys; from pathlib import Path; from stromkreis import services\n"
        "limit = lambda run: print(resource.getrlimit(resource.RLIMIT_CORE))\n"
        "services.serve = services.serve_until_stopped = limit\n"
        "getattr(services, sys.argv[1])(config=Path(sys.argv[2]))"
    )
    done = subprocess.run([sys.executable, "-c", script, command, config], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.decode().strip() == "(0, 0)"
