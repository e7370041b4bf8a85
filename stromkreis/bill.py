"""`stromkreis bill`: publish a tariff, ask the gateways of an area for their bills, see what they owe."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from protocol.dcnet.billing.tariff import Tariff
from protocol.errors import RemoteProtocolError, StromkreisError
from stromkreis.operator_client import call, operator_options

app = typer.Typer(
    help="Bills from the commitments of verified totals: an amount for each gateway, and no reading.",
    no_args_is_help=True,
)

_LOOK_S = 2.0
_PAGE = 1000
_PIPE_WIDTH = 240


class Status(StrEnum):
    """How a bill stands."""

    ASKED = "asked"
    VERIFIED = "verified"
    REFUSED = "refused"
    DECLINED = "declined"


class Format(StrEnum):
    """How a list is printed."""

    TABLE = "table"
    JSON = "json"


TariffOption = Annotated[str, typer.Option("--tariff", help="Digest of a published tariff.")]


app.callback()(operator_options)


@app.command()
def publish(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="Tariff in JSON (docs/howto/operations.md).")
    ],
) -> None:
    """
    Sign a tariff and publish it; prints the digest that names it from then on.

    Example: stromkreis bill publish november.json
    """
    try:
        document = json.loads(file.read_bytes(), parse_float=Decimal)
        tariff = Tariff.from_document(document)
    except (ValueError, RemoteProtocolError) as error:
        raise StromkreisError(f"{file}: no tariff: {error}") from None
    answer = call(context, "POST", "/tariffs", json=json.loads(tariff.to_bytes()))
    unit = f"10^{tariff.price_scaler} {tariff.currency}/{tariff.unit}"
    span = f"{len(tariff.prices)} prices from {min(tariff.prices)} to {max(tariff.prices)} {unit}"
    sys.stderr.write(f"{tariff.name}: {span}, {tariff.obis}, from {answer['start']}\n")
    typer.echo(answer["digest"])


@app.command()
def tariffs(context: typer.Context, style: Annotated[Format, typer.Option("--format")] = Format.TABLE) -> None:
    """List the published tariffs, newest first."""
    items = call(context, "GET", "/tariffs")["items"]
    if style is Format.JSON:
        _lines(items)
        return
    table = Table("digest", "name", "register", "from", "intervals", box=None, header_style="bold")
    for each in items:
        table.add_row(each["digest"], each["name"], each["obis"], each["start"], str(each["intervals"]))
    _show(table)


@app.command()
def ask(
    context: typer.Context,
    *,
    area: Annotated[str, typer.Option(help="Grid area whose gateways are billed.")],
    from_: Annotated[datetime, typer.Option("--from", help="First interval start, UTC unless it has a zone.")],
    to: Annotated[datetime, typer.Option("--to", help="Last interval start, exclusive; it must have ended.")],
    tariff: TariffOption,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until every bill of the area has its answer.")] = False,
) -> None:
    """
    Ask the gateways of an area for their bills over a period.

    Intervals that are in a bill already, or were not in a verified total, are left out.

    Example: stromkreis bill ask --area north --from 2026-11-01 --to 2026-12-01 --tariff DIGEST --wait
    """
    body = {"area": area, "from": _utc(from_), "to": _utc(to), "tariff": tariff}
    answer = call(context, "POST", "/bills", json=body)
    if not answer["bills"]:
        typer.echo(
            "nothing to bill: "
            + (f"{answer['unranged']} gateways owe range proofs for the period; " if answer["unranged"] else "")
            + (f"the intervals of {answer['nothing_left']} gateways are in bills already" if answer["nothing_left"]
               else "no gateway of the area was in a verified total ([coordinator.epoch] verified = true)")
        )  # fmt: skip
        return
    typer.echo(f"{answer['bills']} bills over {answer['intervals']} intervals are asked for")
    if wait:
        while list(_pages(context, {"area": area, "tariff": tariff, "status": "asked"})):
            time.sleep(_LOOK_S)
        _summary(list(_pages(context, {"area": area, "tariff": tariff})))


@app.command("list")
def list_(
    context: typer.Context,
    *,
    area: Annotated[str | None, typer.Option(help="Only this area.")] = None,
    tariff: Annotated[str | None, typer.Option(help="Only bills by the tariff of this digest.")] = None,
    gateway: Annotated[str | None, typer.Option(help="Only this gateway.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only bills that stand so.")] = None,
    style: Annotated[Format, typer.Option("--format", help="A table, or JSON lines.")] = Format.TABLE,
) -> None:
    """
    List bills: amounts are exact by up to 20 prices, else rounded down as the column says; energy is the bill's sum.

    Example: stromkreis bill list --area north --status refused
    """
    query = {"area": area, "tariff": tariff, "gateway": gateway, "status": status and status.value}
    found = list(_pages(context, {key: value for key, value in query.items() if value is not None}))
    if style is Format.JSON:
        _lines(found)
        return
    table = Table("gateway", "area", "from", "to", "intervals", "status", box=None, header_style="bold")
    for name in ("energy", "amount", "rounded to"):
        table.add_column(name, justify="right")
    table.add_column("reason")
    for each in found:
        amount, rounded_to = (_money(each[name], each["currency"]) for name in ("amount", "rounded_to"))
        reason = each["reason"] or (f"{each['averaged']} intervals at mean prices" if each["averaged"] else "")
        table.add_row(
            each["gateway"], each["area"], each["first_interval"], each["last_interval"], str(each["intervals"]),
            each["status"], each["energy"] or "", amount, rounded_to, reason,
        )  # fmt: skip
    _show(table)
    _summary(found)


@app.command()
def excuse(context: typer.Context, gateway: Annotated[str, typer.Argument(help="Gateway id.")]) -> None:
    """
    Wait no more for the range proofs that a gateway owes.

    For one that has lost its store and can never make them: until it is excused it is in no total and no bill.

    Example: stromkreis bill excuse ESTK0000000003
    """
    count = call(context, "DELETE", f"/range-proofs/{gateway}")["proofs"]
    typer.echo(f"{gateway} is excused from {count} proofs" if count else f"{gateway} owes no proof")


def _money(amount: str | None, currency: str) -> str:
    return "" if amount is None else f"{amount} {currency}"


def _pages(context: typer.Context, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cursor: str | None = None
    while True:
        page = call(context, "GET", "/bills", params={**query, "limit": _PAGE} | ({"cursor": cursor} if cursor else {}))
        yield from page["items"]
        cursor = page["next"]
        if cursor is None:
            return


def _summary(found: list[dict[str, Any]]) -> None:
    told = ", ".join(_counted(found, status) for status in Status if any(each["status"] == status for each in found))
    sums: dict[str, Decimal] = {}
    for each in found:
        if each["status"] == Status.VERIFIED:
            sums[each["currency"]] = sums.get(each["currency"], Decimal(0)) + Decimal(each["amount"])
    total = "; verified in all: " + ", ".join(f"{amount:f} {currency}" for currency, amount in sums.items())
    typer.echo(f"{told or 'no bills'}{total if sums else ''}")


def _counted(found: list[dict[str, Any]], status: Status) -> str:
    """`24 declined (too_few_priced_intervals)`: whoever waits for bills shall not have to list them for the reason."""
    mine = [each["reason"] for each in found if each["status"] == status]
    reasons = ", ".join(sorted({reason for reason in mine if reason}))
    return f"{len(mine)} {status}" + (f" ({reasons})" if reasons else "")


def _lines(items: list[dict[str, Any]]) -> None:
    for each in items:
        typer.echo(json.dumps(each, ensure_ascii=False))


def _show(table: Table) -> None:
    # Into a pipe nothing is folded: a line is a bill.
    Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def _utc(moment: datetime) -> str:
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).isoformat()
