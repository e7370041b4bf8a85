"""`stromkreis gwa`: what the gateway administrator does with gateways, such as rolling out profile sets."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from protocol.errors import RemoteProtocolError, StromkreisError
from protocol.profiles.profile_set import ProfileSet
from protocol.profiles.template import GATEWAY, filled
from stromkreis.accounts import app as accounts_app
from stromkreis.accounts import audit_app
from stromkreis.firmware import app as firmware_app
from stromkreis.operator_client import (
    RefusedError,
    enrolled,
    operator_client,
    operator_options,
    pages,
    request,
)
from stromkreis.plain_text import plain

app = typer.Typer(help="Gateway administrator (GWA): profile sets, firmware, accounts.", no_args_is_help=True)
profiles_app = typer.Typer(help="Roll out profile sets, see what gateways say, export them.", no_args_is_help=True)
app.add_typer(profiles_app, name="profiles")
app.add_typer(firmware_app, name="firmware")
app.add_typer(accounts_app, name="accounts")
app.add_typer(audit_app, name="audit")
app.callback()(operator_options)

_LOOK_S = 1.0
_PIPE_WIDTH = 240
_NUMBER = "{number}"


class State(StrEnum):
    """What a gateway said of a profile set."""

    WAITING = "waiting"
    TAKEN = "taken"
    REFUSED = "refused"


GatewaysOption = Annotated[
    str, typer.Option("--gateways", help="Only gateways of this pattern, such as 'ESTK00*'; * stands for any text.")
]


@app.command("wake-up")
def wake_up(
    context: typer.Context,
    gateway: Annotated[str, typer.Argument(help="Id of the gateway.")],
    address: Annotated[str, typer.Argument(help="HOST:PORT (UDP) where its node listens, [node] wake_up.")],
) -> None:
    """
    Send a gateway a wake-up message, signed by the administrator: it asks for its profiles at once.

    Nothing comes back; `profiles status` shows what came of it.

    Example: stromkreis gwa wake-up ESTK0100000003 192.0.2.7:7395
    """
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal()):
        raise StromkreisError(f"{address}: expected HOST:PORT")
    with operator_client(context) as client:
        body = {"gateway": gateway, "host": host.strip("[]"), "port": int(port)}
        request(client, "POST", "/profile-sets/wake-up", json=body)
    typer.echo(f"a wake-up message for {gateway} is on its way to {address}")


@profiles_app.command("roll-out")
def roll_out(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            exists=True,
            help="A directory with one profile set as JSON for each gateway; or a file: one set, or with {gateway}"
            " (and {number}, its last eight digits) in its text a set for every gateway of the pattern.",
        ),
    ],
    gateways: GatewaysOption = "*",
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait for the gateways' answers; 0: do not wait.")
    ] = 600.0,
) -> None:
    """
    Sign profile sets, have their gateways fetch them, and show what each says: taken, or refused and why.

    Each set is checked before the first is signed. Call it again after a break: what was taken stays taken, the rest
    is offered again. Exit code 1 where a gateway has refused or has not answered.

    Example: stromkreis gwa profiles roll-out profiles/ --gateways 'ESTK00*'
    """
    with operator_client(context) as client:
        sets = _sets(source, gateways, client)
        if not sets:
            raise StromkreisError(f"{source}: no profile set for a gateway that matches {gateways!r}")
        progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=Console(file=sys.stderr), disable=not sys.stderr.isatty(),
        )  # fmt: skip
        with progress:
            signing = progress.add_task("signed", total=len(sets))
            views = {}
            for name in sorted(sets):
                views[name] = _offer(client, sets[name])
                progress.advance(signing)
            _wait(client, views, wait_s, progress)
    _show(views.values())
    if any(each["state"] != State.TAKEN for each in views.values()):
        raise typer.Exit(1)


@profiles_app.command()
def status(
    context: typer.Context,
    gateways: GatewaysOption = "*",
    state: Annotated[State | None, typer.Option(help="Only those that stand so.")] = None,
) -> None:
    """
    List the newest profile set of each gateway and what the gateway said of it.

    Example: stromkreis gwa profiles status --state refused
    """
    with operator_client(context) as client:
        _show(_pages(client, gateways, state))


@profiles_app.command()
def export(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="Where to write GATEWAY.json; made if it is not there.")],
    gateways: GatewaysOption = "*",
) -> None:
    """
    Write the newest profile set of each gateway as JSON, as it was signed; `roll-out` takes the directory again.

    Example: stromkreis gwa profiles export profiles/
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with operator_client(context) as client:
        count = 0
        for count, each in enumerate(_pages(client, gateways, None), 1):  # noqa: B007 - counted
            document = request(client, "GET", f"/profile-sets/{each['gateway']}").content
            (directory / f"{each['gateway']}.json").write_bytes(document)
    typer.echo(f"{count} profile sets in {directory}")


