"""
The commands that stay: `coordinator`, `node` and `meters`, each one trio run until a signal stops it.

SIGTERM and Ctrl-C cancel the run; what must not be cut off (a durable write, a goodbye) shields itself.
With STROMKREIS_LIFELINE=stdin the end of standard input stops them too: so a parent takes its children along even when
it is killed.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import trio
import typer

from stromkreis.config import load
from stromkreis.logs import LogFormat, set_up
from stromkreis.task_dump import dump_at_signal

log = logging.getLogger(__name__)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file; see `stromkreis config`.", metavar="FILE")
]
LogFormatOption = Annotated[LogFormat, typer.Option(help="How log lines look.")]
LogLevel = Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")]


class MeterSource(StrEnum):
    """Where a node's meters come from, if not from its configuration."""

    SIMULATED = "simulated"


def coordinator(
    *,
    config: ConfigFile = None,
    listen: Annotated[str | None, typer.Option(help="ZeroMQ endpoint for gateways, tcp://HOST:PORT.")] = None,
    web: Annotated[list[str] | None, typer.Option(help="Web address, http(s)://HOST:PORT; may be repeated.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Directory of database and PKI.")] = None,
    role: Annotated[
        str | None,
        typer.Option(help="gwa, emp or rings for a process of its own.", show_default="all", metavar="ROLE"),
    ] = None,
    log_format: LogFormatOption = LogFormat.CONSOLE,
    log_level: LogLevel = "INFO",
) -> None:
    """
    Run the operator's side: enrolment, rings, the round ledger, totals, dashboard and REST.

    Without a file it listens on loopback with the defaults of `stromkreis config coordinator`.

    Gateway administrator (gwa), market participant (emp) and ring service (rings) can be three processes over one
    database: start gwa first, it makes the SM-PKI.

    Example: stromkreis coordinator --config stromkreis.toml --log-format json
    """
    from coordinator.config import CoordinatorConfig  # noqa: PLC0415

    options = {"listen": listen, "web.listen": web or None, "data_dir": data_dir, "role": role}
    settings = load(CoordinatorConfig, "coordinator", config, options=options)
    set_up_logs(log_format, log_level)
    from coordinator.process import run  # noqa: PLC0415

    forbid_core_dumps()
    serve(lambda: run(settings, ready=None))


def node(
    *,
    config: ConfigFile = None,
    data_dir: Annotated[Path | None, typer.Option(help="Directory of register store and keys.")] = None,
    coordinator: Annotated[str | None, typer.Option(help="The coordinator's web address.")] = None,
    root_certificate: Annotated[Path | None, typer.Option(help="PEM file of the SM-PKI root.")] = None,
    gateways: Annotated[int | None, typer.Option(help="Gateways of the fleet.", show_default="fleet.count")] = None,
    firmware_dir: Annotated[
        Path | None,
        typer.Option(help="Take firmware into this directory, start it, and go back where it does not come up."),
    ] = None,
    meters: Annotated[
        MeterSource | None, typer.Option(help="simulated: meters in this process, after the section [meters].")
    ] = None,
    log_format: LogFormatOption = LogFormat.CONSOLE,
    log_level: LogLevel = "INFO",
) -> None:
    """
    Run smart meter gateways: read the meters, take part in the rings.

    Example: stromkreis node --config stromkreis.toml

    For load tests: stromkreis node --config stromkreis.toml --gateways 2000 --meters simulated

    A token is best given by the environment: STROMKREIS_NODE__TOKEN=stk_...
    """
    from node.config import NodeConfig  # noqa: PLC0415

    options = {
        "data_dir": data_dir, "coordinator": coordinator, "root_certificate": root_certificate, "fleet.count": gateways,
        "firmware.directory": firmware_dir,
    }  # fmt: skip
    settings = load(NodeConfig, "node", config, options=options)
    set_up_logs(log_format, log_level)
    if settings.firmware.directory is not None:
        from node.firmware.supervisor import is_supervised  # noqa: PLC0415

        if not is_supervised():
            supervise(settings.firmware.directory, settings.firmware.confirm_s)
            return
    if config is not None and any(gateway.keys for gateway in settings.gateways) and config.stat().st_mode & 0o077:
        log.warning("%s holds keys of meters and others may read it: chmod 600 %s", config, config)
    forbid_core_dumps()
    if meters is MeterSource.SIMULATED:
        from stromkreis.simulated_meters import run_with_meters, simulated  # noqa: PLC0415

        meter_settings = simulated(settings, config)
        serve_until_stopped(lambda stop: run_with_meters(settings, meter_settings, stop))
        return
    from node.fleet import run  # noqa: PLC0415

    serve_until_stopped(lambda stop: run(settings, stop=stop))


