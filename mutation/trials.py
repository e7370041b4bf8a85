"""
The tests that notice a change: which of them run a line, and whether one fails when the line is another.

pytest collects the tests once; they run in forked processes.  A change inside a function is put into the process as the
function's new code.  A change elsewhere, or in what is run when a test is imported, wants everything imported anew.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mutation.forks import Ended, fork_each

ALIVE, KILLED = 0, 1
_SHARED = "import "  # before the name of a file of tests: what runs for all of its tests
_LIMIT_FACTOR, _LEAST_LIMIT_S = 10, 2.0  # of the computing time that a test takes on the code as it is
_MEASURING_S = 600.0
_IMPORTS_S = 120.0  # what imports and collection may take
_ARGUMENTS = (
    "-c", os.devnull, "-W", "error", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:terminal", "--capture=no",
    "--import-mode=importlib", "--hypothesis-seed=1",
)  # fmt: skip


@dataclass
class CoverageTable:
    """
    What the tests ran on the code as it is: of each module's lines the tests that ran them, and the tests' times.

    `imported` are the files of tests in whose import, or in whose shared fixtures, a line ran.
    """

    lines: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    imported: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def tests_of(self, module: str, lines: Iterable[int]) -> list[str]:
        """The tests that run one of these lines, the quickest first."""
        found = {test for line in lines for test in self.lines.get(module, {}).get(str(line), ())}
        files = self._files(module, lines)
        found |= {test for test in self.seconds if _file_of(test) in files}
        return sorted(found, key=lambda test: (self.seconds[test], test))

    def is_imported(self, module: str, lines: Iterable[int]) -> bool:
        """Whether one of these lines runs before any test does."""
        return bool(self._files(module, lines))

    def _files(self, module: str, lines: Iterable[int]) -> set[str]:
        return {name for line in lines for name in self.imported.get(module, {}).get(str(line), ())}

    def limits_s(self, tests: Iterable[str]) -> list[float]:
        """How long each may compute: a change that makes it take longer than this never ends."""
        return [_LIMIT_FACTOR * self.seconds[each] + _LEAST_LIMIT_S for each in tests]

    def as_json(self) -> str:
        """For `CoverageTable(**json.loads(text))`."""
        return json.dumps(asdict(self))


class _Runner:
    """A plugin of pytest that has `loop` called with the collected tests in place of running them."""

    def __init__(self, loop: Callable[[_Runner, dict[str, pytest.Item]], None]) -> None:
        self._loop = loop
        self.failure = ""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._loop(self, {item.nodeid: item for item in session.items})
        return True

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failure = f"{report.nodeid}\n{report.longreprtext}"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failure:
            self.failure = f"{report.nodeid}\n{report.longreprtext}"

    def run(self, items: Sequence[pytest.Item], limits_s: Sequence[float]) -> bool:
        """Run them up to the first that fails, or computes for longer than it may; whether none does."""
        following: list[pytest.Item | None] = [*items[1:], None]
        for item, then, limit_s in zip(items, following[: len(items)], limits_s, strict=True):
            signal.setitimer(signal.ITIMER_PROF, limit_s)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=then)
            if self.failure:
                return False
        return True


def _collected(tree: Path, tests: Sequence[str], loop: Callable[[_Runner, dict[str, pytest.Item]], None], *more: Any) -> str:
    """Have pytest collect, then call `loop`; what failed, empty for nothing."""
    os.chdir(tree)
    runner = _Runner(loop)
    status = pytest.main([*_ARGUMENTS, f"--rootdir={tree}", *tests], plugins=[runner, *more])
    return runner.failure or ("" if status == pytest.ExitCode.OK else f"pytest ended with {status!r}")


class _Contexts:
    """A plugin of pytest that tells coverage for whom something runs: for a file of tests, or for one of them."""

    def __init__(self, coverage: Any) -> None:
        self._coverage = coverage
        self._test = ""

    def begin(self, test: str) -> None:
        """What runs from now on is the test's."""
        self._test = test
        self._coverage.switch_context(test)

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Iterator[None]:
        if isinstance(collector, pytest.Module):
            self._coverage.switch_context(_SHARED + collector.nodeid)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        is_shared = fixturedef.scope != "function"
        if is_shared:
            self._coverage.switch_context(_SHARED + _file_of(self._test))
        result = yield
        if is_shared:
            self._coverage.switch_context(self._test)
        return result


def _file_of(test: str) -> str:
    return test.partition("::")[0]


