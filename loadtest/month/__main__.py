"""
A month of deliveries: gateways take profile sets, derive TAF 1, 2, 6 and 7, and the market participant gets all of it.

    python -m loadtest.month DIRECTORY [--gateways 500] [--rounds 96] [--kills 3] [--tafs 7]

A coordinator, meters and nodes run as processes of their own; `stromkreis gwa` rolls the profiles out while rings run.
When the month is over gateways deliver through links that break, a node is killed with SIGKILL again and again, and the
coordinator once.  `stromkreis emp export` and every ring's total are held against the meters' registers: not against a
log.  Exit status 1 where a value is missing, twice, or wrong.  Called again after a break it goes on.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import trio
from rich.console import Console

from loadtest.month.plan import MonthSettings
from loadtest.month.report import MonthReport, write_report
from loadtest.month.run import Month, TooLateError, begun_or_broken_off
from loadtest.month.truth import COUNT, TAFS
from protocol.errors import StromkreisError

_ATTEMPTS = 5


def main() -> int:
    """Run it; see the head of the file."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.month", description="A month of deliveries, held against the meters."
    )
    default = MonthSettings(Path())
    parser.add_argument("directory", type=Path, help="gets everything; the same one goes on after a break")
    parser.add_argument("--gateways", type=int, default=default.gateways, help="24 or more")
    parser.add_argument(
        "--rounds", type=int, default=default.rounds, help="quarter hours at the end with rings, from 4"
    )
    parser.add_argument("--period-s", type=float, help="wall clock of one; by the number of gateways")
    parser.add_argument("--setup-s", type=float, help="until the first round; by the number of gateways")
    parser.add_argument("--ring-size", type=int, help="members at least; 24, or 64 from 193 gateways on")
    parser.add_argument(
        "--processes", type=int, default=default.processes, help="nodes; the last is killed, from 3 on in a round, too"
    )
    parser.add_argument(
        "--tafs", type=int, nargs="+", choices=TAFS, default=list(TAFS), help="use cases of each gateway"
    )
    parser.add_argument("--kills", type=int, default=default.kills, help="of a node while gateways deliver; 0: nobody")
    parser.add_argument("--live", action="store_true", help="what is delivered of those quarter hours is read live")
    parser.add_argument("--profile", default=default.profile, help="link profile of netem, for deliveries and REST")
    parser.add_argument("--cut-every-s", type=float, default=default.cut_every_s, help="connections break; 0: never")
    parser.add_argument(
        "--contract-mb", type=float, default=5.0, help="of a gateway's SIM card a month, to compare with"
    )
    options = parser.parse_args()
    if options.gateways < 24 or options.processes < 1 or not 4 <= options.rounds <= COUNT or options.kills < 0:
        parser.error("expected 24 gateways or more, a process, 4 rounds or more")
    settings = MonthSettings(
        directory=options.directory.resolve(), gateways=options.gateways, rounds=options.rounds,
        period_s=options.period_s, setup_s=options.setup_s, ring_size=options.ring_size, processes=options.processes,
        tafs=tuple(sorted(options.tafs)), kills=options.kills, live=options.live, profile=options.profile,
        cut_every_s=options.cut_every_s,
    )  # fmt: skip
    console = Console()
    try:
        report = run(settings, options.contract_mb, console)
    except StromkreisError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    console.print(write_report(report, settings.directory), highlight=False, markup=False, soft_wrap=True)
    return int(bool(report.failures))


def run(settings: MonthSettings, contract_mb: float, console: Console) -> MonthReport:
    """One run to its report; a machine that needs longer to set up gets it.  Raises StromkreisError."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return _run_once(settings, contract_mb, console)
        except TooLateError as error:
            needed_s = error.needed_s
            console.print(f"this machine needs longer to set up: begins anew, with {needed_s:.0f} s", highlight=False)
            (settings.directory / "plan.json").unlink(missing_ok=True)
            settings = replace(settings, setup_s=needed_s)
    return _run_once(settings, contract_mb, console)


def _run_once(settings: MonthSettings, contract_mb: float, console: Console) -> MonthReport:
    """Of several things that went wrong at once it raises the one that a person can do something about."""
    with begun_or_broken_off(settings) as plan:
        try:
            return trio.run(Month(plan, contract_mb, console).run)
        except BaseExceptionGroup as group:
            for kind in (TooLateError, KeyboardInterrupt, StromkreisError):
                if (found := group.subgroup(kind)) is not None:
                    raise _first(found) from None
            raise


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


if __name__ == "__main__":
    sys.exit(main())
