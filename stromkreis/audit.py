"""`stromkreis audit`: the enrolment log from outside, and what a node keeps of epochs that it refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from node.config import NodeConfig
from node.storage.repositories.enrolment_log import Evidence, read_evidence
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.enrolment_log.entries import Entry, Kind, TreeHead
from protocol.enrolment_log.merkle import MerkleTree
from protocol.errors import RemoteProtocolError, StromkreisError
from protocol.link.tls import client_context
from stromkreis.config import load
from stromkreis.operator_client import CoordinatorOption, RootOption, request
from stromkreis.plain_text import plain
from stromkreis.services import ConfigFile

app = typer.Typer(
    help="The enrolment log, checked from outside; and what a node keeps of epochs that it refused.",
    no_args_is_help=True,
)
_TIMEOUT_S = 60.0
_PIPE_WIDTH = 240

GatewayOption = Annotated[str | None, typer.Option(help="Only entries of this gateway.")]


@app.command(name="log")
def show(
    *,
    coordinator: CoordinatorOption = "https://127.0.0.1:7381",
    root: RootOption = Path("var/coordinator/pki/root.pem"),
    gateway: GatewayOption = None,
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON object a line: a copy that replaces enrolment-log.jsonl.")
    ] = False,
) -> None:
    """
    Show the enrolment log: which certificates were issued, who was revoked, how rings' rounds ended.

    Example: stromkreis audit log --gateway ESTK0000000001
    """
    with _client(coordinator, root) as client:
        items = [each for each in _entries(client) if gateway in (None, each["subject"])]
    if json_:
        for each in items:
            typer.echo(json.dumps(each))
        return
    table = Table("number", "entered", "what", "whom", "SHA-256", box=None, header_style="bold")
    for each in items:
        table.add_row(str(each["number"]), _time(each["time_ms"]), each["kind"], each["subject"], each["digest"])
    _show(table)


@app.command()
def verify(
    *,
    coordinator: CoordinatorOption = "https://127.0.0.1:7381",
    root: RootOption = Path("var/coordinator/pki/root.pem"),
    key: Annotated[
        str | None, typer.Option(help="The log's public key, 64 hexadecimal digits, by a way of its own.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="File with the head that was seen last; made, and kept up to date.")
    ] = None,
) -> None:
    """
    Check the enrolment log: every entry makes the signed root, and nothing that was seen before has changed.

    The tree is computed anew from all entries. Without --key the key that the coordinator says is taken, and only that
    the log belongs to that key is shown. Give each auditor a --state file: that is what finds a log that was rewritten.

    Example: stromkreis audit verify --key 3f…9a --state log-head.json
    """
    with _client(coordinator, root) as client:
        told = request(client, "GET", "/enrolment-log/head").json()
        public = key or request(client, "GET", "/ring-service").json()["coordinator_log_key"]
        tree = MerkleTree(_leaf(each) for each in _entries(client))
    try:
        head = TreeHead(told["size"], bytes.fromhex(told["root"]), told["time_ms"], bytes.fromhex(told["signature"]))
        verify_key, suite = bytes.fromhex(public), StandardSuite()
        head.check(lambda text, signature: suite.verify(verify_key, text, signature))
    except (ValueError, KeyError, TypeError, RemoteProtocolError) as error:
        raise StromkreisError(f"the tree head is not signed by {public}: {error}") from None
    if tree.size < head.size or tree.root(head.size) != head.root:
        raise StromkreisError(
            f"the {tree.size} entries do not make the signed root of {head.size}: the log that is shown is not the one"
            " that was signed"
        )
    seen = None if state is None or not state.exists() else _state(state)
    if seen is not None and (seen[0] > head.size or tree.root(seen[0]) != seen[1]):
        raise StromkreisError(
            f"the log was rewritten: its first {seen[0]} entries had the root {seen[1].hex()} when {state} was written."
            " Keep that file, it is evidence"
        )
    if state is not None:
        state.write_text(json.dumps(told, indent=1) + "\n")
    since = "" if seen is None else f", {head.size - seen[0]} new since {state} was written"
    typer.echo(
        f"{head.size} entries{since}, head {head.size}:{head.root.hex()}, signed at {_time(head.time_ms)}: it holds"
    )


@app.command()
def evidence(
    *,
    config: ConfigFile = None,
    export: Annotated[
        Path | None, typer.Option(help="Directory for the messages as they came, one file each; made.")
    ] = None,
) -> None:
    """
    Show what this node's gateways keep of epochs that they refused: call, list and what did not hold, as it was signed.

    No reading is in it. Example: stromkreis audit evidence -c node.toml --export /tmp/evidence
    """
    found = read_evidence(load(NodeConfig, "node", config).store_path)
    table = Table("number", "refused", "gateway", "epoch", "messages", "why", box=None, header_style="bold")
    for each in found:
        names = ", ".join(f"{_name(data)} ({len(data)} B)" for data in each.messages)
        table.add_row(str(each.number), _time(each.time_ms), each.gateway, str(each.epoch), names, plain(each.reason))
    _show(table)
    if export is not None:
        written = sum(_export(each, export) for each in found)
        sys.stderr.write(f"{written} messages in {export}\n")


def _export(each: Evidence, directory: Path) -> int:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for index, data in enumerate(each.messages):
        name = f"{each.number:04}-{each.gateway}-{each.epoch}-{index}-{_name(data)}.msgpack"
        (directory / name).write_bytes(data)
    return len(each.messages)


def _name(data: bytes) -> str:
    try:
        return type(wire.decode(data, wire.FROM_COORDINATOR)).__name__
    except RemoteProtocolError:  # of another release
        return "message"


def _client(coordinator: str, root: Path) -> httpx.Client:
    try:
        tls = client_context(root)
    except (OSError, ValueError) as error:
        raise StromkreisError(
            f"{root}: cannot be read ({type(error).__name__}); expected the SM-PKI root of the coordinator: --root"
        ) from None
    return httpx.Client(base_url=coordinator, verify=tls, timeout=_TIMEOUT_S)


def _entries(client: httpx.Client) -> Iterator[dict[str, Any]]:
    following: int | None = 0
    while following is not None:
        page = request(client, "GET", "/enrolment-log/entries", params={"from": following}).json()
        yield from page["items"]
        following = page["next"]


def _leaf(row: dict[str, Any]) -> bytes:
    try:
        kind = Kind[str(row["kind"]).upper()]
        return Entry(kind, str(row["subject"]), bytes.fromhex(row["digest"]), int(row["time_ms"])).leaf
    except (KeyError, ValueError, TypeError) as error:
        raise StromkreisError(f"the coordinator shows an entry that is none ({type(error).__name__})") from None


def _state(path: Path) -> tuple[int, bytes]:
    try:
        row = json.loads(path.read_text())
        return int(row["size"]), bytes.fromhex(row["root"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StromkreisError(
            f"{path}: no tree head ({type(error).__name__}); expected a file that this command has written"
        ) from None


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds")


def _show(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)
