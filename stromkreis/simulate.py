"""`stromkreis simulate`: rings of the real state machines under faults and lies, seed by seed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from loadtest.simulator.progress import CampaignProgress

_SAVED_EVERY_S = 5.0


def simulate(
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    seeds: Annotated[int, typer.Option(help="How many seeds to play; 0 plays until stopped.", min=0)] = 100,
    gateways: Annotated[int, typer.Option(help="Members of the ring.", min=5, max=512)] = 16,
    rounds: Annotated[int, typer.Option(help="Rounds of a seed; the last 8 or more have no faults.", min=9)] = 24,
    loss: Annotated[float, typer.Option(help="Probability that a message is lost.", min=0, max=0.5)] = 0.0,
    duplicate: Annotated[float, typer.Option(help="Probability that a message comes twice.", min=0, max=1)] = 0.0,
    delay_s: Annotated[float, typer.Option(help="Mean delay of a message; a round has 10 s.", min=0.0001)] = 0.02,
    crash: Annotated[float, typer.Option(help="Probability that a gateway crashes in a round.", min=0, max=1)] = 0.0,
    ledger_crash: Annotated[
        float, typer.Option(help="Probability that the coordinator crashes in a round.", min=0, max=1)
    ] = 0.0,
    rollback: Annotated[
        float, typer.Option(help="Probability that a crashed gateway comes back with an older disk.", min=0, max=1)
    ] = 0.0,
    clog: Annotated[float, typer.Option(help="Probability that a round finds some ways blocked.", min=0, max=1)] = 0.0,
    liar: Annotated[
        str,
        typer.Option(
            help="Who lies: head (alters what an honest one sends), adaptive (a head that plans), copies (such a head, "
            "with copies of gateways that run beside them), member."
        ),
    ] = "",
    real: Annotated[bool, typer.Option("--real", help="Real cryptography instead of the cheap stand-ins.")] = False,
    jobs: Annotated[int, typer.Option(help="Seeds played at a time; 0: one for each core.", min=0)] = 0,
    resume: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Go on from where this file says; it is kept up to date.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Play a bug report's event log of one machine instead.")
    ] = None,
) -> None:
    """
    Play seeded rings through faults or lies and check what must hold.

    One seed gives the same bytes in every process.  A violation ends with the command that replays it and status 1.

    Example: stromkreis simulate --seeds 1000 --loss 0.01 --crash 0.02 --clog 0.3

    With --replay the machine of an event log is given again what the log says, with invented keys and readings; status
    1 where it does something else than recorded, or where the file is no event log.
    """
    if replay is not None:
        _play_log(replay)
        return
    from loadtest.simulator.faults import Faults  # noqa: PLC0415 - `--help` shall not wait for numpy
    from loadtest.simulator.progress import CampaignProgress, ProgressError  # noqa: PLC0415
    from loadtest.simulator.run import Scenario  # noqa: PLC0415

    if liar not in {"", "head", "adaptive", "copies", "member"}:
        raise typer.BadParameter(f"found {liar}; expected head, adaptive, copies or member", param_hint="--liar")
    faults = Faults(
        loss=loss, duplicate=duplicate, delay_s=delay_s, crash=crash, ledger_crash=ledger_crash, clog=clog,
        rollback=rollback,
    )  # fmt: skip
    scenario = Scenario(gateways=gateways, rounds=rounds, faults=faults, liar=liar, real=real)
    try:
        progress = CampaignProgress.begin(scenario, seed, resume)
        if resume is not None:
            progress.save(resume)
    except (OSError, ProgressError) as error:
        raise typer.BadParameter(str(error), param_hint="--resume") from None
    started_s, before, rounds_before = time.monotonic(), progress.played, progress.rounds
    if not seeds or before < seeds:
        _play(progress, seeds, jobs or os.cpu_count() or 1, resume)
    seconds = max(time.monotonic() - started_s, 1e-9)
    typer.echo(
        f"{progress.played} seeds without a violation: {progress.opened} ring rounds opened, {progress.void} void, "
        f"smallest sum that came open {progress.smallest_sum} of {gateways}; "
        f"{(progress.rounds - rounds_before) / seconds:.0f} ring rounds/s, "
        f"{(progress.played - before) / seconds:.1f} seeds/s"
    )


def _play(progress: CampaignProgress, seeds: int, jobs: int, file: Path | None) -> None:
    from loadtest.simulator.campaign import Broken, campaign  # noqa: PLC0415

    console, before = Console(stderr=True), progress.played
    saved_s = time.monotonic()
    columns = (TextColumn("seeds"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    results = campaign(progress.scenario, progress.first + before, seeds and seeds - before, jobs)
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("seeds", total=seeds or None, completed=before)
            for result in results:
                if isinstance(result, Broken):
                    console.print(f"[bold red]seed {result.seed}:[/] {result.what}")
                    console.print("replay: " + _command(result.seed, progress.scenario), soft_wrap=True)
                    raise typer.Exit(1)
                progress.add(result)
                bar.advance(task)
                if file is not None and time.monotonic() >= saved_s + _SAVED_EVERY_S:
                    progress.save(file)
                    saved_s = time.monotonic()
    except KeyboardInterrupt:
        pass
    finally:
        results.close()
        if file is not None:
            progress.save(file)


def _play_log(path: Path) -> None:
    from loadtest.simulator.replay import ReplayError, read_log, replay  # noqa: PLC0415

    played = differing = 0
    try:
        for step in replay(read_log(path)):
            row = step.row
            played += 1
            differing += bool(step.differs)
            source = f" from {row['from']}" if "from" in row else ""
            verdict = f"DIFFERS: {step.differs}" if step.differs else "as recorded"
            typer.echo(f"{row['at_s']:.3f} s  {row['event']}{source}: {row['before']} -> {row['after']}, {verdict}")
    except ReplayError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{played} events played, {differing} differ from the log")
    if differing:
        raise typer.Exit(1)


def _command(seed: int, scenario: object) -> str:
    from loadtest.simulator.run import Scenario  # noqa: PLC0415

    assert isinstance(scenario, Scenario)  # noqa: S101
    faults = scenario.faults
    words = [
        "stromkreis simulate", f"--seed {seed} --seeds 1 --gateways {scenario.gateways} --rounds {scenario.rounds}",
        f"--loss {faults.loss} --duplicate {faults.duplicate} --delay-s {faults.delay_s}",
        f"--crash {faults.crash} --ledger-crash {faults.ledger_crash} --clog {faults.clog}",
        f"--rollback {faults.rollback}",
    ]  # fmt: skip
    if scenario.liar:
        words.append(f"--liar {scenario.liar}")
    if scenario.real:
        words.append("--real")
    return " ".join(words)
