"""`stromkreis backup`: a coordinator's database, keys and certificates, copied while it runs."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import make_url

from coordinator.config import CoordinatorConfig
from coordinator.gwa.log_writer import LOG_FILE, LOG_KEY_FILE
from coordinator.storage.irrevocable import FILE_NAME
from protocol.errors import StromkreisError
from stromkreis.config import load
from stromkreis.services import ConfigFile


def backup(
    directory: Annotated[Path, typer.Argument(help="Where to; it must not exist yet.")],
    *,
    config: ConfigFile = None,
) -> None:
    """
    Copy a coordinator's data while it runs: database, PKI, keys, operator's token, irrevocable.jsonl, enrolment log.

    The copy is as secret as the keys in it, and readable to you alone. The keys of living epochs are not in it: a
    coordinator that is restored calls new ones. To restore: `stromkreis restore`. Nodes are not for copying: see
    docs/howto/operations.md.

    Example: stromkreis backup -c stromkreis.toml /media/safe/2026-11-26
    """
    settings = load(CoordinatorConfig, "coordinator", config)
    if not settings.data_dir.is_dir():
        raise StromkreisError(
            f"{settings.data_dir}: no such directory; expected the data_dir of a coordinator: --config"
        )
    url = make_url(settings.database_url)
    directory.mkdir(parents=True, mode=0o700)
    names = []
    if url.get_backend_name() == "sqlite":
        _copy_database(Path(str(url.database)), directory / "coordinator.sqlite")
        names.append("coordinator.sqlite")
    else:
        sys.stderr.write(f"the database is {url.get_backend_name()}'s to copy, by its own tools\n")
    for folder, name in (
        (settings.keys_path, "curve.json"), (settings.keys_path, "list.json"), (settings.data_dir, "operator.token"),
        (settings.log_key_path, LOG_KEY_FILE), (settings.log_path, LOG_FILE),
    ):  # fmt: skip
        if (folder / name).exists():
            shutil.copy2(folder / name, directory / name)
            names.append(name)
    if settings.irrevocable_path.exists():
        shutil.copy2(settings.irrevocable_path, directory / FILE_NAME)
        names.append(FILE_NAME)
    if settings.pki_path.is_dir():
        shutil.copytree(settings.pki_path, directory / "pki")
        names.append("pki/")
    typer.echo(f"{directory}: {', '.join(names)}")


def _copy_database(source: Path, target: Path) -> None:
    """All of one moment; writers go on meanwhile.  https://sqlite.org/backup.html"""
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as live,
            closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy)
            copy.execute("PRAGMA secure_delete=ON")
            copy.execute("DELETE FROM epoch_states")
            copy.execute("UPDATE epoch_calls SET state=NULL")
            copy.commit()
            (said,) = copy.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.Error as error:
        raise StromkreisError(f"{source}: cannot be copied ({error})") from error
    if said != "ok":
        raise StromkreisError(f"{target}: the copy is damaged, and so is the database: {said}")
