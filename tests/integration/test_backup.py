"""A backup of a running coordinator: complete, of one moment, for its owner's eyes alone."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from coordinator.gwa.ca import CertificateAuthority
from coordinator.storage.epochs import EpochRecord, RingLayout
from coordinator.storage.irrevocable import FILE_NAME, IrrevocableLog
from coordinator.storage.lease import Lease
from coordinator.storage.store import Store
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA
from stromkreis.__main__ import build


@pytest.fixture
def config(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    CertificateAuthority.create(data / "pki", datetime.now(UTC))
    for name in ("curve.json", "list.json", "operator.token", "log.json", "enrolment-log.jsonl"):
        (data / name).write_text(name)
        (data / name).chmod(0o600)
    path = tmp_path / "stromkreis.toml"
    path.write_text(f'[coordinator]\ndata_dir = "{data}"\n')
    return path


def backup(config: Path, directory: Path) -> Result:
    arguments = ["backup", "-c", str(config), str(directory)]
    return CliRunner().invoke(build(arguments), arguments)


def test_a_living_coordinators_data_are_copied(tmp_path: Path, config: Path) -> None:
    live = Store(f"sqlite:///{tmp_path}/data/coordinator.sqlite")
    live.epochs.add(EpochRecord(7, "Nord", DEFAULT_SCHEMA, 96, 900, 900), [RingLayout(7, 0, ("a", "b"))])
    live.epochs.save_state(7, b"the seed of a living epoch")
    with live.database.write():  # a transaction that is open does not keep the copy waiting
        assert backup(config, tmp_path / "copy").exit_code == 0
    live.close()
    for path in (tmp_path / "copy").rglob("*"):
        theirs = tmp_path / "data" / path.relative_to(tmp_path / "copy")
        if path.is_file() and path.suffix != ".sqlite":
            assert path.read_bytes() == theirs.read_bytes()
            assert path.stat().st_mode == theirs.stat().st_mode
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "copy" / "coordinator.sqlite").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "copy" / "pki" / "root.key").exists()
    copy = Store(f"sqlite:///{tmp_path}/copy/coordinator.sqlite")
    assert [ring.members for ring in copy.epochs.layout(7)] == [("a", "b")]
    assert copy.epochs.states() == []
    copy.close()
    assert b"the seed of a living epoch" not in (tmp_path / "copy" / "coordinator.sqlite").read_bytes()


def restore(config: Path, directory: Path) -> Result:
    arguments = ["restore", "-c", str(config), str(directory)]
    return CliRunner().invoke(build(arguments), arguments)


def test_a_backup_is_put_back_without_undoing_what_is_irrevocable(tmp_path: Path, config: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    Store(f"sqlite:///{data}/coordinator.sqlite").close()
    irrevocable = IrrevocableLog(data / FILE_NAME)
    irrevocable.use_token(b"t" * 32, 1)
    assert backup(config, copy).exit_code == 0
    irrevocable.use_token(b"t" * 32, 0)
    irrevocable.reach(7, 3)
    (data / "later").touch()
    result = restore(config, copy)
    assert result.exit_code == 0, result.output
    assert not (data / "later").exists()
    assert (tmp_path / "data.replaced-1" / "later").exists()
    assert data.stat().st_mode & 0o777 == 0o700
    found = IrrevocableLog(data / FILE_NAME).read()
    assert (found.uses_left, found.reached) == ({b"t" * 32: 0}, {7: 3})
    assert restore(config, copy).exit_code == 0  # again, as after a crash: the newest lines are in what it moves aside
    assert IrrevocableLog(data / FILE_NAME).read().reached == {7: 3}


def test_what_a_restore_does_not_do(tmp_path: Path, config: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    store = Store(f"sqlite:///{data}/coordinator.sqlite")
    assert backup(config, copy).exit_code == 0
    lease = Lease(store.database, ["north"], "one")
    assert lease.take() is None
    try:
        assert "a coordinator runs on this database; stop it first" in str(restore(config, copy).exception)
    finally:
        lease.release()
    store.close()
    assert data.exists()
    (tmp_path / "empty").mkdir()
    assert "no backup of a coordinator" in str(restore(config, tmp_path / "empty").exception)
    told = restore(config, copy)
    assert "whoever was revoked since the backup is active again" in told.stderr


def test_nothing_is_overwritten_and_nothing_is_made_of_nothing(tmp_path: Path, config: Path) -> None:
    (tmp_path / "copy").mkdir()
    assert isinstance(backup(config, tmp_path / "copy").exception, FileExistsError)
    told = backup(config, tmp_path / "other").exception
    assert "coordinator.sqlite: cannot be copied" in str(told)
    (tmp_path / "data").rename(tmp_path / "gone")
    assert "no such directory; expected the data_dir" in str(backup(config, tmp_path / "third").exception)
    assert not (tmp_path / "third").exists()


def test_a_database_elsewhere_is_not_ours_to_copy(tmp_path: Path, config: Path) -> None:
    config.write_text(config.read_text() + 'database = "postgresql+psycopg://u:geheim@127.0.0.1:1/x"\n')
    result = backup(config, tmp_path / "copy")
    assert result.exit_code == 0
    assert "the database is postgresql's to copy" in result.stderr
    assert "geheim" not in result.output
    assert not (tmp_path / "copy" / "coordinator.sqlite").exists()


def test_a_restore_leaves_the_longer_enrolment_log(tmp_path: Path, config: Path) -> None:
    Store(f"sqlite:///{tmp_path}/data/coordinator.sqlite").close()
    log = tmp_path / "data" / "enrolment-log.jsonl"
    log.write_text("one\n")
    assert backup(config, tmp_path / "copy").exit_code == 0
    log.write_text("one\ntwo\n")
    assert restore(config, tmp_path / "copy").exit_code == 0
    assert log.read_text() == "one\ntwo\n"
    log.unlink()
    assert restore(config, tmp_path / "copy").exit_code == 0
    assert log.read_text() == "one\n"
    assert log.stat().st_mode & 0o777 == 0o600
