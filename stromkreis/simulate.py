"""`stromkreis simulate`: rings of the real state machines under faults and lies, seed by seed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


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
        typer.Option(help="Who lies: head (alters what an honest one sends), adaptive (a head that plans), member."),
    ] = "",
    real: Annotated[bool, typer.Option("--real", help="Real cryptography instead of the cheap stand-ins.")] = False,
    processes: Annotated[int, typer.Option(help="Processes that play; 0: one for each core.", min=0)] = 0,
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
    from loadtest.simulator.campaign import Broken, campaign  # noqa: PLC0415 - `--help` shall not wait for numpy
    from loadtest.simulator.faults import Faults  # noqa: PLC0415
    from loadtest.simulator.run import Scenario  # noqa: PLC0415

    if liar not in {"", "head", "adaptive", "member"}:
        raise typer.BadParameter(f"found {liar}; expected head, adaptive or member", param_hint="--liar")
    faults = Faults(
        loss=loss, duplicate=duplicate, delay_s=delay_s, crash=crash, ledger_crash=ledger_crash, clog=clog,
        rollback=rollback,
    )  # fmt: skip
    scenario = Scenario(gateways=gateways, rounds=rounds, faults=faults, liar=liar, real=real)
    console = Console(stderr=True)
    started_s, played, opened, void, smallest = time.monotonic(), 0, 0, 0, gateways
    columns = (TextColumn("seeds"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    results = campaign(scenario, seed, seeds, processes or os.cpu_count() or 1)
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("seeds", total=seeds or None)
            for result in results:
                if isinstance(result, Broken):
                    console.print(f"[bold red]seed {result.seed}:[/] {result.what}")
                    console.print("replay: " + _command(result.seed, scenario))
                    raise typer.Exit(1)
                played += 1
                opened += result.tally.opened
                void += result.tally.void
                smallest = min(smallest, result.smallest_sum)
                progress.advance(task)
    except KeyboardInterrupt:
        pass
    finally:
        results.close()
    seconds = time.monotonic() - started_s
    typer.echo(
        f"{played} seeds without a violation: {opened} ring rounds opened, {void} void, smallest sum that came open "
        f"{smallest} of {gateways}; {(opened + void) / max(seconds, 1e-9):.0f} ring rounds/s, "
        f"{played / max(seconds, 1e-9):.1f} seeds/s"
    )


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