def _sets(source: Path, pattern: str, client: httpx.Client) -> dict[str, bytes]:
    """The documents to roll out, by gateway.  Raises StromkreisError for the first that no gateway would take."""
    if source.is_dir():
        texts = {str(path): path.read_text(encoding="utf-8") for path in sorted(source.glob("*.json"))}
    else:
        text = source.read_text(encoding="utf-8")
        if GATEWAY not in text:
            texts = {str(source): text}
        else:
            texts = {
                f"{source} for {name}": filled(text, name) for name in enrolled(client) if fnmatchcase(name, pattern)
            }
    found: dict[str, bytes] = {}
    for where, text in texts.items():
        try:
            profiles = ProfileSet.from_bytes(text.encode())
        except RemoteProtocolError as error:
            raise StromkreisError(f"{where}: no profile set that a gateway takes: {error.detail}") from None
        if profiles.gateway in found:
            raise StromkreisError(f"{where}: a second profile set for {profiles.gateway}")
        if fnmatchcase(profiles.gateway, pattern):
            found[profiles.gateway] = text.encode()
    return found


def _offer(client: httpx.Client, document: bytes) -> dict[str, Any]:
    profiles = ProfileSet.from_bytes(document)
    try:
        view: dict[str, Any] = request(client, "POST", "/profile-sets", content=document).json()
    except RefusedError as error:  # one that cannot be costs the others nothing
        return {
            "gateway": profiles.gateway, "version": profiles.version, "state": "refused", "answered_at": None,
            "reason": f"not offered: {error.told}",
        }  # fmt: skip
    return view


def _wait(client: httpx.Client, views: dict[str, Any], wait_s: float, progress: Progress) -> None:
    """Bring the views up to date until every gateway has answered, or the time is over."""
    answering = progress.add_task("answered", total=len(views))
    until_s = time.monotonic() + wait_s
    pattern = _common(views)
    while True:
        waiting = {name for name, each in views.items() if each["state"] == State.WAITING}
        progress.update(answering, completed=len(views) - len(waiting))
        if not waiting or time.monotonic() >= until_s:
            return
        time.sleep(_LOOK_S)
        for each in _pages(client, pattern, None):
            if each["gateway"] in waiting and each["version"] == views[each["gateway"]]["version"]:
                views[each["gateway"]] = each


def _common(names: dict[str, Any]) -> str:
    """A pattern that all of these ids match: what they begin with."""
    first, last = min(names), max(names)
    length = next((index for index, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first if first == last else f"{first[:length]}*"


def _pages(client: httpx.Client, pattern: str, state: State | None) -> Iterator[dict[str, Any]]:
    return pages(client, "/profile-sets", {"gateway": pattern} | ({} if state is None else {"state": state.value}))


def _show(found: Any) -> None:
    table = Table("gateway", "version", "state", "answered", "reason", box=None, header_style="bold")
    states: Counter[str] = Counter()
    for each in found:
        states[each["state"]] += 1
        answered = each["answered_at"]
        when = "" if answered is None else f"{datetime.fromisoformat(answered).astimezone(UTC):%Y-%m-%d %H:%M:%S}"
        table.add_row(each["gateway"], str(each["version"]), each["state"], when, plain(each["reason"]))
    Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)
    typer.echo(", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no profile sets")