def meters(
    *,
    config: ConfigFile = None,
    count: Annotated[int | None, typer.Option(help="Simulated households, one meter each.", show_default="24")] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(help="H25, H0, G0 or PV; several with commas, dealt out in turn.", show_default="H25,H0,G0,PV"),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="sml, dlms, mbus, wmbus, iec62056-21, p1; several with commas.", show_default="sml"),
    ] = None,
    link: Annotated[str | None, typer.Option(help="tcp, or pty: a pseudo-terminal each.", show_default="tcp")] = None,
    replay: Annotated[Path | None, typer.Option(help="Directory of recorded SML dumps to serve as well.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed, the same neighbourhood.", show_default="1")] = None,
    first_port: Annotated[
        int | None, typer.Option(help="First meter's port; 0 takes free ones.", show_default="20000")
    ] = None,
    period_s: Annotated[
        float | None, typer.Option(help="Seconds of one simulated quarter hour; 900 is real.", show_default="900")
    ] = None,
    annual_kwh: Annotated[int | None, typer.Option(help="Annual consumption of each.", show_default="drawn")] = None,
    feed_in_percent: Annotated[
        int | None,
        typer.Option(help="Annual generation of PV homes, percent of their consumption.", show_default="140"),
    ] = None,
    register_decimals: Annotated[
        int | None, typer.Option(help="Resolution: digits of a Wh behind the point, 1 to -3 (kWh).", show_default="1")
    ] = None,
    scenario: Annotated[
        Path | None, typer.Option(help="TOML file: exchanged, silent, manipulated meters, wrong clocks.")
    ] = None,
    meter_list: Annotated[Path | None, typer.Option(help="JSON file for which meter is where, with its keys.")] = None,
    gateways: Annotated[
        Path | None, typer.Option(help="TOML file for a gateway of each meter, to be put into a node's configuration.")
    ] = None,
    log_format: LogFormatOption = LogFormat.CONSOLE,
    log_level: LogLevel = "INFO",
) -> None:
    """
    Run simulated meters that follow the BDEW standard load profiles, each on a line of its own.

    Profiles and protocols are dealt out in turn: 500 meters of five protocols are 100 of each. Each has a TCP port from
    --first-port on, or a pseudo-terminal with --link pty; of a wireless meter it is its receiver's byte stream.

    Example: stromkreis meters --profile H25 --protocol sml,dlms,mbus,wmbus,iec62056-21 --count 500 --period-s 10
    --gateways gateways.toml
    """
    from loadtest.config import MetersConfig  # noqa: PLC0415

    profiles = [name.strip() for each in profile or [] for name in each.split(",")]
    options = {
        "count": count, "profiles": profiles or None, "protocols": protocol, "link": link, "replay": replay,
        "seed": seed, "first_port": first_port, "period_s": period_s, "annual_kwh": annual_kwh,
        "feed_in_percent": feed_in_percent, "register_decimals": register_decimals, "scenario": scenario,
        "meter_list": meter_list,
        "gateways": gateways,
    }  # fmt: skip
    settings = load(MetersConfig, "meters", config, options=options)
    set_up_logs(log_format, log_level)
    from loadtest.meters.guide import meter_summary  # noqa: PLC0415
    from loadtest.meters.run import run  # noqa: PLC0415

    serve(lambda: run(settings, ready=lambda entries: typer.echo(meter_summary(entries, settings))))


def supervise(directory: Path, confirm_s: float) -> None:
    """Run this very command as a child, from the release that is in force; exits with its exit code."""
    from node.firmware.slots import FirmwareDirectory  # noqa: PLC0415
    from node.firmware.supervisor import Supervisor  # noqa: PLC0415

    installed = importlib.metadata.version("stromkreis")
    supervisor = Supervisor(FirmwareDirectory(directory), sys.argv[1:], confirm_s, installed)
    serve_until_stopped(supervisor.run)
    if supervisor.exit_code:
        raise typer.Exit(supervisor.exit_code)


def forbid_core_dumps() -> None:
    """What is in memory - readings, keys, bills - must not go to disk with a crash."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def set_up_logs(log_format: LogFormat, level: str) -> None:
    """Log as the options say.  Raises typer.BadParameter for an unknown level."""
    try:
        set_up(log_format, level)
    except ValueError:
        raise typer.BadParameter(
            f"found {level}; expected DEBUG, INFO, WARNING or ERROR", param_hint="--log-level"
        ) from None


def serve(run: Callable[[], Awaitable[None]]) -> None:
    """Run under trio until it returns or a signal cancels it."""
    serve_until_stopped(lambda _stop: run(), signals_before_cancel=0)


def serve_until_stopped(run: Callable[[trio.Event], Awaitable[None]], *, signals_before_cancel: int = 1) -> None:
    """Run under trio until it returns; a first signal sets the event that it gets, another one cancels it."""

    async def until_signal() -> None:
        # The receiver is open before anything runs: a signal that comes early finds it.
        stop = trio.Event()
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(dump_at_signal)
                nursery.start_soon(_stop_at, signals, signals_before_cancel, stop, nursery.cancel_scope)
                if os.environ.get("STROMKREIS_LIFELINE") == "stdin":
                    nursery.start_soon(_cancel_without_parent, nursery.cancel_scope)
                await run(stop)
                nursery.cancel_scope.cancel()

    trio.run(until_signal)


async def _stop_at(signals: AsyncIterator[int], patience: int, stop: trio.Event, scope: trio.CancelScope) -> None:
    for _ in range(patience):
        await anext(signals)
        stop.set()
    await anext(signals)
    scope.cancel()


async def _cancel_without_parent(scope: trio.CancelScope) -> None:
    async with trio.lowlevel.FdStream(os.dup(0)) as lifeline:
        while await lifeline.receive_some(1):
            pass
    scope.cancel()
