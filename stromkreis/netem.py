"""`stromkreis netem`: link profiles, scenarios, and a network that behaves like them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Annotated

import trio
import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from netem import records, selfcheck, session
from netem.emulation import Backend
from netem.errors import InvalidDataError
from netem.network import COORDINATOR, Endpoint, Network, load_network
from netem.profiles import UNSHAPED, load_profiles, validated
from netem.scenario import load_scenario, load_scenarios, timeline
from stromkreis.netem_tables import measurement_table, print_profile, print_timeline, profile_table, scenario_table
from stromkreis.services import serve

app = typer.Typer(
    help="A bad network on purpose: link profiles (LTE, GPRS, powerline, ...), scenarios, and a self-check.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class BackendChoice(StrEnum):
    """How the network is emulated."""

    AUTO = "auto"
    NAMESPACES = "namespaces"
    TC = "tc"
    PROXY = "proxy"


BackendOption = Annotated[
    BackendChoice,
    typer.Option(
        help="namespaces: a private network of this machine (root). tc: an interface that exists (root, sch_netem). "
        "proxy: TCP relays, no privileges. auto: namespaces for root, else proxy."
    ),
]
ProfileFile = Annotated[
    Path | None, typer.Option("--profiles", help="TOML file with more profiles, or others of the same name.")
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable, on standard output.")]
Seed = Annotated[int, typer.Option(help="The same seed, the same outages, choices and draws.")]


@app.command("list")
def list_all(*, profiles: ProfileFile = None, as_json: Json = False) -> None:
    """
    List the link profiles and scenarios that come with this program.

    Example: stromkreis netem list
    """
    known, scenarios = load_profiles(profiles), load_scenarios()
    if as_json:
        typer.echo(json.dumps({"profiles": _plain(known), "scenarios": _plain(scenarios)}, indent=2))
        return
    console = Console()
    console.print(profile_table(known.values()))
    console.print(scenario_table(scenarios.values()))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A profile, a scenario, or a scenario's TOML file.")],
    *,
    network: Annotated[str, typer.Option(help="The network that a scenario is shown for.")] = "two-areas",
    profiles: ProfileFile = None,
    seed: Seed = 1,
    as_json: Json = False,
) -> None:
    """
    Show a profile with the sources of its figures, or a scenario with its timeline.

    Examples: stromkreis netem show lte

    stromkreis netem show storm
    """
    known = load_profiles(profiles)
    if name in known:
        if as_json:
            typer.echo(known[name].model_dump_json(indent=2))
        else:
            print_profile(known[name], Console())
        return
    if name not in load_scenarios() and not Path(name).suffix:
        expected = ", ".join((*known, *load_scenarios()))
        raise InvalidDataError(f"found {name}; expected one of {expected}, or a scenario's TOML file")
    scenario = load_scenario(name)
    if as_json:
        typer.echo(scenario.model_dump_json(indent=2))
    else:
        print_timeline(scenario, timeline(scenario, load_network(network), known, rng=Random(seed)), Console())


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Profiles; none: all of them.", show_default=False)] = None,
    *,
    backend: BackendOption = BackendChoice.AUTO,
    duration_s: Annotated[float, typer.Option(help="Seconds of round trips; rates take as long again.", min=0.5)] = 4.0,
    profiles: ProfileFile = None,
    seed: Seed = 1,
    as_json: Json = False,
) -> None:
    """
    Measure what profiles really do here (round trip, loss, rates) beside what they ask for.

    Exit status 1 where a figure is off. A busy machine shows: this program's timers are part of what is measured.

    Examples: stromkreis netem check lte gprs

    stromkreis netem check --backend proxy --json
    """
    known = load_profiles(profiles)
    for name in names or ():
        if name not in known:
            raise InvalidDataError(f"found profile {name}; expected one of {', '.join(known)}")
    chosen = [known[name] for name in dict.fromkeys(names or [name for name in known if name != UNSHAPED.name])]
    resolved = _resolve(backend)
    measured: list[selfcheck.Measurement] = []
    console = Console(stderr=True)
    columns = (TextColumn(f"{resolved}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=2 * len(chosen))

        def done(name: str) -> None:
            progress.update(task, advance=1, description=name)

        async def measure() -> None:
            measured.extend(
                await selfcheck.check(resolved, chosen, duration_s=duration_s, rng=Random(seed), progress=done)
            )

        session.use_realtime_scheduling()
        serve(measure)
    if not measured:
        raise typer.Exit(130)
    if as_json:
        typer.echo(json.dumps([each.as_json() for each in measured], indent=2))
    else:
        Console().print(measurement_table(resolved, measured))
    if not all(each.is_right for each in measured):
        raise typer.Exit(1)


@app.command()
def run(
    scenario: Annotated[
        str | None, typer.Argument(help="A scenario or its TOML file; none: only the profiles, until Ctrl-C.")
    ] = None,
    *,
    backend: BackendOption = BackendChoice.AUTO,
    network: Annotated[
        str | None, typer.Option(help="TOML file of endpoints and relays, or two-areas (for trying).")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Profile of every endpoint but the coordinator.")] = None,
    relay: Annotated[
        list[str] | None, typer.Option(help="For proxy: LISTEN=TARGET, as 127.0.0.1:7400=127.0.0.1:7300; repeatable.")
    ] = None,
    interface: Annotated[str | None, typer.Option(help="For tc: the interface to shape, as eth0.")] = None,
    speed: Annotated[float, typer.Option(help="So many times as fast as the scenario says.", min=0.001)] = 1.0,
    duration_s: Annotated[float | None, typer.Option(help="Without a scenario: stop after so long.", min=0)] = None,
    report: Annotated[Path | None, typer.Option(help="JSON file for what was done and when.")] = None,
    profiles: ProfileFile = None,
    seed: Seed = 1,
) -> None:
    """
    Emulate a network: set it up, play a scenario, take everything away again.

    Ctrl-C and SIGTERM stop it and remove what it made; after a crash `stromkreis netem clean` does.

    Examples: stromkreis netem run partition --network two-areas

    stromkreis netem run --backend proxy --profile gprs --relay 127.0.0.1:7400=127.0.0.1:7300

    stromkreis netem run --backend tc --profile lte --interface eth0
    """
    known = load_profiles(profiles)
    resolved = _resolve(backend, relay, interface)
    chosen = load_scenario(scenario) if scenario is not None else None
    emulated = _network(resolved, network, profile, relay or [], interface)
    found = session.Report(resolved, chosen.name if chosen else None, seed)
    console = Console(stderr=True, highlight=False, soft_wrap=True)

    def is_up(addresses: Mapping[str, str]) -> None:
        console.print(f"up on {resolved}: " + ", ".join(f"{name} {where}" for name, where in addresses.items()))
        if chosen is None and duration_s is None:
            console.print("Ctrl-C stops it and removes what it made")

    listener = session.Listener(
        up=is_up,
        step=lambda step: console.print(f"{step.applied_s:9.1f} s  {step.what}"),
        command_ended=lambda name, code: console.print(f"the command of {name} ended with status {code}"),
    )
    total_s = duration_s if chosen is None else chosen.duration_s / speed

    async def play() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_show_time, console, total_s)
            await session.run(
                resolved, emulated, known, chosen,
                seed=seed, speed=speed, duration_s=duration_s, listener=listener, report=found,
            )  # fmt: skip
            nursery.cancel_scope.cancel()

    def write_report() -> None:
        if report is not None:
            report.write_text(json.dumps(found.as_json(), indent=2) + "\n", encoding="utf-8")

    write_report()  # a path that cannot be written is noticed now, not after the run
    session.use_realtime_scheduling()
    try:
        serve(play)
    finally:
        write_report()
    console.print("removed; " + (", ".join(f"{name} {count}" for name, count in found.counters.items()) or "done"))
    if any(found.exit_codes.values()):
        raise typer.Exit(1)
    if chosen is not None and not found.is_complete:
        raise typer.Exit(130)


@app.command()
def clean() -> None:
    """
    Remove namespaces, qdiscs and devices that killed runs left behind; runs that go on are spared.

    Example: stromkreis netem clean
    """
    removed: list[str] = []

    async def clean_up() -> None:
        removed.extend(await records.clean())

    serve(clean_up)
    for line in removed or ["nothing was left behind"]:
        typer.echo(f"removed {line}" if removed else line)


async def _show_time(console: Console, total_s: float | None) -> None:
    columns = (
        TextColumn("emulating"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("of"),
        TextColumn("{task.fields[of]}"),
    )
    shown = total_s is not None and console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task("", total=total_s, of=f"{total_s or 0:.0f} s")
        started_s = trio.current_time()
        while True:
            await trio.sleep(0.5)
            progress.update(task, completed=trio.current_time() - started_s)


def _resolve(backend: BackendChoice, relay: Sequence[str] | None = None, interface: str | None = None) -> Backend:
    if backend is not BackendChoice.AUTO:
        return Backend(backend.value)
    if relay:
        return Backend.PROXY
    if interface is not None:
        return Backend.TC
    return Backend.NAMESPACES if os.geteuid() == 0 else Backend.PROXY


def _network(
    backend: Backend, source: str | None, profile: str | None, relays: Sequence[str], interface: str | None
) -> Network:
    """The network of the file, or what the options say: one endpoint, `here`, beside the coordinator."""
    options = {Backend.PROXY: bool(relays), Backend.TC: interface is not None}
    if source is None and options.get(backend):
        here = Endpoint(name="here", interface=interface)
        pairs = [_pair(text) for text in relays]
        made = [{"source": "here", "listen": listen, "target": target} for listen, target in pairs]
        network = validated(Network, {"endpoints": (Endpoint(name=COORDINATOR), here), "relays": made}, "--relay")
    else:
        network = load_network(source or "two-areas")
    if profile is None:
        return network
    shaped = tuple(
        endpoint if endpoint.name == COORDINATOR else endpoint.model_copy(update={"profile": profile})
        for endpoint in network.endpoints
    )
    return network.model_copy(update={"endpoints": shaped})


def _pair(text: str) -> tuple[str, str]:
    listen, equals, target = text.partition("=")
    if not equals:
        raise InvalidDataError(f"--relay: found {text}; expected LISTEN=TARGET, as 127.0.0.1:7400=127.0.0.1:7300")
    return listen, target


def _plain(models: Mapping[str, BaseModel]) -> dict[str, object]:
    return {name: model.model_dump(mode="json") for name, model in models.items()}
