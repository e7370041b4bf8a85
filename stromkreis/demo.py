"""`stromkreis demo`: the settings of a demo as options; the demo itself is `loadtest.demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loadtest.demo.plan import DemoSettings
from loadtest.demo.run import Demo, wrong_settings
from stromkreis.services import serve

_RECORDINGS = Path("../shared/corpora/sml")


def demo(
    *,
    gateways: Annotated[int, typer.Option(help="Gateways, 24 or more.")] = 48,
    rounds: Annotated[int | None, typer.Option(help="Quarter hours to run; None: 24, or 20 of many gateways.")] = None,
    period_s: Annotated[
        float | None, typer.Option(help="Seconds of a quarter hour; chosen by the number of gateways.")
    ] = None,
    setup_s: Annotated[
        float | None, typer.Option(help="Seconds until the first round; a slow machine needs more.")
    ] = None,
    ring_size: Annotated[int | None, typer.Option(help="Gateways in a ring at most; 24, or 64 with many.")] = None,
    processes: Annotated[int, typer.Option(help="Processes that host gateways; one of them is killed.")] = 4,
    seed: Annotated[int, typer.Option(help="The same seed gives the same households.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Stay up until Ctrl-C.")] = False,
    out: Annotated[Path, typer.Option(help="Directory for report, logs and state.")] = Path("out/demo"),
    replay: Annotated[
        Path, typer.Option(help="Directory of recorded SML dumps to replay byte for byte, if it is there.")
    ] = _RECORDINGS,
    web_port: Annotated[int, typer.Option(help="Port of the dashboard, if it is free.")] = 7380,
) -> None:
    """
    Run a neighbourhood on this machine and hold every total against ground truth.

    Simulated and recorded meters, a coordinator with a dashboard, and gateways in several processes, one of which is
    killed and restarted. A quarter hour takes about a second. Ends with a summary and OUT/report.json; the exit code
    is 1 where a total is not exact, energy was lost, or fewer than 90 % of the rounds opened.

    Examples: stromkreis demo --keep

    stromkreis demo --gateways 1000
    """
    settings = DemoSettings(
        gateways, rounds, period_s, setup_s, ring_size, processes, seed, keep, out,
        replay if replay.is_dir() else None, web_port,
    )  # fmt: skip
    for wrong in wrong_settings(settings):
        raise typer.BadParameter(wrong)
    played = Demo(settings, Console())
    serve(played.run)
    if played.report is None:
        raise typer.Exit(130)
    if played.report.failures:
        raise typer.Exit(1)
