"""Which tests run which lines of the modules, and how long each takes, on the code as it is."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mutation.collection import Runner, collected
from mutation.forks import fork_each, tell

_SHARED = "import "  # before the name of a file of tests: what runs for all of its tests
_LIMIT_FACTOR, _LEAST_LIMIT_S = 10, 2.0  # of the computing time that a test takes on the code as it is
_MEASURING_S = 600.0


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
        found |= {test for test in self.seconds if file_of(test) in files}
        return sorted(found, key=lambda test: (self.seconds[test], test))

    def quickest_first(self) -> list[str]:
        """All tests."""
        return sorted(self.seconds, key=lambda test: self.seconds[test])

    def within(self, budget_s: float, tests: Iterable[str]) -> list[str]:
        """The first of these tests that compute for no longer than the budget in all, one at least."""
        chosen, left_s = list[str](), budget_s
        for each in tests:
            left_s -= self.seconds[each]
            if left_s < 0 and chosen:
                break
            chosen.append(each)
        return chosen

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
            self._coverage.switch_context(_SHARED + file_of(self._test))
        result = yield
        if is_shared:
            self._coverage.switch_context(self._test)
        return result


def file_of(test: str) -> str:
    """The file of a test."""
    return test.partition("::")[0]


def measure(
    tree: Path,
    modules: Sequence[str],
    tests: Sequence[str],
    jobs: int,
    begun: Callable[[int], None],
    done: Callable[[], None],
) -> CoverageTable:
    """
    Run each test on the code as it is.  Raises SystemExit where one fails: then it says nothing about a change.

    `begun` is called with the number of tests, `done` after each.  Once in a process, which has imported no module.
    """
    from coverage import Coverage  # noqa: PLC0415 - where nothing is measured it is not wanted

    table = CoverageTable({each: {} for each in modules}, {each: {} for each in modules})
    contexts = _Contexts(
        coverage := Coverage(data_file=None, config_file=False, include=[str(tree / each) for each in modules])
    )

    def ran() -> Iterator[tuple[str, int, str]]:
        data = coverage.get_data()
        for module in modules:
            for line, contexts in data.contexts_by_lineno(str(tree / module)).items():
                yield from ((module, line, each) for each in contexts)

    def loop(runner: Runner, items: dict[str, pytest.Item]) -> None:
        for module, line, context in ran():
            table.imported[module].setdefault(str(line), []).append(context.removeprefix(_SHARED))

        def work(name: str, fd: int) -> int:
            contexts.begin(name)
            began_s = time.process_time()
            if not runner.run([items[name]], [_MEASURING_S]):
                tell(fd, runner.failure)
                return 1
            seconds = time.process_time() - began_s
            coverage.stop()
            file = _SHARED + file_of(name)
            rows = [(module, line, context == file) for module, line, context in ran() if context in {name, file}]
            tell(fd, json.dumps([seconds, rows]))
            return 0

        begun(len(items))
        for each in fork_each(items, jobs, work):
            if each.status != 0:
                runner.failure = f"{each.task} on the code as it is:\n{each.output.decode(errors='replace')}"
                return
            table.seconds[each.task], rows = json.loads(each.output)
            for module, line, is_shared in rows:
                found, who = (table.imported, file_of(each.task)) if is_shared else (table.lines, each.task)
                known = found[module].setdefault(str(line), [])
                if who not in known:
                    known.append(who)
            done()

    coverage.set_option("run:disable_warnings", ["no-data-collected"])  # by a test that runs none of the modules
    coverage.start()
    if failure := collected(tree, tests, loop, contexts):
        sys.exit(f"the tests say nothing about changes, since they fail without one: {failure}")
    return table
