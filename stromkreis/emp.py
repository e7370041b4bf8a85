"""`stromkreis emp`: what gateways have delivered to the market participant (EMP), and totals for it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from protocol.errors import StromkreisError
from stromkreis.emp_totals import totals
from stromkreis.operator_client import call, operator_client, operator_options
from stromkreis.parquet import lines_of, write_parquet

app = typer.Typer(help="Market participant (EMP): deliveries of gateways, holes, export, totals.", no_args_is_help=True)
app.callback()(operator_options)

_PAGE = 1000
_PIPE_WIDTH = 240


@app.command()
def deliveries(
    context: typer.Context,
    gateway: Annotated[str | None, typer.Option(help="Only direct deliveries of this gateway.")] = None,
) -> None:
    """
    List deliveries: period, profile, whether they are complete. No values.

    Example: stromkreis emp deliveries --gateway ESTK0000000003
    """
    table, count = _table(), 0
    after: str | None = ""
    while after is not None:
        query = {"limit": _PAGE, "after": after} | ({} if gateway is None else {"gateway": gateway})
        page = call(context, "GET", "/deliveries", params=query)
        for each in page["items"]:
            _add(table, each)
            count += 1
        after = page["next"]
    _show(table)
    typer.echo(f"{count} deliveries")


@app.command()
def missing(context: typer.Context) -> None:
    """
    Report holes: periods between two deliveries that are not there, and delivered ones in which values are missing.

    Exit code 1 where there are any.

    Example: stromkreis emp missing
    """
    found = call(context, "GET", "/deliveries/missing")
    holes = Table("gateway", "profile", "no delivery from", "to", box=None, header_style="bold")
    for each in found["periods"]:
        holes.add_row(each["gateway"], each["profile"], each["start"], each["end"])
    incomplete = _table()
    for each in found["incomplete"]:
        _add(incomplete, each)
    for table in (holes, incomplete):
        if table.row_count:
            _show(table)
    typer.echo(f"{len(found['periods'])} periods without a delivery, {len(found['incomplete'])} with missing values")
    if found["periods"] or found["incomplete"]:
        raise typer.Exit(1)


@app.command()
def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="File to write, .csv or .parquet; it must not be there yet.")],
    *,
    from_: Annotated[
        datetime, typer.Option("--from", help="First start of a billing period, UTC unless it has a zone.")
    ],
    to: Annotated[datetime, typer.Option("--to", help="Last start of a billing period, exclusive.")],
) -> None:
    """
    Write all delivered values of billing periods: readings in clear, so the file is only its owner's to read.

    A name that ends in .parquet makes a Parquet file (pip install 'stromkreis[parquet]'), any other one a CSV.

    Example: stromkreis emp export november.csv --from 2026-11-01 --to 2026-12-01
    """
    query = {"from": _utc(from_), "to": _utc(to)}
    try:
        file.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        raise StromkreisError(f"{file}: it is there already; expected a new file") from None
    try:
        count = _fetch(context, query, file)
    except BaseException:  # half an export must not pass for one
        file.unlink()
        raise
    typer.echo(f"{count} values in {file}")


def _fetch(context: typer.Context, query: dict[str, str], file: Path) -> int:
    """Write the export as it comes; the number of values."""
    with (
        operator_client(context) as client,
        client.stream("GET", "/api/v1/deliveries/values.csv", params=query) as response,
    ):
        if not response.is_success:
            raise StromkreisError(f"{client.base_url} refuses: status {response.status_code}")
        if file.suffix == ".parquet":
            return write_parquet(lines_of(response.iter_text()), file)
        lines = 0
        with file.open("wb") as target:
            for part in response.iter_bytes():
                target.write(part)
                lines += part.count(b"\n")
        return max(0, lines - 1)


app.command()(totals)


def _table() -> Table:
    return Table(
        "sender", "profile", "TAF", "from", "to", "state", "complete", "missing", box=None, header_style="bold"
    )


def _add(table: Table, each: dict[str, Any]) -> None:
    complete = {True: "yes", False: "no", None: ""}[each["is_complete"]]
    table.add_row(
        each["sender"] or each["gateway"] or "", each["profile"] or "", str(each["taf"] or ""), each["start"] or "",
        each["end"] or "", f"{each['state']} {each['reason']}".strip(), complete, str(each["missing"] or ""),
    )  # fmt: skip


def _show(table: Table) -> None:
    Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def _utc(moment: datetime) -> str:
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).isoformat()
