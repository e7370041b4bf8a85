"""pytest collects the tests once, and calls a loop of ours in place of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

_ARGUMENTS = (
    "-c", os.devnull, "-W", "error", "--assert=plain", "--capture=no", "--import-mode=importlib",
    "--disable-plugin-autoload", "-p", "no:cacheprovider", "-p", "no:terminal",
    "-p", "_hypothesis_pytestplugin", "--hypothesis-seed=1",
)  # fmt: skip


class Runner:
    """A plugin of pytest that has `loop` called with the collected tests in place of running them."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.failure = ""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Call the loop, in place of pytest's."""
        self._loop(self, {item.nodeid: item for item in session.items})
        return True

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note what has failed."""
        if report.failed:
            self.failure = f"{report.nodeid}\n{report.longreprtext}"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what has failed."""
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


Loop = Callable[[Runner, dict[str, pytest.Item]], None]


def collected(tree: Path, tests: Sequence[str], loop: Loop, *more: object) -> str:
    """Have pytest collect in a tree, then call `loop`; what failed, empty for nothing."""
    os.chdir(tree)
    runner = Runner(loop)
    status = pytest.main([*_ARGUMENTS, f"--rootdir={tree}", *tests], plugins=[runner, *more])
    if status == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    return runner.failure or ("" if status == pytest.ExitCode.OK else f"pytest ended with {status!r}")
