"""
`python -m mutation`: changes the member machine in one place at a time and asks its own tests to notice.

cosmic-ray makes the mutants; here they are tried on all cores, each worker in a copy of the sources, as
`[tool.stromkreis.mutation]` in pyproject.toml says.  What was tried is kept in out/mutate, in a session for exactly
these sources: an interrupted run goes on where it stopped.  The run holds if every survivor is explained in
docs/explanation/mutation.toml and every explanation explains a survivor; otherwise it says which do not, and exits
with 1.
"""

from __future__ import annotations

import argparse
import compileall
import hashlib
import os
import shutil
import signal
import sys
import time
import tomllib
from collections.abc import Iterable
from multiprocessing import current_process, get_context
from pathlib import Path
from typing import Any

from cosmic_ray.commands.init import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkItem, WorkResult

from mutation import survivors

ROOT = Path(__file__).parents[1]
OUT = ROOT / "out" / "mutate"
_ANNOTATION = WorkResult(worker_outcome=WorkerOutcome.SKIPPED, output="in an annotation, which nothing evaluates")


def main() -> int:
    """Try what is left to try, then judge; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mutation", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants tried at a time")
    jobs = parser.parse_args().jobs
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; the next run goes on from here"))
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["stromkreis"]["mutation"]
    OUT.mkdir(parents=True, exist_ok=True)
    with use_db(OUT / f"{_digest(config)}.sqlite") as session:
        if not session.num_work_items:
            _begin(session, config)
        if pending := session.pending_work_items:
            _run(session, pending, config, jobs)
        return _judge(session)


def _digest(config: dict[str, Any]) -> str:
    """What the outcomes depend on: the sources that the tests import, the tests, and how they are run."""
    value = hashlib.sha256(repr(config).encode())
    for source in config["sources"]:
        path = ROOT / source
        for each in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            value.update(str(each.relative_to(ROOT)).encode() + b"\0" + each.read_bytes())
    return value.hexdigest()[:16]


def _begin(session: WorkDB, config: dict[str, Any]) -> None:
    os.chdir(ROOT)
    modules = [Path(each) for each in config["modules"]]
    init(modules, session, {})
    spans = {each: survivors.annotation_spans(each.read_text(encoding="utf-8")) for each in modules}
    silent = [
        item.job_id
        for item in session.pending_work_items
        if all(survivors.within(each.start_pos, spans[Path(each.module_path)]) for each in item.mutations)
    ]
    session.set_multiple_results(silent, _ANNOTATION)


def _run(session: WorkDB, pending: Iterable[WorkItem], config: dict[str, Any], jobs: int) -> None:
    work = sorted(pending, key=lambda item: (str(item.mutations[0].module_path), item.mutations[0].start_pos))
    began_s, survived = time.monotonic(), 0
    with get_context("fork").Pool(jobs, _prepare, (config,)) as pool:
        outcome, output = pool.apply(_unchanged, (config,))
        if outcome is not TestOutcome.SURVIVED:
            sys.exit(f"the tests fail on the modules as they are, so they say nothing about mutants:\n{output}")
        for done, (job, result) in enumerate(pool.imap_unordered(_try, [(item, config) for item in work]), 1):
            session.set_result(job, result)
            survived += result.test_outcome is TestOutcome.SURVIVED
            if done % 20 == 0 or done == len(work):
                left_s = (time.monotonic() - began_s) / done * (len(work) - done)
                print(f"{done} of {len(work)} mutants tried, {survived} survive, {left_s:.0f} s left", flush=True)


def _prepare(config: dict[str, Any]) -> None:
    """A worker's own copy of the sources, compiled but for the modules that change."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    tree = OUT / current_process().name
    shutil.rmtree(tree, ignore_errors=True)
    for source in config["sources"]:
        (tree / source).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tree / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / source, tree / source)
    os.chdir(tree)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    compileall.compile_dir(".", quiet=2)
    for module in map(Path, config["modules"]):
        for stale in module.parent.glob(f"__pycache__/{module.stem}.*"):
            stale.unlink()


def _unchanged(config: dict[str, Any]) -> tuple[TestOutcome, str]:
    outcome: tuple[TestOutcome, str] = run_tests(config["test-command"], config["timeout-s"])
    return outcome


def _try(task: tuple[WorkItem, dict[str, Any]]) -> tuple[str, WorkResult]:
    item, config = task
    return item.job_id, mutate_and_test(item.mutations, config["test-command"], config["timeout-s"])


def _judge(session: WorkDB) -> int:
    outcomes, alive, broken = [], [], []
    for item, result in session.completed_work_items:
        (mutation,) = item.mutations
        if result.worker_outcome is WorkerOutcome.SKIPPED:
            outcomes.append("in annotations")
        elif result.test_outcome is TestOutcome.SURVIVED:
            outcomes.append("alive")
            alive.append(survivors.from_diff(mutation.definition_name, mutation.operator_name, result.diff or ""))
        elif result.worker_outcome is WorkerOutcome.NORMAL and result.test_outcome is TestOutcome.KILLED:
            outcomes.append("killed by the clock" if result.output == "timeout" else "killed")
        else:
            outcomes.append("not tried")
            broken.append((mutation.operator_name, result.output))
    print(f"{len(outcomes)} mutants: {survivors.tally(outcomes)}")
    unexplained, idle = survivors.compare(alive, survivors.explained(ROOT / "docs" / "explanation" / "mutation.toml"))
    if unexplained:
        print("\nNothing explains why these live; add a test, or a reason to docs/explanation/mutation.toml:")
        print(survivors.as_toml(unexplained))
    if idle:
        print(f"\nExplained in docs/explanation/mutation.toml, but no survivor:\n{survivors.as_toml(idle)}")
    for name, output in broken:
        print(f"\n{name} could not be tried: {output}")
    return int(bool(unexplained or idle or broken))


sys.exit(main())