def measure(tree: Path, modules: Sequence[str], tests: Sequence[str], jobs: int, begun: Callable[[int], None], done: Callable[[], None]) -> CoverageTable:
    """
    Run each test on the code as it is.  Raises SystemExit where one fails: then it says nothing about a change.

    `begun` is called with the number of tests, `done` after each.  Once in a process, which has imported none of the modules.
    """
    from coverage import Coverage  # noqa: PLC0415 - where nothing is measured it is not wanted

    table = CoverageTable({each: {} for each in modules}, {each: {} for each in modules})
    contexts = _Contexts(coverage := Coverage(data_file=None, config_file=False, include=[str(tree / each) for each in modules]))

    def ran() -> Iterator[tuple[str, int, str]]:
        data = coverage.get_data()
        for module in modules:
            for line, contexts in data.contexts_by_lineno(str(tree / module)).items():
                yield from ((module, line, each) for each in contexts)

    def loop(runner: _Runner, items: dict[str, pytest.Item]) -> None:
        for module, line, context in ran():
            table.imported[module].setdefault(str(line), []).append(context.removeprefix(_SHARED))

        def work(name: str, fd: int) -> int:
            contexts.begin(name)
            began_s = time.process_time()
            if not runner.run([items[name]], [_MEASURING_S]):
                _write(fd, runner.failure)
                return KILLED
            seconds = time.process_time() - began_s
            coverage.stop()
            file = _SHARED + _file_of(name)
            rows = [(module, line, context == file) for module, line, context in ran() if context in {name, file}]
            _write(fd, json.dumps([seconds, rows]))
            return ALIVE

        begun(len(items))
        for each in fork_each(items, jobs, work):
            if each.status != ALIVE:
                runner.failure = f"{each.task} on the code as it is:\n{each.output.decode(errors='replace')}"
                return
            table.seconds[each.task], rows = json.loads(each.output)
            for module, line, is_shared in rows:
                found, who = (table.imported, _file_of(each.task)) if is_shared else (table.lines, each.task)
                known = found[module].setdefault(str(line), [])
                if who not in known:
                    known.append(who)
            done()

    coverage.set_option("run:disable_warnings", ["no-data-collected"])  # by a test that runs none of the modules
    coverage.start()
    if failure := _collected(tree, tests, loop, contexts):
        sys.exit(f"the tests say nothing about changes, since they fail without one: {failure}")
    return table


def _write(fd: int, text: str) -> None:
    with open(fd, "w", encoding="utf-8", closefd=False) as pipe:
        pipe.write(text)


@dataclass(frozen=True, slots=True)
class Trial:
    """A change to be tried by some tests: `change` makes it, and gives the module's new text and what to tell of it."""

    key: tuple[str, str, int]
    module: str
    function: str | None
    tests: list[str]
    limits_s: list[float]
    change: Callable[[], tuple[str, Sequence[str]]]

    def begin(self, fd: int) -> str:
        """The module's new text; tells the parent what has changed."""
        text, told = self.change()
        _write(fd, json.dumps(told) + "\n")
        return text


def try_in_place(tree: Path, tests: Sequence[str], trials: Sequence[Trial], jobs: int, done: Callable[[Ended[Trial]], None]) -> None:
    """Try changes of functions' bodies; `done` is called as each ends.  Once in a process."""

    def loop(runner: _Runner, items: dict[str, pytest.Item]) -> None:
        def work(trial: Trial, fd: int) -> int:
            text = trial.begin(fd)
            try:
                code = compile(text, str(tree / trial.module), "exec")
            except SyntaxError:
                return KILLED
            replace_function(sys.modules[module_name(trial.module)], trial.function or "", code)
            if runner.run([items[name] for name in trial.tests], trial.limits_s):
                return ALIVE
            _write(fd, runner.failure.partition("\n")[0])
            return KILLED

        for each in fork_each(trials, jobs, work):
            done(each)

    if failure := _collected(tree, tests, loop):
        sys.exit(f"the tests cannot be collected: {failure}")


def try_anew(tree: Path, trials: Sequence[Trial], jobs: int, done: Callable[[Ended[Trial]], None]) -> None:
    """Try changes of anything, each with everything imported anew; in a process that has imported none of it."""

    def work(trial: Trial, fd: int) -> int:
        signal.setitimer(signal.ITIMER_PROF, _IMPORTS_S)
        text = trial.begin(fd)
        try:
            import_changed(module_name(trial.module), text)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody could import the module
            _write(fd, repr(error))
            return KILLED

        def loop(runner: _Runner, items: dict[str, pytest.Item]) -> None:
            runner.run([items[name] for name in trial.tests], trial.limits_s)

        failure = _collected(tree, sorted({_file_of(name) for name in trial.tests}), loop)
        _write(fd, failure.partition("\n")[0])
        return KILLED if failure else ALIVE

    os.chdir(tree)
    for each in fork_each(trials, jobs, work):
        done(each)


def module_name(path: str) -> str:
    """The name of the module in a file, relative to the tree."""
    return path.removesuffix(".py").replace("/", ".")


def import_changed(name: str, text: str) -> None:
    """Import a module with another text than its file has.  Raises what running it raises."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(name)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    exec(compile(text, spec.origin, "exec"), module.__dict__)  # noqa: S102 - that is what an import does
    parent, _, last = name.rpartition(".")
    setattr(sys.modules[parent], last, module)


def replace_function(module: types.ModuleType, name: str, code: types.CodeType) -> None:
    """
    Give the function of a qualified name the code that it has in another compilation of its module.

    Raises LookupError where there is none in either.
    """
    found: Any = module
    for part in name.split("."):
        found = vars(found)[part]
    found = getattr(found, "fget", None) or getattr(found, "__func__", None) or found
    found = getattr(found, "__wrapped__", found)
    found.__code__ = _code_of(name, code)


def _code_of(name: str, code: types.CodeType) -> types.CodeType:
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            if each.co_qualname == name:
                return each
            if name.startswith(f"{each.co_qualname}."):
                return _code_of(name, each)
    raise LookupError(f"no function {name}")


def outcome_of(ended: Ended[Trial]) -> tuple[str, list[str], str]:
    """What became of a change: alive, killed, killed by the clock or not tried; the change; the test, or what is wrong."""
    first, _, rest = ended.output.decode(errors="replace").partition("\n")
    try:
        told = json.loads(first)
    except ValueError:
        told, rest = [], first + rest
    if ended.is_overdue:
        return "killed by the clock", told, ""
    known = {ALIVE: "alive", KILLED: "killed"}
    return known.get(ended.status, "not tried"), told, rest or ("" if ended.status in known else f"status {ended.status}")
