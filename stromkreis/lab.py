"""`stromkreis lab`: what each metering scheme tells whom; the lab itself is `loadtest.lab`."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from protocol.errors import StromkreisError

if TYPE_CHECKING:
    from loadtest.lab.claims import Claim
    from loadtest.lab.run import Results

app = typer.Typer(no_args_is_help=True, help="What each metering scheme tells whom, measured by attacks.")
_NEEDED = ("antgen", "phe", "scipy", "sklearn", "threadpoolctl")


@app.command()
def run(
    *,
    households: Annotated[
        int | None, typer.Option(help="Households of the area under attack, 24 or more (1000, smoke 60).")
    ] = None,
    days: Annotated[
        int | None, typer.Option(help="Days under attack; as many again lie before them (7, smoke 2).", min=1)
    ] = None,
    resolution_s: Annotated[int | None, typer.Option(help="What the meters measure: 1, 10, 60 or 900 s (60).")] = None,
    ring_size: Annotated[int | None, typer.Option(help="Households in a sum (64, smoke 20).")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same households and results.")] = 1,
    scheme: Annotated[list[str] | None, typer.Option(help="Only this scheme; may be repeated.")] = None,
    attack: Annotated[list[str] | None, typer.Option(help="Only this attack; may be repeated.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Own readings: CSV with time,meter,W and a column (W) for each appliance.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory for results; a run that was stopped goes on there.")] = Path(
        "out/lab"
    ),
    processes: Annotated[int, typer.Option(help="Processes that compute.", min=1)] = 2,
    smoke: Annotated[bool, typer.Option("--smoke", help="60 households, 2 days, few trials: half a minute.")] = False,
) -> None:
    """
    Run every scheme on the same households and attack what each party and coalition sees.

    Writes OUT/lab.json, OUT/lab.csv, OUT/lab.md and OUT/lab.html. Finished experiments are kept: run again to go on.

    Examples: stromkreis lab run --smoke

    stromkreis lab run --scheme ring --scheme plain --attack identification --days 14
    """
    _require()
    from loadtest.lab import output  # noqa: PLC0415 - `--help` shall not wait for scikit-learn
    from loadtest.lab.claims import judge  # noqa: PLC0415
    from loadtest.lab.experiments import ATTACKS  # noqa: PLC0415
    from loadtest.lab.report import write_page  # noqa: PLC0415
    from loadtest.lab.run import run as run_lab  # noqa: PLC0415
    from loadtest.lab.schemes import SCHEMES  # noqa: PLC0415
    from loadtest.lab.settings import SMOKE, Settings  # noqa: PLC0415

    _check_names(scheme or [], list(SCHEMES), "--scheme")
    _check_names(attack or [], list(ATTACKS), "--attack")
    if data is not None and not data.is_file():
        raise typer.BadParameter(f"no file {data}", param_hint="--data")
    given = {"households": households, "days": days, "slot_s": resolution_s, "group_size": ring_size}
    settings = replace(
        SMOKE if smoke else Settings(), seed=seed, schemes=tuple(scheme or ()), attacks=tuple(attack or ()),
        data="" if data is None else str(data), processes=processes,
        **{name: value for name, value in given.items() if value is not None},
    )  # fmt: skip
    console = Console(soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            tasks: dict[str, TaskID] = {}

            def advance(stage: str, done: int, of: int) -> None:
                task = tasks.get(stage)
                if task is None:
                    task = tasks[stage] = progress.add_task(stage, total=of)
                progress.update(task, completed=done)

            results = run_lab(settings, out, advance)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on with what is not done yet", highlight=False)
        raise typer.Exit(130) from None
    claims = judge(results)
    output.write(results, claims, out)
    write_page(results, claims, out / "lab.html")
    _summary(results, claims, out, console)


@app.command("list")
def list_() -> None:
    """Name the schemes and attacks."""
    _require()
    from loadtest.lab.experiments import ATTACKS  # noqa: PLC0415
    from loadtest.lab.schemes import SCHEMES  # noqa: PLC0415

    width = max(map(len, SCHEMES))
    for name, each in SCHEMES.items():
        typer.echo(f"{name:{width}}  {each.title} ({each.source})" + (f"; {each.note}" if each.note else ""))
    typer.echo("\nattacks: " + ", ".join(ATTACKS))


@app.command()
def households(
    out: Annotated[Path, typer.Argument(help="The CSV file to write.")],
    *,
    count: Annotated[int, typer.Option(help="Households.", min=1)] = 60,
    days: Annotated[int, typer.Option(help="Days.", min=1)] = 2,
    resolution_s: Annotated[int, typer.Option(help="Seconds of a slot: 1, 10, 60 or 900.")] = 900,
    seed: Annotated[int, typer.Option(help="The same seed gives the same households.")] = 1,
) -> None:
    """Write generated households as CSV, in the form that `lab run --data` reads."""
    _require()
    from datetime import UTC, datetime  # noqa: PLC0415

    from loadtest.lab.households import generate  # noqa: PLC0415
    from loadtest.lab.recordings import write_recordings  # noqa: PLC0415

    made = generate(count, days, resolution_s, seed)
    try:
        write_recordings(made, out, datetime(2026, 1, 5, tzinfo=UTC))
    except OSError as error:
        raise StromkreisError(f"{out} cannot be written: {error.strerror}") from error
    typer.echo(f"{count} households, {days} days at {resolution_s} s: {out} ({made.source})")


def _require() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise StromkreisError(
            f"the lab needs {', '.join(missing)}, which a gateway does not: `pip install stromkreis[lab]` or `make lab`"
        )


def _check_names(given: list[str], known: list[str], option: str) -> None:
    for name in given:
        if name not in known:
            raise typer.BadParameter(f"found {name}; expected one of {', '.join(known)}", param_hint=option)


def _summary(results: Results, claims: list[Claim], out: Path, console: Console) -> None:
    from loadtest.lab.claims import STATED  # noqa: PLC0415
    from loadtest.lab.output import shown  # noqa: PLC0415

    for claim in claims:
        console.print(f"{claim.number}. {claim.verdict}: {claim.text}", highlight=False)
        for figure in claim.figures:
            mark = " " if figure.is_met else "!"
            expected = "" if figure.expected == STATED else f"; expected {figure.expected}"
            console.print(f"   {mark} {figure.what}: {shown(figure.estimate)}{expected}", highlight=False, markup=False)
    for cell, reason in results.missing:
        console.print(f"not run: {cell}: {reason}", highlight=False, markup=False)
    console.print(
        f"{len(results.rows)} results in {results.took_s:.0f} s: {out}/lab.html, lab.json, lab.csv, lab.md",
        highlight=False, markup=False,
    )  # fmt: skip
