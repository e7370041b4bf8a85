"""
All benchmarks in one run: JSON into out/bench, the table into docs/reference/benchmarks.md.

    python -m loadtest.bench [names] [--quick]

The table is made of the latest JSON of each suite, so a single one can be measured again by name; each section has its
own date and load.  A quick run keeps to out/bench/quick.  Peers are measured where their environments are (see
`peers`).  Exit status 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from loadtest.bench import bills, cms, codecs, curve, engine, metering_log, rounds, store
from loadtest.bench.measure import Row
from loadtest.bench.table import machine, now, write_json, write_markdown

_SUITES: dict[str, tuple[str, Callable[..., list[Row]]]] = {
    "rounds": ("Whole rounds in one process, 96 slots, 5 % silent", rounds.rows),
    "primitives": ("Parts", engine.primitives),
    "vectors": ("The share engine and long vectors", engine.vectors),
    "gateway": ("One gateway's work for one round", engine.gateway),
    "curve": ("A ring over the network", curve.rows),
    "scaling": ("Scaling in members, neighbours and slots", engine.scaling),
    "bills": ("Bills", bills.rows),
    "sml": ("SML", codecs.sml_rows),
    "mbus": ("M-Bus and wireless M-Bus", codecs.mbus_rows),
    "cms": ("CMS, one core", cms.rows),
    "link": ("Links", codecs.link_rows),
    "store": ("Node's store", store.rows),
    "metering_log": ("Metering log", metering_log.rows),
}
_OUT = Path("out/bench")
_TABLE = Path("docs/reference/benchmarks.md")


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description="Every figure, beside the peers'.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(_SUITES)}; all if none is given")
    parser.add_argument("--quick", action="store_true", help="few samples and small sizes, about a minute")
    options = parser.parse_args()
    if unknown := set(options.names) - set(_SUITES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    out = _OUT / "quick" if options.quick else _OUT
    missed = False
    for name, (title, suite) in _SUITES.items():
        if options.names and name not in options.names:
            continue
        about = machine() | {"date": now(), "load_start": os.getloadavg()[0], "quick": options.quick}
        rows = suite(quick=options.quick)
        write_json(out / f"{name}.json", title, rows, about | {"load_end": os.getloadavg()[0]})
        missed |= any(row.met is False for row in rows)
        for row in rows:
            _print(row)
    table = out / "benchmarks.md" if options.quick else _TABLE
    write_markdown(table, [out / f"{name}.json" for name in (*_SUITES, "fleet")])
    print(f"the table is in {table}")
    return int(missed)


def _print(row: Row) -> None:
    ratio = "" if row.ratio is None else f"  x{row.ratio.median:.3g}"
    verdict = {True: "  met", False: "  MISSED", None: ""}[row.met]
    print(f"{row.what:72} {row.ours.median:12.4g} {row.unit}{ratio}{verdict}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
