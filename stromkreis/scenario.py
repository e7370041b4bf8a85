"""`stromkreis scenario`: energy management behind a gateway, option by option; the scenarios are `loadtest.ems`."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from protocol.errors import StromkreisError
from stromkreis.services import serve

if TYPE_CHECKING:
    from loadtest.ems.result import Result
    from loadtest.ems.run import Settings

NEEDED = ("ocpp", "websockets", "python_socks")
_ALL = "ems"
_PREFIX = "ems-"
_MINUTE_S = 60.0


def scenario(
    names: Annotated[
        list[str], typer.Argument(help="ems-1a, ems-1b, ems-1c, ems-2a, ems-2b, ems-2c, or ems for all of them.")
    ],
    *,
    duration_s: Annotated[
        float | None,
        typer.Option(
            min=5,
            help="Seconds of undisturbed measurement.",
            show_default="60, or two periods of what is delivered or shown",
        ),
    ] = None,
    cut_s: Annotated[float, typer.Option(min=1, help="Seconds without the WAN.")] = 15.0,
    wan: Annotated[str, typer.Option(help="Link profile of the WAN (stromkreis netem list).")] = "lte",
    emp_values: Annotated[
        str, typer.Option(help="What the EMP gets in 1b and 1c: values of 1s or 1min (TAF 14), 5min or 15min (TAF 13).")
    ] = "1s",
    display_s: Annotated[
        int, typer.Option(min=1, max=900, help="1a, 1c: how often the gateway shows a new value at home (s).")
    ] = 1,
    out: Annotated[Path, typer.Option(help="Directory for results; the report has all that are there.")] = Path(
        "out/ems"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Keep the processes' files also where all is well.")] = False,
) -> None:
    """
    Measure options of energy management (EMS) behind a smart meter gateway, with real parts.

    Each starts a meter, a coordinator with the market participant's inbox (EMP), a gateway, a CLS adapter, an EMS at
    home, at the EMP, or both, a Modbus charger and an OCPP 1.6 charge point. It measures how old the EMS's newest value
    is by the meter's clock, what commands take, cold tunnels, and the way back after a cut WAN. Ends with
    OUT/ems-1a.json and so on, and OUT/report.html, which sets all results in OUT beside the paper's table.

    Examples: stromkreis scenario ems-1a

    stromkreis scenario ems --wan cdma450 --out out/ems-cdma

    stromkreis scenario ems-1a --display-s 900 --out out/ems-1a-900
    """
    _require()
    from loadtest.ems.installation import EMP_VALUES  # noqa: PLC0415 - `--help` shall not wait for all of it
    from loadtest.ems.options import OPTIONS  # noqa: PLC0415
    from loadtest.ems.run import Settings  # noqa: PLC0415
    from netem.profiles import load_profiles  # noqa: PLC0415

    known = [f"{_PREFIX}{name}" for name in OPTIONS]
    chosen = list(dict.fromkeys(name for each in names for name in (known if each == _ALL else [each])))
    for value, allowed, hint in (
        *((name, known, "NAMES") for name in chosen), (wan, list(load_profiles()), "--wan"),
        (emp_values, list(EMP_VALUES), "--emp-values"),
    ):  # fmt: skip
        if value not in allowed:
            raise typer.BadParameter(f"found {value}; expected one of {', '.join(allowed)}", param_hint=hint)
    failed = False
    for name in chosen:
        settings = Settings(out, duration_s or 0, cut_s, wan, emp_values, display_s)
        result = _play(name.removeprefix(_PREFIX), settings)
        failed = failed or bool(result.failures)
        if not result.failures and not keep:
            shutil.rmtree(out / f"run-{result.option}", ignore_errors=True)
            shutil.rmtree(out / f"log-{result.option}", ignore_errors=True)
    if failed:
        raise typer.Exit(1)


def _play(name: str, settings: Settings) -> Result:
    from loadtest.ems.installation import EMP_VALUES  # noqa: PLC0415
    from loadtest.ems.options import OPTIONS, Source  # noqa: PLC0415
    from loadtest.ems.page import load_results, write_page  # noqa: PLC0415
    from loadtest.ems.run import Run  # noqa: PLC0415

    option, console, out = OPTIONS[name], Console(soft_wrap=True), settings.directory
    usual_s = _MINUTE_S
    if option.remote is Source.INBOX:
        usual_s = 2 * max(_MINUTE_S, EMP_VALUES[settings.emp_values].period_s) + 10
    if option.local is Source.CONSUMER_INTERFACE:
        usual_s = max(usual_s, 2 * settings.display_s + 10)
    settings = replace(settings, duration_s=settings.duration_s or usual_s)
    console.print(f"[bold]ems-{name}[/bold]: {option.title}", highlight=False)

    def say(text: str) -> None:
        console.print(f"{datetime.now().astimezone():%H:%M:%S}  {text}", highlight=False)

    results: list[Result] = []

    async def play() -> None:
        results.append(await Run(option, settings, say).run())

    serve(play)
    if not results:
        raise typer.Exit(130)
    results[0].save(out)
    write_page(load_results(out), out / "report.html")
    _show(results[0], out, console)
    return results[0]


def _show(result: Result, out: Path, console: Console) -> None:
    from loadtest.ems.page import measured_rows  # noqa: PLC0415

    table = Table(box=None, show_header=False, pad_edge=False)
    for row in measured_rows({result.option: result}):
        lines = [line for cell in row.cells for line in cell if line]
        table.add_row(row.title, "\n".join(lines))
    console.print(table, highlight=False)
    for failure in result.failures:
        console.print(f"FAILED: {failure}", style="bold red", highlight=False)
        console.print(f"logs: {out / f'log-{result.option}'}", highlight=False)
    console.print(f"report: {out / 'report.html'}", highlight=False)


def _require() -> None:
    missing = [name for name in NEEDED if is_missing(name)]
    if missing:
        raise StromkreisError(
            f"scenarios of energy management need {', '.join(missing)}: install stromkreis[ems], or `make ems`"
        )


def is_missing(name: str) -> bool:
    """Whether a package is not installed."""
    return importlib.util.find_spec(name) is None
