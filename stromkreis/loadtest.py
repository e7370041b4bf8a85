"""`stromkreis loadtest`: scenarios of `loadtest.scenarios`, played on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from loadtest.scenarios.report import Report, summary
from loadtest.scenarios.run import LoadTest
from loadtest.scenarios.scaling import is_of, page, read_run, tables
from loadtest.scenarios.scenario import load_scenario, shipped
from loadtest.scenarios.verdicts import verdict_lines
from loadtest.scenarios.view import View
from netem.profiles import load_profiles
from protocol.errors import StromkreisError
from stromkreis.services import serve
from stromkreis.user_messages import user_messages

app = typer.Typer(
    help="Load tests: thousands of gateways under faults, every total held against the meters.", no_args_is_help=True
)


@app.command(name="list")
def list_() -> None:
    """Show the scenarios that come with the program."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("scenario", "gateways", "rounds", "what happens"):
        table.add_column(name, justify="right" if name in {"gateways", "rounds"} else "left")
    for name, each in shipped().items():
        table.add_row(name, f"{each.gateways:,}", str(each.rounds), each.title)
    Console().print(table)


@app.command()
def run(
    scenario: Annotated[str, typer.Argument(help="Name of a scenario (stromkreis loadtest list), or its TOML file.")],
    *,
    gateways: Annotated[int | None, typer.Option(help="How many.", show_default="the scenario's", min=3)] = None,
    rounds: Annotated[int | None, typer.Option(help="How many.", show_default="the scenario's", min=2)] = None,
    period_s: Annotated[
        float | None,
        typer.Option(help="Seconds from round to round.", show_default="the scenario's, or by the machine"),
    ] = None,
    setup_s: Annotated[
        float | None, typer.Option(help="Seconds until the first round.", show_default="by the machine", min=1)
    ] = None,
    netem: Annotated[
        str | None, typer.Option(help="Lines of this profile to the coordinator, which relays all (see netem list).")
    ] = None,
    churn: Annotated[
        float | None, typer.Option(help="Share of the gateways that is killed in every round, up to 0.2.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Directory of reports, logs and state.", show_default="out/loadtest/SCENARIO")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep databases, stores and logs also where all is well.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn on emulated lines.")] = 1,
) -> None:
    """
    Play a scenario and hold every total against the meters' own registers.

    Coordinator, meters and gateways are processes of this machine; faults are real ones (SIGKILL, cut network
    namespaces, deleted data). Ends with report.json, report.md and report.html; the exit code is 1 where a total is not
    exact, energy was lost, or the scenario expects more (rounds that open, all gateways in totals at the end).

    Examples: stromkreis loadtest run smoke

    stromkreis loadtest run steady-10k --gateways 1000 --report out/thousand

    stromkreis loadtest run smoke --netem lte --period-s 5
    """
    changes: dict[str, Any] = {"gateways": gateways, "rounds": rounds, "period_s": period_s, "churn": churn}
    if netem is not None:
        if netem not in load_profiles():
            raise typer.BadParameter(
                f"found {netem}; expected one of {', '.join(load_profiles())}", param_hint="--netem"
            )
        changes["lines"] = {"profile": netem}
    chosen = load_scenario(scenario, {name: value for name, value in changes.items() if value is not None})
    out = Path("out/loadtest") / chosen.name if report is None else report
    if _play(LoadTest(chosen, out, View(Console()), setup_s=setup_s, seed=seed), keep=keep).failures:
        raise typer.Exit(1)


def _play(test: LoadTest, *, keep: bool = False) -> Report:
    """Run it to its report; what it left is removed where all is well.  Raises typer.Exit where it was stopped."""
    reports: list[Report] = []

    async def play() -> None:
        reports.append(await test.run())

    serve(play)
    if not reports:
        raise typer.Exit(130)
    print_report(reports[0], test.out, Console())
    if not reports[0].failures and not keep:
        shutil.rmtree(test.out / "run", ignore_errors=True)
    return reports[0]


def print_report(report: Report, out: Path, console: Console) -> None:
    """The summary for a person."""
    table = Table(title=report.title, title_justify="left", box=None, show_header=False)
    for name, value in summary(report):
        table.add_row(name, value)
    for count, reason in sorted(((count, reason) for reason, count in report.void_by_reason.items()), reverse=True):
        table.add_row("void", f"{count:,} ring rounds: {reason}")
    for each in report.faults:
        whole = (
            "not whole again in this run"
            if each.whole_after_rounds is None
            else (f"whole again in round {each.whole_after_rounds + 1} after it")
        )
        table.add_row(f"round {each.round}", f"{each.action} {each.target}: {each.void} of {each.rounds} void, {whole}")
    table.add_row("report", f"{out / 'report.html'}, figures in report.json, tables in report.md")
    console.print(table, highlight=False)
    for failure in report.failures:
        console.print(f"FAILED: {failure}", style="bold red", highlight=False)
        console.print(f"logs, databases and stores: {out / 'run'}", highlight=False)


@app.command()
def series(
    sizes: Annotated[list[int], typer.Argument(help="Numbers of gateways.", min=3)],
    *,
    scenario: Annotated[str, typer.Option(help="Name of a scenario, or its TOML file.")] = "steady-10k",
    out: Annotated[Path, typer.Option(help="Directory of the reports, one below it for each size.")] = Path(
        "out/scale"
    ),
    into: Annotated[Path | None, typer.Option(help="The page on scale to write, anew after each size.")] = None,
    period_s: Annotated[
        float | None,
        typer.Option(help="Seconds from round to round.", show_default="the scenario's, or by the machine"),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure sizes anew that were measured already.")] = False,
) -> None:
    """
    Play a scenario with several numbers of gateways, smallest first, and write what was measured into a page.

    A size that passed is not played again, so a series that was stopped goes on where it was. One that failed, or could
    not be played, is named in the page and costs the others nothing; the exit code is then 1.

    Example: stromkreis loadtest series 100 1000 3000 10000 --into docs/scale.md
    """
    unplayed: dict[int, str] = {}
    failed: dict[int, str] = {}
    ordered = sorted(set(sizes))
    changes = {} if period_s is None else {"period_s": period_s}
    scenarios = {size: load_scenario(scenario, {"gateways": size, **changes}) for size in ordered}
    for size, chosen in scenarios.items():
        place = out / str(size)
        if not again and is_of(place, chosen) and not read_run(place).values["failures"]:
            typer.echo(f"{size:,} gateways: measured already, {place / 'report.json'} (--again measures anew)")
        else:
            (place / "report.json").unlink(missing_ok=True)
            try:
                _play(LoadTest(chosen, place, View(Console())))
            except* StromkreisError as group:
                unplayed[size] = "; ".join(user_messages(group) or ())
                typer.echo(f"{size:,} gateways could not be played: {unplayed[size]}", err=True)
        # What an earlier series of other settings has left is no part of this one.
        runs = [read_run(out / str(each)) for each, one in scenarios.items() if is_of(out / str(each), one)]
        told = {run.gateways: "; ".join(run.values["failures"]) for run in runs if run.values["failures"]}
        failed = unplayed | told
        if into is not None and runs:
            into.write_text(page(runs, failed), encoding="utf-8")
    if failed:
        raise typer.Exit(1)


@app.command()
def scaling(
    reports: Annotated[list[Path], typer.Argument(help="Directories of load tests of several sizes, or report.json.")],
    *,
    into: Annotated[Path | None, typer.Option(help="Write a page with the assumptions, not only the tables.")] = None,
) -> None:
    """
    Fit a line to each cost of several runs, and say what follows for more gateways, as Markdown.

    Example: stromkreis loadtest scaling out/100 out/1000 out/3000
    """
    runs = [read_run(each) for each in reports]
    if into is not None:
        into.write_text(page(runs), encoding="utf-8")
    typer.echo("\n".join(tables(runs)))


@app.command()
def verdicts(
    reports: Annotated[list[Path], typer.Argument(help="Directories of load tests, or report.json.")],
) -> None:
    """
    Put load tests beside each other, a line for each, as Markdown: exact, energy lost, what was void and why.

    Example: stromkreis loadtest verdicts out/loadtest/*
    """
    typer.echo("\n".join(verdict_lines([read_run(each) for each in reports])))
