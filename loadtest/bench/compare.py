"""
What a change costs, this tree against an earlier commit: a fleet and a ring of 64, old and new in turn.

    python -m loadtest.bench.compare a4c5f14 [--pairs 9] [--gateways 1000] [--parts fleet ring]

The commit is checked out beside this tree and runs by the same interpreter and libraries.  Each sample is a benchmark
of its own processes, exactly as `make bench-fleet` and `make bench NAMES=curve` run it, and within a pair old and new
take turns at being first.  What else the machine does meets both alike, so the ratio is taken pair by pair.  Its
interval is that of the median by ranks, which assumes nothing of how samples are distributed: with nine pairs the
second lowest and the second highest ratio enclose the true median with 96 %.

Above 1 the new tree takes more.  Exit status 1 where a median ratio is over `--limit`, or where the new tree's memory
a gateway is over `--memory-kb`.  Run it when nobody else uses the machine: with a second load on the same cores
neighbouring samples differ by a quarter.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import comb
from pathlib import Path
from statistics import median
from typing import NamedTuple

from loadtest.bench.table import machine, now

_ROOT = Path(__file__).parents[2]
_OUT = Path("out/bench/compare.json")
_CONFIDENCE = 0.95
_RUN_S = 1800.0  # for one sample; a fleet that takes longer has lost its way

Sample = dict[str, float]
"""Figures of one run by name; less is better."""


class Interval(NamedTuple):
    """Encloses the true median with a chance of `confidence`."""

    low: float
    high: float
    confidence: float


def median_interval(samples: Sequence[float]) -> Interval:
    """
    The narrowest interval of ranks, symmetric, for the median of what `samples` were drawn from, by the sign test.

    With fewer than six samples even the whole range encloses it with less than 95 %; the interval says with how much.
    """
    ordered, count = sorted(samples), len(samples)

    def confidence(rank: int) -> float:
        return 1.0 - sum(comb(count, below) for below in range(rank + 1)) / float(2 ** (count - 1))

    rank = max((rank for rank in range((count + 1) // 2) if confidence(rank) >= _CONFIDENCE), default=0)
    return Interval(ordered[rank], ordered[count - 1 - rank], confidence(rank))


def fleet(tree: Path, gateways: int) -> Sample:
    """One fleet: CPU time a gateway for a full round with churn, memory a gateway."""
    _run(tree, "loadtest.bench.fleet", "--gateways", str(gateways))
    rows = _rows(tree / "out/bench/fleet.json")
    return {
        f"fleet of {gateways:,}, CPU a gateway and round, µs": rows["CPU a gateway for the round"],
        f"fleet of {gateways:,}, memory a gateway, KB": rows["memory a gateway"],
    }


def ring(tree: Path) -> Sample:
    """One ring of 64 over CURVE, a quick run: the median of its rounds' times."""
    _run(tree, "loadtest.bench", "curve", "--quick")
    ((_, took_ms),) = _rows(tree / "out/bench/quick/curve.json").items()
    return {"ring of 64 over CURVE, from the opening to the total, ms": took_ms}


def _run(tree: Path, module: str, *arguments: str) -> None:
    """Run a benchmark of a tree; it is the one in the folder that is imported.  Raises RuntimeError where it fails."""
    command = [sys.executable, "-m", module, *arguments]
    ran = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=_RUN_S, check=False)  # noqa: S603
    if ran.returncode not in (0, 1):  # 1: a target was missed, which is not what is asked here
        raise RuntimeError(f"{' '.join(command)} in {tree} has failed:\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}")


def _rows(path: Path) -> dict[str, float]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    except OSError as error:
        raise RuntimeError(f"{path}: the benchmark has left no result; run it by hand to see why") from error
    path.unlink()  # the next one must be the next run's
    return {row["what"].strip(): row["ours"]["median"] for row in rows}


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A folder with the tree of a commit, while it is needed."""
    with tempfile.TemporaryDirectory(prefix="stromkreis-compare-") as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(_ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)  # noqa: S603
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)  # noqa: S603


def take_pairs(
    old: Path, new: Path, sample: Callable[[Path], Sample], count: int, report: Callable[[str], None]
) -> list[tuple[Sample, Sample]]:
    """Samples of the old and the new tree in turn; which is first alternates."""
    pairs = []
    for number in range(count):
        order = (old, new) if number % 2 == 0 else (new, old)
        taken = {tree: sample(tree) for tree in order}
        pairs.append((taken[old], taken[new]))
        for what, before in taken[old].items():
            report(f"pair {number + 1} of {count}: {what}: {before:.4g} before, {taken[new][what]:.4g} now")
    return pairs


def main() -> int:
    """Take the pairs, print the ratios and keep them in out/bench/compare.json."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.bench.compare", description="This tree against an earlier commit, in pairs."
    )
    parser.add_argument("commit", help="what to compare with, as git names it")
    parser.add_argument("--pairs", type=int, default=9, help="of samples; from six on the interval has 95 %%")
    parser.add_argument("--gateways", type=int, default=1000, help="of the fleet")
    parser.add_argument("--parts", nargs="+", choices=("fleet", "ring"), default=["fleet", "ring"])
    parser.add_argument("--limit", type=float, default=1.05, help="the highest median ratio of times")
    parser.add_argument("--memory-kb", type=float, default=185.0, help="the most memory a gateway in the fleet")
    options = parser.parse_args()
    if options.pairs < 1:
        parser.error("at least one pair")
    parts: dict[str, Callable[[Path], Sample]] = {"fleet": lambda tree: fleet(tree, options.gateways), "ring": ring}
    load_start = os.getloadavg()[0]
    results, missed = [], False
    try:
        with checked_out(options.commit) as old:
            for part in options.parts:
                pairs = take_pairs(old, _ROOT, parts[part], options.pairs, lambda line: print(line, flush=True))
                for what in pairs[0][0]:
                    is_memory = what.endswith("KB")
                    before, now_ = [pair[0][what] for pair in pairs], [pair[1][what] for pair in pairs]
                    ratios = [after / earlier for earlier, after in zip(before, now_, strict=True)]
                    interval = median_interval(ratios)
                    is_met = median(now_) <= options.memory_kb if is_memory else median(ratios) <= options.limit
                    missed |= not is_met
                    limit = f"{options.memory_kb:g} KB" if is_memory else f"a ratio of {options.limit:g}"
                    print(
                        f"{what}: {median(before):.4g} before, {median(now_):.4g} now, ratio {median(ratios):.3f} "
                        f"[{interval.low:.3f}, {interval.high:.3f}] ({interval.confidence:.0%} of {len(ratios)} pairs)"
                        f"; {'met' if is_met else 'MISSED'}: at most {limit}",
                        flush=True,
                    )
                    results.append({"what": what, "before": before, "now": now_, "interval": interval._asdict()})
    except (RuntimeError, subprocess.SubprocessError) as error:
        print(f"no comparison: {error}", file=sys.stderr)
        return 2
    load = {"load_start": load_start, "load_end": os.getloadavg()[0]}
    about = machine() | {"date": now(), "commit": options.commit} | load
    _OUT.parent.mkdir(parents=True, exist_ok=True)
    _OUT.write_text(json.dumps({"about": about, "results": results}, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
