"""A load test on the terminal: what happens, a bar of the set-up and of the rounds; plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from loadtest.scenarios.recovery import Interval

_SETUP_STEP = 0.25  # where lines are printed: each quarter of the gateways


class View:
    """Says what happens; in a terminal it shows how far it is."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._told: dict[str, float] = {}
        self._rounds_told = 0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The bars, for as long as the block lasts."""
        if not self._console.is_terminal:
            yield
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console) as self._progress:
            yield
        self._progress = None

    def say(self, text: str) -> None:
        """Something happened."""
        self._console.print(f"{datetime.now().astimezone():%H:%M:%S}  {text}", highlight=False, soft_wrap=True)

    def count(self, what: str, done: int, of: int) -> None:
        """How far the set-up is."""
        if self._progress is not None:
            self._bar(what, done, of, f"{done:,} of {of:,}")
        elif done / max(1, of) >= self._told.get(what, 0.0) + _SETUP_STEP:
            self._told[what] = done / max(1, of)
            self.say(f"{what}: {done:,} of {of:,}")

    def rounds(self, ended: list[Interval], of: int, gateways: int) -> None:
        """The rounds whose rings have all ended."""
        if self._progress is not None:
            opened, void = sum(each.opened for each in ended), sum(each.void for each in ended)
            note = f"{len(ended)} of {of}; {opened:,} ring rounds opened, {void:,} void"
            self._bar("rounds", len(ended), of, note)
            return
        for number, each in list(enumerate(ended, 1))[self._rounds_told :]:
            why = f" ({', '.join(each.reasons)})" if each.reasons else ""
            waiting = f", {each.waiting:,} wait for a return" if each.waiting else ""
            self.say(
                f"round {number - 1} ({number} of {of}): {each.opened} rings opened, {each.void} void{why},"
                f" {each.present:,} of {gateways:,} gateways in totals{waiting}, {each.took_s:.1f} s"
            )
        self._rounds_told = max(self._rounds_told, len(ended))

    def _bar(self, what: str, done: int, of: int, note: str) -> None:
        if self._progress is None:
            return
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=of, note=note)
        self._progress.update(self._tasks[what], completed=done, note=note)
