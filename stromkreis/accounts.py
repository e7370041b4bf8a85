"""`stromkreis gwa accounts` and `gwa audit`: who may use the coordinator, and what they did."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from protocol.audit import AuditEntry, check_chain
from protocol.errors import RemoteProtocolError, StromkreisError
from protocol.link.tls import client_context
from stromkreis.oidc_log_in import code_from_browser
from stromkreis.operator_client import Operator, call, operator_client, request
from stromkreis.plain_text import plain

app = typer.Typer(help="Accounts with roles: viewer, operator, administrator.", no_args_is_help=True)
audit_app = typer.Typer(help="The audit log: what accounts did.", no_args_is_help=True)

_PAGE = 1000
_PIPE_WIDTH = 240
_TIMEOUT_S = 60.0

NameArgument = Annotated[str, typer.Argument(help="Name of the account: small letters, digits and . _ @ -")]
RoleOption = Annotated[
    str,
    typer.Option(
        help="viewer: sees states; operator: rolls out, asks for bills, reads values; administrator: accounts, too."
    ),
]
PasswordOption = Annotated[
    str,
    typer.Option(
        prompt="Password", hide_input=True, confirmation_prompt=True, help="Asked for where it is not given.",
        envvar="STROMKREIS_PASSWORD",
    ),
]  # fmt: skip


@app.command("log-in")
def log_in(
    context: typer.Context,
    name: NameArgument,
    password: Annotated[
        str, typer.Option(prompt="Password", hide_input=True, help="Asked for.", envvar="STROMKREIS_PASSWORD")
    ],
) -> None:
    """
    Log in: the token goes into --token-file, where the other commands look for it, and is good for 12 hours.

    Example: stromkreis gwa --token-file ~/stromkreis.token accounts log-in alice
    """
    with _anonymous_client(context.obj) as client:
        session = request(client, "POST", "/sessions", json={"name": name, "password": password}).json()
    _keep(context.obj, session)


@app.command("oidc-log-in")
def oidc_log_in(
    context: typer.Context,
    *,
    browser: Annotated[bool, typer.Option(help="Open a browser; the address is shown in any case.")] = True,
    wait_s: Annotated[float, typer.Option("--wait", min=1, max=600, help="Seconds to log in.")] = 300.0,
) -> None:
    """
    Log in at the OpenID provider of the coordinator ([coordinator.oidc]), in a browser on this machine.

    The token goes into --token-file, as with log-in.

    Example: stromkreis gwa --token-file ~/stromkreis.token accounts oidc-log-in
    """
    secret = ""
    with _anonymous_client(context.obj) as client:

        def begin(redirect_uri: str) -> tuple[str, str]:
            nonlocal secret
            begun = request(client, "POST", "/oidc/log-ins", json={"redirect_uri": redirect_uri}).json()
            secret = begun["secret"]
            return begun["state"], begun["url"]

        def show(url: str) -> None:
            typer.echo(f"log in at {url}")
            if browser:
                webbrowser.open(url)

        state, code = code_from_browser(begin, show, wait_s)
        body = {"state": state, "secret": secret, "code": code}
        session = request(client, "POST", "/oidc/sessions", json=body).json()
    _keep(context.obj, session)


@app.command("log-out")
def log_out(context: typer.Context) -> None:
    """
    Log out: the token in --token-file is good for nothing any more, and the file goes.

    Example: stromkreis gwa --token-file ~/stromkreis.token accounts log-out
    """
    operator: Operator = context.obj
    with operator_client(context) as client:
        if client.headers["Authorization"].startswith("Bearer stk_op_"):
            raise StromkreisError(f"{operator.token_file} is the coordinator's own token, nobody's log-in")
        request(client, "DELETE", "/sessions")
    operator.token_file.unlink()
    typer.echo("logged out")


@app.command("list")
def show(context: typer.Context) -> None:
    """
    List all accounts.

    Example: stromkreis gwa accounts list
    """
    table = Table("name", "role", "since", "disabled since", box=None, header_style="bold")
    for each in call(context, "GET", "/accounts")["items"]:
        table.add_row(each["name"], each["role"], _day(each["created_at"]), _day(each["disabled_at"]))
    _print(table)


@app.command()
def add(context: typer.Context, name: NameArgument, role: RoleOption, password: PasswordOption) -> None:
    """
    Make an account.

    Example: stromkreis gwa accounts add alice --role operator
    """
    call(context, "POST", "/accounts", json={"name": name, "role": role, "password": password})
    typer.echo(f"{name} is {role}")


@app.command()
def role(
    context: typer.Context,
    name: NameArgument,
    role: Annotated[str, typer.Argument(help="viewer, operator or administrator.")],
) -> None:
    """
    Give an account another role; it is logged out everywhere.

    Example: stromkreis gwa accounts role alice viewer
    """
    _change(context, name, {"role": role}, f"is {role}")


@app.command()
def password(context: typer.Context, name: NameArgument, password: PasswordOption) -> None:
    """
    Give an account another password; it is logged out everywhere.

    Example: stromkreis gwa accounts password alice
    """
    _change(context, name, {"password": password}, "has another password")


@app.command()
def disable(context: typer.Context, name: NameArgument) -> None:
    """
    Disable an account: nobody can log in under it, and whoever is gets logged out. It stays, as the audit log names it.

    Example: stromkreis gwa accounts disable alice
    """
    _change(context, name, {"disabled": True}, "is disabled")


@app.command()
def enable(context: typer.Context, name: NameArgument) -> None:
    """
    Enable a disabled account again.

    Example: stromkreis gwa accounts enable alice
    """
    _change(context, name, {"disabled": False}, "is enabled")


@audit_app.command("list")
def audit_list(
    context: typer.Context,
    account: Annotated[str | None, typer.Option(help="Only what this account did.")] = None,
) -> None:
    """
    List the audit log, the oldest entry first.

    Example: stromkreis gwa audit list --account alice
    """
    table = Table("number", "time", "account", "role", "action", "subject", "address", box=None, header_style="bold")
    with operator_client(context) as client:
        for entry, _ in _entries(client):
            if account in (None, entry.account):
                when = f"{datetime.fromtimestamp(entry.time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
                said = entry.account, entry.role, entry.action, entry.subject, entry.address
                table.add_row(str(entry.number), when, *map(plain, said))
    _print(table)


@audit_app.command()
def verify(
    context: typer.Context,
    head: Annotated[str | None, typer.Option(help="NUMBER:DIGEST that was kept from an earlier call.")] = None,
) -> None:
    """
    Check that no entry of the audit log was changed or removed, and print its head.

    Keep the head elsewhere and give it the next time: that finds a tail that was cut off. Exit code 1 where something
    does not fit.

    Example: stromkreis gwa audit verify --head 812:9f2c...
    """
    kept = None if head is None else _head(head)
    with operator_client(context) as client:
        try:
            number, digest = check_chain(_entries(client), kept)
        except RemoteProtocolError as error:
            typer.echo(f"the audit log does not hold: {error}", err=True)
            raise typer.Exit(1) from None
    typer.echo(f"{number} entries hold; keep this head: {number}:{digest.hex()}")


def _anonymous_client(operator: Operator) -> httpx.Client:
    """For a log-in.  Raises StromkreisError where there is no root, or the token file is not for log-ins."""
    try:
        tls = client_context(operator.root)
    except (OSError, ValueError) as error:
        raise StromkreisError(
            f"{operator.root}: cannot be read ({type(error).__name__}); expected the SM-PKI root of the coordinator"
        ) from None
    if operator.token_file.exists() and operator.token_file.read_text().startswith("stk_op_"):
        raise StromkreisError(
            f"{operator.token_file} is the coordinator's own token; give another --token-file for that of a log-in"
        )
    return httpx.Client(base_url=operator.coordinator, verify=tls, timeout=_TIMEOUT_S)


def _keep(operator: Operator, session: dict[str, Any]) -> None:
    """Put a log-in's token where the other commands look for it."""
    _write(operator.token_file, session["token"])
    until = datetime.fromisoformat(session["until"]).astimezone()
    told = f"{session['name']} is logged in as {session['role']} until {until:%Y-%m-%d %H:%M}"
    typer.echo(f"{told}: {operator.token_file}")


def _change(context: typer.Context, name: str, change: dict[str, Any], told: str) -> None:
    call(context, "PATCH", f"/accounts/{name}", json=change)
    typer.echo(f"{name} {told}")


def _entries(client: httpx.Client) -> Iterator[tuple[AuditEntry, bytes]]:
    after: int | None = 0
    while after is not None:
        page = request(client, "GET", "/audit-log", params={"after": after, "limit": _PAGE}).json()
        for each in page["items"]:
            digest = bytes.fromhex(each.pop("digest"))
            yield AuditEntry(**{**each, "previous": bytes.fromhex(each["previous"])}), digest
        after = page["next"]


def _head(text: str) -> tuple[int, bytes]:
    number, _, digest = text.partition(":")
    try:
        return int(number), bytes.fromhex(digest)
    except ValueError:
        raise StromkreisError(f"--head {text}: expected NUMBER:DIGEST, as `audit verify` prints it") from None


def _write(path: Path, token: str) -> None:
    unfinished = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(f"{token}\n")
    unfinished.replace(path)


def _day(moment: str | None) -> str:
    return "" if moment is None else f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d}"


def _print(table: Table) -> None:
    Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)
