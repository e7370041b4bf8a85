"""`stromkreis gwa firmware`: a wheel becomes a firmware file, which the administrator keeps and has gateways run."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from coordinator.gwa.ca import write
from node.firmware.image import read_wheel
from protocol.errors import RemoteProtocolError, StromkreisError
from protocol.profiles.firmware import IMAGE_SIZE_MAX, FirmwareManifest, pack, unpack
from stromkreis.operator_client import enrolled, operator_client, pages, request
from stromkreis.plain_text import plain

app = typer.Typer(help="Firmware of gateways: build it, roll it out, see what came of it.", no_args_is_help=True)

_AT_ONCE = 400
_LOOK_S = 1.0
_PIPE_WIDTH = 240
_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%z"]

GatewaysOption = Annotated[
    str, typer.Option("--gateways", help="Only gateways of this pattern, such as 'ESTK00*'; * stands for any text.")
]


class State(StrEnum):
    """How an order stands."""

    WAITING = "waiting"
    STAGED = "staged"
    RUNNING = "running"
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"


class Activation(StrEnum):
    """When gateways change over."""

    NOW = "now"
    EPOCH = "epoch"
    RESTART = "restart"


_ENDED = {State.RUNNING, State.REFUSED, State.ROLLED_BACK}


@app.command()
def key(
    path: Annotated[Path, typer.Argument(help="New file for the private key.", dir_okay=False)],
) -> None:
    """
    Make the key by which a publisher signs releases; the public key that is printed goes into nodes' configuration.

    Keep the file away from the coordinator: who has it decides what gateways run.

    Example: stromkreis gwa firmware key publisher.key
    """
    made = Ed25519PrivateKey.generate()
    pem = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        write(path, pem, mode=0o600)
    except OSError as error:
        raise StromkreisError(f"{path}: {error.strerror}; expected a new file in a directory that is there") from None
    typer.echo(f"{path}: for [node.firmware] of the nodes:")
    typer.echo(f'publishers = ["{made.public_key().public_bytes_raw().hex()}"]')


@app.command()
def build(
    wheel: Annotated[Path, typer.Argument(help="Wheel of the release.", exists=True, dir_okay=False)],
    *,
    key_file: Annotated[Path, typer.Option("--key", help="The publisher's private key.", exists=True, dir_okay=False)],
    hardware: Annotated[
        list[str] | None,
        typer.Option(help="Hardware that it runs on, [node.firmware] hardware; repeatable.", show_default="generic"),
    ] = None,
    minimum_version: Annotated[str, typer.Option(help="Release that must run before it at least.")] = "0.0.0",
    valid_from: Annotated[
        datetime | None,
        typer.Option(formats=_FORMATS, help="From when it may be installed, UTC unless it has a zone.",
                     show_default="now"),
    ] = None,
    valid_to: Annotated[
        datetime | None, typer.Option(formats=_FORMATS, help="Until when, exclusive.", show_default="without end")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="the wheel's directory, NAME-VERSION.firmware")
    ] = None,
) -> None:  # fmt: skip
    """
    Make a firmware file: the wheel, and before it the manifest, signed by the publisher.

    Name, version and the schema of the store are read from the wheel.

    Example: stromkreis gwa firmware build dist/stromkreis-0.2.0-py3-none-any.whl --key publisher.key
    """
    if wheel.stat().st_size > IMAGE_SIZE_MAX:
        raise StromkreisError(f"{wheel}: {wheel.stat().st_size} bytes; expected at most {IMAGE_SIZE_MAX}")
    image = wheel.read_bytes()
    try:
        facts = read_wheel(wheel)
        document = {
            "product": facts.product, "version": facts.version, "store_version": facts.store_version,
            "hardware": hardware or ["generic"], "minimum_version": minimum_version,
            "valid_from": _utc(valid_from or datetime.now(UTC)),
            "valid_to": None if valid_to is None else _utc(valid_to),
            "sha256": hashlib.sha256(image).hexdigest(), "size": len(image),
        }  # fmt: skip
        manifest = FirmwareManifest.from_bytes(json.dumps(document).encode()).signed_by(_publisher(key_file))
    except RemoteProtocolError as error:
        raise StromkreisError(f"{wheel}: {error.detail}") from None
    target = output or wheel.with_name(f"{facts.product}-{facts.version}.firmware")
    target.write_bytes(pack(manifest, image))
    typer.echo(f"{target}: {facts.product} {facts.version} for {', '.join(manifest.hardware)}, {manifest.sha256}")


@app.command("roll-out")
def roll_out(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="A firmware file; or the version of one that is kept already, such as 0.2.0.")
    ],
    gateways: GatewaysOption = "*",
    activate: Annotated[
        Activation,
        typer.Option(help="now: between two rounds; epoch: at the next border of epochs; restart: when the node is next"
                     " started."),
    ] = Activation.EPOCH,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait for the gateways' answers; 0: do not wait.")
    ] = 600.0,
) -> None:  # fmt: skip
    """
    Keep a release, order gateways to run it, and show what each says: running, refused and why, or rolled back.

    Call it again after a break: gateways that run it stay as they are, orders under way go on, and those that refused
    it or went back are told to try again. Begin with a few gateways (--gateways). Exit code 1 where one does not run
    it.

    Example: stromkreis gwa firmware roll-out dist/stromkreis-0.2.0.firmware --gateways 'ESTK010000000*'
    """
    with operator_client(context) as client:
        version = _kept(client, source)
        names = [name for name in enrolled(client) if fnmatchcase(name, gateways)]
        if not names:
            raise StromkreisError(f"no enrolled gateway matches {gateways!r}")
        progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=Console(file=sys.stderr), disable=not sys.stderr.isatty(),
        )  # fmt: skip
        with progress:
            ordering = progress.add_task("ordered", total=len(names))
            views: dict[str, Any] = {}
            for start in range(0, len(names), _AT_ONCE):
                part = names[start : start + _AT_ONCE]
                body = {"gateways": part, "activate": activate.value}
                answer = request(client, "POST", f"/firmware/{version}/orders", json=body).json()
                views |= {each["gateway"]: each for each in answer["items"]}
                progress.advance(ordering, len(part))
            _wait(client, views, wait_s, progress)
    _show(views.values())
    if any(each["state"] != State.RUNNING for each in views.values()):
        raise typer.Exit(1)


@app.command()
def status(
    context: typer.Context,
    gateways: GatewaysOption = "*",
    state: Annotated[State | None, typer.Option(help="Only those that stand so.")] = None,
) -> None:
    """
    List the newest order of each gateway and what the gateway said of it.

    Example: stromkreis gwa firmware status --state rolled_back
    """
    query = {"gateway": gateways} | ({} if state is None else {"state": state.value})
    with operator_client(context) as client:
        _show(pages(client, "/firmware/orders", query))


@app.command("list")
def show(context: typer.Context) -> None:
    """
    List the releases that are kept.

    Example: stromkreis gwa firmware list
    """
    table = Table("version", "hardware", "over", "valid from", "to", "bytes", "sha256", box=None, header_style="bold")
    with operator_client(context) as client:
        for each in request(client, "GET", "/firmware").json()["items"]:
            table.add_row(
                each["version"], ", ".join(each["hardware"]), each["minimum_version"], _when(each["valid_from"]),
                _when(each["valid_to"]), str(each["size"]), each["sha256"],
            )  # fmt: skip
    _print(table)


@app.command()
def remove(
    context: typer.Context, version: Annotated[str, typer.Argument(help="Version of a release that is kept.")]
) -> None:
    """
    Delete a release that no gateway's newest order names.

    Example: stromkreis gwa firmware remove 0.1.7
    """
    with operator_client(context) as client:
        request(client, "DELETE", f"/firmware/{version}")
    typer.echo(f"release {version} is removed")


def _publisher(path: Path) -> Ed25519PrivateKey:
    try:
        found = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        found = None
    if not isinstance(found, Ed25519PrivateKey):
        raise StromkreisError(f"{path}: expected an Ed25519 key in PEM (stromkreis gwa firmware key)")
    return found


def _kept(client: httpx.Client, source: str) -> str:
    """The version of a release that the coordinator keeps from here on."""
    path = Path(source)
    if not path.is_file():
        known = [each["version"] for each in request(client, "GET", "/firmware").json()["items"]]
        if source not in known:
            raise StromkreisError(
                f"{source}: expected a firmware file, or a version that is kept: {', '.join(known) or 'none'}"
            )
        return source
    document = path.read_bytes()
    try:
        manifest, _ = unpack(document)
    except RemoteProtocolError as error:
        raise StromkreisError(f"{path}: no firmware file (stromkreis gwa firmware build): {error.detail}") from None
    digests = {each["version"]: each["sha256"] for each in request(client, "GET", "/firmware").json()["items"]}
    if digests.get(manifest.version) != manifest.sha256:  # an operator may order what an administrator has brought
        headers = {"Content-Type": "application/octet-stream"}
        request(client, "POST", "/firmware", content=document, headers=headers)
    return manifest.version


def _wait(client: httpx.Client, views: dict[str, Any], wait_s: float, progress: Progress) -> None:
    """Bring the views up to date until every order has ended, or the time is over."""
    ending = progress.add_task("ended", total=len(views))
    until_s = time.monotonic() + wait_s
    while True:
        open_ones = {name for name, each in views.items() if each["state"] not in _ENDED}
        progress.update(ending, completed=len(views) - len(open_ones))
        if not open_ones or time.monotonic() >= until_s:
            return
        time.sleep(_LOOK_S)
        for each in pages(client, "/firmware/orders", {}):
            if each["gateway"] in open_ones and each["version"] == views[each["gateway"]]["version"]:
                views[each["gateway"]] = each


def _show(found: Iterable[dict[str, Any]]) -> None:
    table = Table("gateway", "version", "state", "answered", "reason", box=None, header_style="bold")
    states: Counter[str] = Counter()
    for each in found:
        states[each["state"]] += 1
        table.add_row(
            each["gateway"], each["version"], each["state"], _when(each["answered_at"]), plain(each["reason"])
        )
    _print(table)
    typer.echo(", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no orders")


def _print(table: Table) -> None:
    Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def _when(moment: str | None) -> str:
    return "" if moment is None else f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _utc(moment: datetime) -> str:
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).isoformat()
