"""A backup of a running coordinator: complete, of one moment, for its owner's eyes alone."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from coordinator.gwa.ca import CertificateAuthority
from coordinator.storage.epochs import EpochRecord, RingLayout
from coordinator.storage.store import Store
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA
from stromkreis.__main__ import build


@pytest.fixture
def config(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    CertificateAuthority.create(data / "pki", datetime.now(UTC))
    for name in ("curve.json", "list.json", "operator.token"):
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
    copy.close()


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
