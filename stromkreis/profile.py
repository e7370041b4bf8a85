"""`stromkreis profile`: profile sets checked before they are rolled out, and what a use case makes of given values."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from node.taf.evaluate import evaluate
from node.taf.result import Result
from node.taf.series import RegisterValue
from protocol.errors import RemoteProtocolError, StromkreisError
from protocol.profiles.calendar import LEGAL_TIME
from protocol.profiles.processing import ProcessingProfile
from protocol.profiles.profile_set import ProfileSet, json_schema
from protocol.profiles.use_cases import Prepaid

app = typer.Typer(help="Profile sets of a gateway: check them, evaluate their use cases.", no_args_is_help=True)

ProfileFile = Annotated[Path, typer.Argument(help="A profile set as JSON.", exists=True, dir_okay=False)]


@app.command()
def check(file: ProfileFile) -> None:
    """
    Check a profile set as a gateway does: every field, every reference, all or nothing.

    Example: stromkreis profile check profiles.json
    """
    profiles = _read(file)
    table = Table("processing profile", "TAF", "register", "period", "delivered to", box=None, pad_edge=False)
    for each in profiles.processing:
        recipients = ", ".join(f"{one.participant} ({one.delivery})" for one in each.recipients)
        period = f"{each.registration_period_s} s{'' if each.is_billable else ', not for billing'}"
        table.add_row(each.id, str(each.use_case.taf), each.obis, period, recipients)
    typer.echo(
        f"{file}: version {profiles.version} for {profiles.gateway}: {len(profiles.meters)} meters, "
        f"{len(profiles.processing)} processing profiles, {len(profiles.wan)} WAN, {len(profiles.han)} HAN, "
        f"{len(profiles.proxy)} proxy"
    )
    Console().print(table)


@app.command()
def schema() -> None:
    """
    Print the JSON schema of a profile set, for editors and generators.

    Example: stromkreis profile schema > profile-set.schema.json
    """
    typer.echo(json.dumps(json_schema(), indent=2))


@app.command("evaluate")
def evaluate_file(
    file: ProfileFile,
    profile: Annotated[str, typer.Argument(help="Id of a processing profile in it.")],
    values: Annotated[
        list[Path],
        typer.Argument(
            help="CSV with columns time (ISO 8601 with zone), value (in the register's unit) and optionally valid "
            "(0 or 1); one file for each meter of the profile, in its order.",
            exists=True, dir_okay=False,
        ),
    ],
    at: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"], help="A day in the billing period, by German legal time.",
            show_default="the last value's",
        ),
    ] = None,
) -> None:  # fmt: skip
    """
    Compute what a use case derives from register values, as the gateway does: to check a bill, or a profile.

    Prints one JSON object. Numbers are text, exact, in the register's unit.

    Example: stromkreis profile evaluate profiles.json p1 meter.csv --at 2026-10-01
    """
    chosen = _chosen(_read(file), profile, file)
    meters = [list(_values(each, chosen)) for each in values]
    if at is not None:
        moment_s = int(at.replace(tzinfo=LEGAL_TIME).timestamp())
    elif any(meters):
        moment_s = max(each.at_s for meter in meters for each in meter) - 1
    else:
        raise StromkreisError(f"{values[0]}: no values; expected at least one row, or a day by --at")
    index = chosen.billing_period.index_at(moment_s)
    if index < 0:
        raise StromkreisError(
            f"profile {profile}: its first billing period begins {_text(chosen.billing_period.start_s(0))}"
        )
    typer.echo(json.dumps(_document(evaluate(chosen, meters, index), chosen), indent=2))


def _read(file: Path) -> ProfileSet:
    try:
        return ProfileSet.from_bytes(file.read_bytes())
    except RemoteProtocolError as error:
        raise StromkreisError(f"{file}: no profile set that a gateway takes: {error.detail}") from error


def _chosen(profiles: ProfileSet, wanted: str, file: Path) -> ProcessingProfile:
    for each in profiles.processing:
        if each.id == wanted:
            return each
    known = ", ".join(each.id for each in profiles.processing) or "none"
    raise StromkreisError(f"{file}: no processing profile {wanted!r}; it has {known}")


def _values(file: Path, profile: ProcessingProfile) -> Iterator[RegisterValue]:
    with file.open(newline="", encoding="utf-8") as lines:
        rows = csv.DictReader(lines)
        if not {"time", "value"} <= set(rows.fieldnames or ()):
            raise StromkreisError(f"{file}: expected a first line with the columns time and value")
        for row in rows:
            try:
                moment = datetime.fromisoformat(row["time"])
                mantissa = Decimal(row["value"]).scaleb(-profile.scaler)
                if moment.tzinfo is None or not mantissa.is_finite():
                    raise ValueError
            except (ValueError, TypeError, InvalidOperation):
                expected = "expected a time with zone such as 2026-10-01T00:00:00+02:00, and a number"
                raise StromkreisError(f"{file}, line {rows.line_num}: {expected}") from None
            yield RegisterValue(int(moment.timestamp()), int(mantissa // 1), (row.get("valid") or "1").strip() != "0")


def _document(result: Result, profile: ProcessingProfile) -> dict[str, Any]:
    def number(mantissa: int) -> str:
        return f"{Decimal(mantissa).scaleb(profile.scaler):f}"

    rows = [{"time": _text(each.at_s), "value": number(each.value), "valid": each.is_valid} for each in result.rows]
    document: dict[str, Any] = {
        "profile": profile.id, "taf": profile.use_case.taf, "from": _text(result.start_s), "to": _text(result.end_s),
        "complete": result.is_complete, "billable": profile.is_billable,
        "registers": {str(each.obis): number(each.value) for each in result.registers},
        "rows": rows,
    }  # fmt: skip
    for name, extremes in (("largest", result.largest), ("smallest", result.smallest)):
        if extremes:
            document[name] = [{"from": _text(each.start_s), "energy": number(each.energy)} for each in extremes]
    if result.controls:
        document["controls"] = [
            {
                "system": each.system, "from": _text(each.start_s), "to": _text(each.end_s), "limit_w": each.limit_w,
                "before": None if each.before is None else number(each.before.value),
                "after": None if each.after is None else number(each.after.value),
            }
            for each in result.controls
        ]  # fmt: skip
    if result.account is not None and isinstance(profile.use_case, Prepaid):
        credit = Decimal(result.account.credit).scaleb(profile.use_case.price_scaler + profile.scaler)
        document |= {"credit": f"{credit:f}", "standing": result.account.standing.value}
    return document


def _text(moment_s: int) -> str:
    return datetime.fromtimestamp(moment_s, LEGAL_TIME).isoformat()
