"""`stromkreis leave`: gateways that leave for good; their node does it, this command asks it and shows how far."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from node.config import NodeConfig
from node.leave_records import Leave, LeaveRecords, LeaveState
from protocol.errors import StromkreisError
from stromkreis.config import load
from stromkreis.services import ConfigFile

app = typer.Typer(
    help="Gateways that leave for good: decommissioned, or the household moves. Stopping a node is no leave.",
    no_args_is_help=True,
)
_LOOK_S = 1.0


@app.command()
def start(
    gateways: Annotated[list[str] | None, typer.Argument(help="The gateways' ids.", show_default=False)] = None,
    *,
    everybody: Annotated[bool, typer.Option("--all", help="Every gateway of the node.")] = False,
    discard: Annotated[
        bool,
        typer.Option(
            "--discard",
            help="Do not wait until committed values are billed and deliveries have arrived: they are deleted.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return once they have left.")] = False,
    config: ConfigFile = None,
) -> None:
    """
    Ask gateways to leave: they join no further epoch, pay what they owe, are revoked, and delete their keys and data.

    It cannot be undone: the id is never given out again.  The node does it while it runs, or at its next start, and
    goes on where it was when it is killed.  Run it where the node's files are.

    Example: stromkreis leave start ESTK0000000011 -c stromkreis.toml
    """
    settings = load(NodeConfig, "node", config)
    known = [each.id for each in settings.all_gateways()]
    wanted = known if everybody else list(dict.fromkeys(gateways or []))
    if not wanted or (everybody and gateways):
        raise typer.BadParameter("expected ids of gateways, or --all", param_hint="GATEWAYS")
    if unknown := sorted(set(wanted) - set(known)):
        raise StromkreisError(f"gateway {unknown[0]} is none of this node's, which are {_some(known)}")
    if not settings.data_dir.is_dir():
        raise StromkreisError(f"{settings.data_dir}: no such directory; expected node.data_dir of a node that has run")
    if not yes:
        lost = "; unbilled values and deliveries that wait are lost" if discard else ""
        typer.confirm(f"{_some(wanted)} will leave for good, keys and data are deleted{lost}. Go on?", abort=True)
    records = LeaveRecords(settings.data_dir)
    for each in wanted:
        records.ask(each, round(time.time() * 1000), discard=discard)
    if wait:
        _wait(records, wanted)
    _show(records.read(), wanted)


@app.command()
def status(config: ConfigFile = None) -> None:
    """
    Show which gateways leave, how far each has come, and what it waits for.

    Example: stromkreis leave status -c stromkreis.toml
    """
    leaves = LeaveRecords(load(NodeConfig, "node", config).data_dir).read()
    _show(leaves, list(leaves))


def _wait(records: LeaveRecords, wanted: Sequence[str]) -> None:
    """Until all have left; says what is waited for whenever that changes."""
    said: tuple[str, ...] | None = None
    while staying := [each for each in map(records.read().get, wanted) if each and each.state is not LeaveState.LEFT]:
        owes = tuple(dict.fromkeys(each for leave in staying for each in leave.owes))
        if owes != said:
            what = ", ".join(owes) or "the node, which has to run"
            typer.echo(f"{len(staying)} of {len(wanted)} gateways wait for {what}", err=True)
            said = owes
        time.sleep(_LOOK_S)


def _show(leaves: Mapping[str, Leave], wanted: Sequence[str]) -> None:
    table = Table("gateway", "asked", "state", "waits for", box=None, pad_edge=False)
    for leave in (leaves[each] for each in wanted if each in leaves):
        waits = ", ".join(leave.owes)
        match leave.state:
            case LeaveState.ASKED:
                state, waits = "leaves", waits or "the node"
            case LeaveState.PAID:
                state, waits = "leaves", "the coordinator's answer"
            case LeaveState.TOLD:
                state = "revoked, is being deleted"
            case LeaveState.LEFT:
                state = f"left {_minute(leave.left_ms or 0)}"
        table.add_row(leave.gateway, _minute(leave.asked_ms), state, waits)
    Console(highlight=False, soft_wrap=True).print(table if table.row_count else "no gateway of this node leaves")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _minute(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}"
