"""`stromkreis demo`: the settings of a demo as options; the demo itself is `loadtest.demo`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loadtest.demo.plan import DemoSettings
from loadtest.demo.run import Demo, SetupTooShortError, wrong_settings
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
        float | None, typer.Option(help="Seconds until the first round; else as many as this machine needs.")
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
    played = _play(settings, Console())
    if played.report is None:
        raise typer.Exit(130)
    if played.report.failures:
        raise typer.Exit(1)


def _play(settings: DemoSettings, console: Console) -> Demo:
    """Run it; where nobody said how long setting up may take and it took longer, run it again with enough."""
    needed_s: list[int] = []
    played = Demo(settings, console)
    try:
        serve(played.run)
    except* SetupTooShortError as slow:
        if settings.setup_s is not None:
            raise
        needed_s = [each.needed_s for each in _each(slow)]
    finally:
        played.close()
    if not needed_s:
        return played
    console.print(f"setting up took longer than planned: once more, with {needed_s[0]} s for it", highlight=False)
    return _play(replace(settings, setup_s=needed_s[0]), console)


def _each(group: BaseExceptionGroup[SetupTooShortError]) -> Iterator[SetupTooShortError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _each(error)
        else:
            yield error
