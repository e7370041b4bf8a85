"""`stromkreis restore`: a coordinator's backup in the place of its data, without undoing revocations."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import make_url

from coordinator.config import CoordinatorConfig
from coordinator.gwa.log_writer import LOG_FILE, LOG_KEY_FILE
from coordinator.storage.irrevocable import FILE_NAME, IrrevocableLog
from protocol.errors import StromkreisError
from stromkreis.config import load
from stromkreis.services import ConfigFile


def restore(
    directory: Annotated[Path, typer.Argument(help="What `stromkreis backup` made.", exists=True, file_okay=False)],
    *,
    config: ConfigFile = None,
) -> None:
    """
    Put a backup in the place of a stopped coordinator's data.

    What is there is moved aside, not deleted. Revocations, spent enrolment tokens, the numbers of epochs and the
    enrolment log since the backup are carried over, so that nobody who was revoked comes back. The totals since the
    backup are not in it. A PostgreSQL database is put back by its own tools, before or after; the next start of the
    coordinator does the rest.

    Example: stromkreis restore -c stromkreis.toml /media/safe/2026-11-26
    """
    settings = load(CoordinatorConfig, "coordinator", config)
    if not (directory / "curve.json").exists() and not (directory / "coordinator.sqlite").exists():
        raise StromkreisError(f"{directory}: no backup of a coordinator; expected what `stromkreis backup` made")
    data = settings.data_dir
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite":
        _require_stopped(Path(f"{url.database}.ring-service"))
    kept = [each.path.read_bytes() for each in _logs(settings, directory) if each.path.exists()]
    entered = _newest_log(settings, directory)
    aside = _move_aside(data)
    shutil.copytree(directory, data)
    data.chmod(0o700)
    for content in kept:
        IrrevocableLog(settings.irrevocable_path).merge(content.splitlines())
    _put_log(settings, directory, entered)
    typer.echo(f"{data}: as of the backup" + (f"; what was there is in {aside}" if aside is not None else ""))
    if not kept:
        typer.echo(
            f"there is no {FILE_NAME}, here or in the backup: whoever was revoked since the backup is active again,"
            " revoke them anew before you start the coordinator",
            err=True,
        )


def _logs(settings: CoordinatorConfig, directory: Path) -> list[IrrevocableLog]:
    return [IrrevocableLog(settings.irrevocable_path), IrrevocableLog(directory / FILE_NAME)]


def _newest_log(settings: CoordinatorConfig, directory: Path) -> bytes:
    """The longest copy of the enrolment log: gateways that saw more than is restored would take part in no epoch."""
    paths = (settings.log_path / LOG_FILE, directory / LOG_FILE)
    return max((path.read_bytes() for path in paths if path.exists()), key=lambda data: data.count(b"\n"), default=b"")


def _put_log(settings: CoordinatorConfig, directory: Path, entered: bytes) -> None:
    """The log, and keys where there are none."""
    settings.log_path.mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder, name in (
        (settings.keys_path, "curve.json"), (settings.keys_path, "list.json"), (settings.log_key_path, LOG_KEY_FILE)
    ):  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (folder / name).exists() and (directory / name).exists():
            shutil.copy2(directory / name, folder / name)
    if entered:
        path = settings.log_path / LOG_FILE
        path.touch(mode=0o600)
        path.write_bytes(entered)


def _require_stopped(lock: Path) -> None:
    """Raises StromkreisError while a ring service has its lock (coordinator.storage.lease.exclusive)."""
    if not lock.exists():
        return
    with lock.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StromkreisError(f"{lock}: a coordinator runs on this database; stop it first") from None


def _move_aside(data: Path) -> Path | None:
    if not data.exists():
        data.parent.mkdir(parents=True, exist_ok=True)
        return None
    number = 1
    while (aside := data.with_name(f"{data.name}.replaced-{number}")).exists():
        number += 1
    os.rename(data, aside)
    return aside
