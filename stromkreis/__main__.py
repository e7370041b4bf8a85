"""
The command line: `stromkreis COMMAND`, or `python -m stromkreis COMMAND`.

A command's module is imported only when that command is the one that was called: `stromkreis --help` answers at once,
and a gateway does not load a web server.  Each command is a function with typer annotations, or a typer app where it
has commands of its own, in a module that nothing else of the command line imports.

Exit codes: 0 done, 1 it failed (the reason is on stderr), 2 wrong usage or configuration, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from stromkreis.user_messages import exit_code, user_messages

_HELP = """
Smart meter gateways that report exact area totals and no single reading.

See it work: [bold]stromkreis demo[/bold].  Run it by hand: [bold]stromkreis pki[/bold], then
[bold]stromkreis coordinator[/bold] here and [bold]stromkreis node[/bold] there; [bold]stromkreis config[/bold]
explains every setting.  Look into a meter: [bold]stromkreis decode sml FILE[/bold].
"""


@dataclass(frozen=True, slots=True)
class _Command:
    name: str
    module: str
    panel: str
    help: str


_SEE, _RUN, _TOOLS = "See it work", "Run it", "Tools"
COMMANDS = (
    _Command(
        "demo", "stromkreis.demo", _SEE, "A neighbourhood on this machine: meters, gateways, coordinator, dashboard."
    ),
    _Command("meters", "stromkreis.services", _SEE, "Simulated meters that speak SML and other protocols."),
    _Command("simulate", "stromkreis.simulate", _SEE, "Rings under loss, crashes and a lying head, from a seed."),
    _Command("loadtest", "stromkreis.loadtest", _SEE, "Load tests: thousands of gateways, faults, a report."),
    _Command("lab", "stromkreis.lab", _SEE, "What each metering scheme tells whom: attacks, controls, a report."),
    _Command(
        "scenario", "stromkreis.scenario", _SEE, "Energy management behind a gateway: six options, measured, a report."
    ),
    _Command("coordinator", "stromkreis.services", _RUN, "The operator's side: enrolment, rings, totals, dashboard."),
    _Command("node", "stromkreis.services", _RUN, "Smart meter gateways, one or thousands in one process."),
    _Command("pki", "stromkreis.pki", _RUN, "Certificates of the smart metering PKI, and enrolment tokens."),
    _Command("bill", "stromkreis.bill", _RUN, "Bills by a time-variable tariff, from commitments; no reading leaves."),
    _Command("profile", "stromkreis.profile", _RUN, "Profile sets of gateways: check them, evaluate their use cases."),
    _Command(
        "gwa", "stromkreis.gwa", _RUN, "What the gateway administrator does: roll out profile sets, manage accounts."
    ),
    _Command("emp", "stromkreis.emp", _RUN, "What gateways delivered to the market participant, and what is missing."),
    _Command("han", "stromkreis.han", _RUN, "The interface to the home: accounts of consumers."),
    _Command(
        "cls-adapter", "stromkreis.cls_adapter", _RUN, "Programs of a controllable system, through the gateway's proxy."
    ),
    _Command(
        "emp-tunnel", "stromkreis.emp_tunnel", _RUN, "Programs of a market participant, to a system behind a gateway."
    ),
    _Command("leave", "stromkreis.leave", _RUN, "Gateways of a node that leave the network for good."),
    _Command("log", "stromkreis.gateway_log", _RUN, "The logs of gateways; whether a calibration log is whole."),
    _Command("db", "stromkreis.db", _RUN, "Schema versions of the databases, and bringing them up to date."),
    _Command("audit", "stromkreis.audit", _RUN, "The enrolment log, checked from outside; evidence of refused epochs."),
    _Command("backup", "stromkreis.backup", _RUN, "A running coordinator's data, copied."),
    _Command("restore", "stromkreis.restore", _RUN, "A coordinator's backup, put in the place of its data."),
    _Command(
        "config", "stromkreis.reference", _RUN, "A commented configuration file with every setting and its default."
    ),
    _Command("parameters", "stromkreis.parameters", _TOOLS, "Neighbours and thresholds of a ring for a given threat."),
    _Command("netem", "stromkreis.netem", _TOOLS, "A bad network on purpose: link profiles, scenarios, a self-check."),
    _Command("pair", "stromkreis.pair", _TOOLS, "First pairing of a meter of the wired LMN with its gateway."),
    _Command("decode", "stromkreis.decode", _TOOLS, "Readings of a recorded byte stream as JSON lines."),
    _Command("sniff", "stromkreis.sniff", _TOOLS, "Readings of a live meter or bus, listened to or asked."),
)


def build(arguments: Sequence[str]) -> typer.Typer:
    """The app for these arguments: the command that they name is loaded, the others are only listed."""
    app = typer.Typer(
        name="stromkreis",
        help=_HELP,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    called = next((argument for argument in arguments if not argument.startswith("-")), None)
    for command in COMMANDS:
        loaded = _load(command) if command.name == called else _listed
        if isinstance(loaded, typer.Typer):
            app.add_typer(loaded, name=command.name, rich_help_panel=command.panel)
        else:
            text = None if command.name == called else command.help
            app.command(command.name, help=text, rich_help_panel=command.panel)(loaded)
    return app


def _load(command: _Command) -> typer.Typer | Callable[..., Any]:
    module = importlib.import_module(command.module)
    function = command.name.replace("-", "_")
    loaded: typer.Typer | Callable[..., Any] = getattr(module, "app", None) or getattr(module, function)
    return loaded


def _listed() -> None:
    raise AssertionError("a command that is only listed was called")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stromkreis {importlib.metadata.version('stromkreis')}")
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; the text of a failure on purpose goes to stderr without a traceback."""
    try:
        build(sys.argv[1:])()
    except KeyboardInterrupt:
        sys.exit(130)
    except BaseException as error:
        told = user_messages(error)
        if told is None:
            raise
        sys.stderr.write("".join(f"stromkreis: {line}\n" for line in dict.fromkeys(told)))
        sys.exit(exit_code(error))


if __name__ == "__main__":
    main()
