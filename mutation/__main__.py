"""
`python -m mutation`: changes the ring's machines in one place at a time and has the tests of the DC-net notice.

cosmic-ray makes the changes, coverage says which tests run the changed line, and those tests are run on it, each change
in a process of its own.  What was tried is kept in out/mutate, for exactly these sources and tests: an interrupted run
goes on where it stopped.  The run holds if every survivor is explained in docs/explanation/mutation.toml and every
explanation explains a survivor; otherwise it says which do not, and exits with 1.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import sys
import tomllib
from functools import partial
from importlib.metadata import version
from pathlib import Path

from mutation.forks import in_a_process
from mutation.outcomes import Session, digest_of
from mutation.places import Place, places
from mutation.report import CONSOLE, report
from mutation.running import measure_tests, try_places
from mutation.survivors import explained

ROOT = Path(__file__).parents[1]
OUT = ROOT / "out" / "mutate"


def _arguments(modules: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mutation", description=(__doc__ or "").partition("\n\n")[0])
    names = [Path(each).name for each in modules]
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="changes tried at a time (all cores)")
    parser.add_argument("--file", action="append", choices=names, help="try this file only; may be repeated")
    parser.add_argument("--sample", type=int, metavar="N", help="try N places of each file, drawn at random")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (1)")
    parser.add_argument(
        "--budget", type=float, default=math.inf, metavar="S", help="a place's quickest tests only, S s in all"
    )
    parser.add_argument("--test", default="", metavar="TEXT", help="only tests of files with this in their name")
    parser.add_argument("--resume", action="store_true", help="keep what earlier runs killed in files of the same text")
    return parser.parse_args()


def main() -> int:
    """Try what is left to try, then judge; the exit status."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["stromkreis"]["mutation"]
    options = _arguments(config["modules"])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a process of several threads is not forked
    modules = [each for each in config["modules"] if not options.file or Path(each).name in options.file]
    sources = [*config["sources"], *config["tests"]]
    digest = digest_of(ROOT, sources, repr(config), sys.version, version("cosmic-ray"))
    earlier = sorted((each for each in OUT.glob("*") if each.name != digest), key=lambda each: -each.stat().st_mtime)
    session = Session(OUT / digest, ROOT, sources)
    sys.path[0] = str(session.tree)
    if options.resume:
        kills = session.take_kills((Session(each, ROOT, ()) for each in earlier if (each / "tree").is_dir()), modules)
        CONSOLE.print(f"{kills} kills of earlier runs are kept")
    if not session.table.exists():
        in_a_process(partial(measure_tests, session, config, options.jobs))
    chosen = {each: _sampled(list(places(session.tree, Path(each))), options) for each in modules}
    every_place = [place for each in chosen.values() for place in each]
    try_places(session, config["tests"], every_place, options)
    if options.sample is not None:
        CONSOLE.print(f"A sample: up to {options.sample} places of each file, drawn with seed {options.seed}.")
    known = explained(ROOT / "docs" / "explanation" / "mutation.toml")
    return report(session, chosen, known, is_whole=options.sample is None)


def _sampled(places_: list[Place], options: argparse.Namespace) -> list[Place]:
    found = [each for each in places_ if options.sample is None or not each.is_annotation]
    if options.sample is None or options.sample >= len(found):
        return found
    return random.Random(options.seed).sample(found, options.sample)


try:
    sys.exit(main())
except KeyboardInterrupt:
    sys.exit("stopped; the next run goes on from here")
