"""`stromkreis db`: schema versions of the databases of node and coordinator, and bringing them up to date."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Protocol

import typer
from rich.console import Console
from rich.table import Table

from protocol.errors import StromkreisError
from stromkreis.config import load
from stromkreis.services import ConfigFile

app = typer.Typer(help="Schema versions of the databases of node and coordinator.", no_args_is_help=True)


class Side(StrEnum):
    """Whose databases."""

    COORDINATOR = "coordinator"
    NODE = "node"


class SchemaStatus(Protocol):
    """What both sides say of a database; see node.storage.schema and coordinator.storage.schema."""

    @property
    def database(self) -> str: ...  # noqa: D102
    @property
    def found(self) -> str | None: ...  # noqa: D102
    @property
    def latest(self) -> str: ...  # noqa: D102
    @property
    def pending(self) -> tuple[tuple[str, str], ...]: ...  # noqa: D102
    @property
    def is_newer(self) -> bool: ...  # noqa: D102


WhichSide = Annotated[
    Side | None, typer.Argument(help="Whose databases.", show_default="those that the configuration names")
]


@app.command()
def status(side: WhichSide = None, *, config: ConfigFile = None) -> None:
    """
    Show the version of each database and the one that this release knows; changes nothing.

    Exit status 1 where an upgrade is due, or a later release has written one.

    Example: stromkreis db status -c stromkreis.toml
    """
    found = [each for one in _sides(side, config) for each in _status(one, config)]
    _show(found)
    if any(each.pending or each.is_newer for each in found):
        raise typer.Exit(1)


@app.command()
def upgrade(side: WhichSide = None, *, config: ConfigFile = None) -> None:
    """
    Bring each database to this release's version, whole or not at all.  Stop the service first.

    A start does the same. Nothing goes back: make a `stromkreis backup` of a coordinator before.

    Example: stromkreis db upgrade node -c stromkreis.toml
    """
    for one in _sides(side, config):
        for before in _upgrade(one, config):
            if before.found is None:
                typer.echo(f"{before.database}: not there yet")
            elif before.pending:
                for name, what in before.pending:
                    typer.echo(f"{before.database}: {name} {what}")
                typer.echo(f"{before.database}: {before.found} is now {before.latest}")
            else:
                typer.echo(f"{before.database}: {before.found} is the latest version")


def _sides(side: Side | None, config: Path | None) -> list[Side]:
    if side is not None:
        return [side]
    if config is None:
        found = [each for each in Side if Path("var", each).is_dir()]  # where a data_dir is unless said otherwise
        expected = "a data directory in var/ here, --config, or the side as an argument"
    else:
        try:
            sections = tomllib.loads(config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StromkreisError(f"{config}: cannot be read ({error})") from error
        found = [each for each in Side if each in sections]
        expected = f"a section [node] or [coordinator] in {config}"
    if not found:
        raise StromkreisError(f"no database is named; expected {expected}")
    return found


def _status(side: Side, config: Path | None) -> Sequence[SchemaStatus]:
    if side is Side.COORDINATOR:
        from coordinator.config import CoordinatorConfig  # noqa: PLC0415 - no web server for a node's files
        from coordinator.storage import schema as coordinator_schema  # noqa: PLC0415

        return [coordinator_schema.status(load(CoordinatorConfig, side, config).database_url)]
    from node.config import NodeConfig  # noqa: PLC0415
    from node.storage import schema as node_schema  # noqa: PLC0415

    settings = load(NodeConfig, side, config)
    return node_schema.status(settings.store_path, settings.seeds_path)


def _upgrade(side: Side, config: Path | None) -> Sequence[SchemaStatus]:
    if side is Side.COORDINATOR:
        from coordinator.config import CoordinatorConfig  # noqa: PLC0415
        from coordinator.storage import schema as coordinator_schema  # noqa: PLC0415

        return [coordinator_schema.upgrade(load(CoordinatorConfig, side, config).database_url)]
    from node.config import NodeConfig  # noqa: PLC0415
    from node.configured import key_backend  # noqa: PLC0415
    from node.security.module import KeyDirectory  # noqa: PLC0415
    from node.storage import schema as node_schema  # noqa: PLC0415
    from node.storage.cipher import store_cipher  # noqa: PLC0415
    from protocol.dcnet.crypto.suite import StandardSuite  # noqa: PLC0415

    settings = load(NodeConfig, side, config)
    before = node_schema.status(settings.store_path, settings.seeds_path)
    if all(each.found is None for each in before):
        return before  # the security module would make a key
    keys = KeyDirectory(settings.keys_path, StandardSuite(), backend=key_backend(settings))
    try:
        node_schema.upgrade(settings.store_path, store_cipher(keys), keys.retired_commitment_key)
        keys.forget_commitment_keys()
    finally:
        keys.close()
    return before


def _show(found: Sequence[SchemaStatus]) -> None:
    table = Table("database", "version", "this release", "state", box=None, pad_edge=False)
    for each in found:
        if each.is_newer:
            state = "written by a later release: run that one"
        elif each.found is None:
            state = "not there yet: made at the first start"
        elif each.pending:
            state = f"upgrade due: {'; '.join(' '.join(step).strip() for step in each.pending)}"
        else:
            state = "up to date"
        table.add_row(each.database, each.found or "-", each.latest, state)
    Console().print(table)
